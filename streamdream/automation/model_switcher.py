"""Switch between models: load the next one in the background while the current one keeps dreaming."""
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
    """Returns the dreamer for the requested model.

    ``build`` makes the dreamer of a model by its name. With ``patient``, requests wait until the model is loaded, as a
    render needs it.
    """

    def __init__(self, first: Dreamer, build: Callable[[str], Dreamer] | None = None, patient: bool = False) -> None:
        self.current = first
        self._build, self._patient = build, patient
        # At most the current one and one more: the next one, or the one that it fades from.
        self._ready = {"": first, first.model.name: first}
        self._last_request: DreamRequest | None = None
        self._thread: threading.Thread | None = None
        self._failed: dict[str, str] = {}

    def dreamer_for(self, request: DreamRequest, controls: Controls) -> tuple[Dreamer, DreamRequest]:
        """Return the dreamer of the requested model and ``request``; while it loads, the previous dreamer and request.

        If the model cannot be loaded, log a warning and revert ``controls``; with ``patient``, raise StreamdreamError.
        """
        dreamer = self._ready.get(request.model)
        if dreamer is None and self._build is not None and request.model not in self._failed:
            self._load_in_background(request.model)
            dreamer = self._ready.get(request.model)
        if dreamer is not None:
            self.current, self._last_request = dreamer, request
            return dreamer, request
        if request.model in self._failed:
            log.warning("cannot switch to %s: %s", request.model, self._failed.pop(request.model))
            if self._last_request is not None:
                controls.revert_to(self._last_request)
        assert self._last_request is not None  # the first request is for the first dreamer
        return self.current, self._last_request

    def close(self) -> None:
        """Wait for the loading thread."""
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
