"""Who dreams: a dreamer for each network that is wanted. The next one is prepared while the last one still dreams."""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamdream.errors import StreamdreamError

if TYPE_CHECKING:
    from streamdream.automation.controls import Controls, DreamRequest
    from streamdream.dream.dreamer import Dreamer

log = logging.getLogger(__name__)


class ModelSwitcher:
    """``build`` makes the dreamer of a network by its name; ``patient`` waits for it, as a render does."""

    def __init__(self, first: Dreamer, build: Callable[[str], Dreamer] | None = None, patient: bool = False) -> None:
        self.current = first
        self._build, self._patient = build, patient
        # The one of now, and the one that it fades from or will be; of more, none is needed.
        self._ready = {"": first, first.model.name: first}
        self._wish: DreamRequest | None = None
        self._thread: threading.Thread | None = None
        self._failed: dict[str, str] = {}

    def dreamer_for(self, request: DreamRequest, controls: Controls) -> tuple[Dreamer, DreamRequest]:
        """The dreamer that the wish names, or while that is being prepared the one of now, with settings it can dream.

        A network that cannot be had is said in the log, and no longer wanted.
        """
        dreamer = self._ready.get(request.model)
        if dreamer is None and self._build is not None and request.model not in self._failed:
            self._load_in_background(request.model)
            dreamer = self._ready.get(request.model)
        if dreamer is not None:
            self.current, self._wish = dreamer, request
            return dreamer, request
        if request.model in self._failed:
            log.warning("%s is not dreamed with: %s", request.model, self._failed.pop(request.model))
            if self._wish is not None:
                controls.revert_to(self._wish)
        assert self._wish is not None  # the first wish is for the first dreamer
        return self.current, self._wish

    def close(self) -> None:
        """Wait for the thread that loads."""
        if self._thread is not None:
            self._thread.join()

    def _load_in_background(self, model: str) -> None:
        if self._patient:
            self._load(model)
            if model in self._failed:
                raise StreamdreamError(self._failed[model])
        elif self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._load, args=(model,), name="streamdream-model", daemon=True)
            self._thread.start()

    def _load(self, model: str) -> None:
        assert self._build is not None
        try:
            dreamer = self._build(model)
        except Exception as error:
            self._failed[model] = str(error) or type(error).__name__
            return
        self._ready = {**{name: ready for name, ready in self._ready.items() if ready is self.current}, model: dreamer}
