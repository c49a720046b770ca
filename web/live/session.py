"""Live sessions: each is a ``live.pipeline.Live`` between the frames that a browser sends and the residuals it gets."""
from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from streamdream import models, settings
from streamdream.automation.automation import Automation, PlaylistEntry, parse_playlist
from streamdream.automation.controls import (
    CROSSFADED_FIELDS,
    MODEL_DEPENDENT_FIELDS,
    Controls,
    DreamRequest,
    parse_values,
)
from streamdream.dream.octaves import fitting_octaves
from streamdream.errors import Closed, FieldTooSmall, SettingsError, StreamdreamError, UnknownName, UsageError
from streamdream.live.field_times import FieldTimesOfRun
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.settings import DreamSettings
from streamdream.settings_parsing import parse_layers

from ..core import limits
from ..core.messages import visitor_message
from ..core.scheduler import CpuYield, Use
from .browser_io import BrowserSource, ResidualSink, split_residual

if TYPE_CHECKING:
    from streamdream.backends import Backend
    from streamdream.models import Model

    from ..core.state import AppState

INTERDEPENDENT = {*MODEL_DEPENDENT_FIELDS, "model"}
"""Settings that must be valid together: otherwise none of them is applied."""
CONTENT = {*CROSSFADED_FIELDS, "model"}
"""Settings whose change by the visitor ends the play list of a look."""
REPORTED = ("frames", "seconds", "display_fps", "dream_fps", "steps_per_s", "field", "backend")
log = logging.getLogger(__name__)


def check(app_state: AppState, dream_request: DreamRequest) -> None:
    """Raises UsageError for a request beyond the limits of live sessions."""
    dream = dream_request.dream
    if dream_request.model not in ("", app_state.model.name) and dream_request.model not in (
        available := app_state.available_models()
    ):
        raise UnknownName("network", dream_request.model, available)
    for name in limits.LIVE_MAXIMA:
        check_maximum(name, getattr(dream, name))
    for name in ("layers", "channel", "style_layers"):
        if len(getattr(dream, name)) > limits.MAX_SETTING_CHARACTERS:
            raise SettingsError(f"{name} is longer than {limits.MAX_SETTING_CHARACTERS} characters")
    parts = parse_layers(dream.layers)
    if len(parts) > limits.MAX_LAYER_PARTS or len({part.name for part in parts}) > limits.MAX_LAYERS:
        raise SettingsError(f"a live session dreams at most {limits.MAX_LAYERS} layers at once, in at most "
                            f"{limits.MAX_LAYER_PARTS} parts")
    app_state.check(dream, dream_request.model)


def check_maximum(name: str, value: Any) -> None:
    """Raises SettingsError for a value above ``limits.LIVE_MAXIMA``."""
    if value > limits.LIVE_MAXIMA.get(name, value):
        raise SettingsError(f"{name} is {value}, but live at most {limits.LIVE_MAXIMA[name]}")


def clamped_defaults(app_state: AppState) -> DreamSettings:
    """Return the settings that a session starts from: the server's own, within ``limits.LIVE_MAXIMA``."""
    lower = {name: min(getattr(app_state.dream, name), maximum) for name, maximum in limits.LIVE_MAXIMA.items()}
    return replace(app_state.dream, **lower)


def read_playlist(look: str) -> tuple[Sequence[PlaylistEntry], float]:
    """Return the play list of a preset and the seconds of its fades; an empty one for one that has none."""
    if look not in settings.preset_names():
        return (), 0.0
    automation = settings.resolve({}, {}, look).automation
    return parse_playlist(automation.playlist, automation.playlist_seconds), automation.fade


class SharedResolutionController(ResolutionController):
    """Counts the time of a dream times the number of sessions, as each has only its share of the device."""

    def __init__(self, max_height: int, min_dream_rate: float, fixed: bool, session_count: Callable[[], int],
                 succeeded: Callable[[], None] = lambda: None) -> None:
        super().__init__(max_height, min_dream_rate, fixed)
        self._session_count, self._succeeded = session_count, succeeded
        self.dreams = 0

    def start_from(self, stored: Mapping[str, float]) -> None:
        sessions = max(1, self._session_count())
        super().start_from({level: seconds * sessions for level, seconds in stored.items()})

    def observe(self, seconds: float, number: int, octaves: int = 1, lines: int | None = None) -> None:
        self.dreams = number
        self._succeeded()
        super().observe(seconds * max(1, self._session_count()), number, octaves, lines)


class LiveSession:
    """One visitor's live dream, in its own threads. They call ``send`` with frames, ``notify`` with messages for the
    visitor, and ``ended`` with the error that ended it, or "".
    """

    def __init__(self, app_state: AppState, address: str, send: Callable[[bytes], None],
                 ended: Callable[[str], None], notify: Callable[[str], None] = lambda message: None,
                 visitor: str = "") -> None:
        self.token = secrets.token_urlsafe(18)
        self.address, self.visitor, self.started_at = address, visitor, time.monotonic()
        self.last_frame_at = self.started_at
        """When the last frame arrived."""
        self._app_state, self._ended = app_state, ended
        self.send, self.notify = send, notify
        """Replaced when the visitor reconnects."""
        self._source = BrowserSource(self._on_shape)
        self._sink = ResidualSink(self._source, lambda message: self.send(message))
        self.controls = Controls(clamped_defaults(app_state), self._check, app_state.model.name)
        self._automation = Automation(self.controls)
        self._max_height = app_state.stream.field_height or 480
        self._resolution = SharedResolutionController(
            self._max_height,
            app_state.live.min_dream_rate,
            app_state.live.fixed_field,
            lambda: len(app_state.active_sessions),
            app_state.health.succeeded,
        )
        self._fitting = threading.Lock()
        self._live: Live | None = None
        self._backend: Backend | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"streamdream-session-{self.token[:4]}", daemon=True)

    def start(self) -> None:
        self._app_state.active_sessions.add(self.token)
        self._thread.start()

    def push(self, number: int, jpeg: bytes) -> None:
        self.last_frame_at = time.monotonic()
        self._source.push(number, jpeg)

    def change(self, values: Mapping[str, Any]) -> list[str]:
        """Apply the valid values; return an error line for each of the others. Blocks: not for the event loop."""
        look = values.get("look")
        typed, errors = parse_values({name: value for name, value in values.items() if name != "look"})
        for name in list(typed):
            try:
                check_maximum(name, typed[name])
            except SettingsError as error:
                errors.append(error)
                del typed[name]
        rest = {name: value for name, value in typed.items() if name not in INTERDEPENDENT}
        for batch in filter(None, (typed, rest)):
            try:
                self.controls.change(batch)
                break
            except UsageError as error:
                errors.append(error)
        message = self._fit()
        if look is not None or CONTENT & values.keys():
            self._play(str(look or ""), errors)
        return [*map(visitor_message, errors), *filter(None, [message])]

    def _play(self, look: str, errors: list[UsageError]) -> None:
        """Follow the play list of a look, which drifts from one content to the next; none ends it."""
        try:
            entries, fade = read_playlist(look)
            request = self.controls.request
            for entry in entries:
                self._check(replace(request, dream=replace(request.dream, **entry.values)))
        except UsageError as error:
            errors.append(error)
            entries, fade = (), 0.0
        self._automation.play(entries, fade)

    def _check(self, dream_request: DreamRequest) -> None:
        check(self._app_state, dream_request)
        if not fitting_octaves(self._model_of(dream_request), dream_request.dream, self._largest_field):
            raise FieldTooSmall(
                f"{dream_request.dream.layers} needs larger pictures than are dreamed here; choose a lower layer"
            )

    def _fit(self) -> str:
        """Drop octaves that do not fit even the largest field; ``Live`` drops those that do not fit the current field.

        Return a message for the visitor, or "".
        """
        with self._fitting:
            dream_request = self.controls.request
            dream = dream_request.dream
            fitting = max(1, fitting_octaves(self._model_of(dream_request), dream, self._largest_field))
            message = ""
            if fitting < dream.octaves:
                self.controls.change({"octaves": fitting})
                message = (f"{dream.octaves} octaves at scale {dream.octave_scale:g} are too many for {dream.layers} "
                           f"here: {fitting} {'is' if fitting == 1 else 'are'} dreamed")
            return message

    def _on_shape(self) -> None:
        """Fit the octaves to a field of another shape, before it is dreamed on."""
        if message := self._fit():
            self.notify(message)

    @property
    def _largest_field(self) -> tuple[int, int]:
        """Return its (height, width)."""
        return self._max_height, max(2, 2 * round(self._source.width * self._max_height / self._source.height / 2))

    def _model_of(self, dream_request: DreamRequest) -> Model:
        return models.get(dream_request.model or self._app_state.model.name)

    def stop(self) -> None:
        """Tell the session to end; do not wait for that."""
        self._stopping.set()
        self._source.close()
        live = self._live  # its thread may set it to None meanwhile
        if live is not None:
            live.stop()

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    @property
    def field_height(self) -> int:
        """Height of the field in pixels, and so of the frames to send."""
        return self._resolution.field_height

    @property
    def dreams(self) -> int:
        return self._resolution.dreams

    def adapt_quality(self, is_slow: bool) -> None:
        """Send smaller residuals where the connection is slow."""
        self._sink.adapt_quality(is_slow)

    def join(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the end of the session. Return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def counts(self) -> dict[str, float]:
        """Return the session's part of the server's totals."""
        return {"dreams": self.dreams, "frames": self._sink.shown, "frame_seconds": self._sink.server_seconds,
                **self._sink.latencies.copy()}

    def facts(self) -> dict[str, Any]:
        """Return the figures that the page displays."""
        backend = self._backend
        return {"dreams": self._resolution.dreams, "shown": self._sink.shown,
                "field": self.field_height, "backend": backend.name if backend else "",
                "precision": backend.precision if backend else "", "device": str(backend.device) if backend else ""}

    def _run(self) -> None:
        error = ""
        try:
            dreamer = self._app_state.dreamer()
            self._backend = dreamer.backend
            device_slot: Callable[[], AbstractContextManager[Use]] = partial(self._app_state.device_slot, self.token)
            if dreamer.backend.device.type == "cpu":
                device_slot = CpuYield(device_slot, self._app_state.live.min_dream_rate, self._stopping.wait)
            self._live = Live(self._source, self._sink, dreamer, self._resolution, self.controls, device_slot,
                              self._automation, build=self._app_state.dreamer, make_output=split_residual,
                              levels=True, field_times=FieldTimesOfRun(self._app_state.stream.backend),
                              drop_frames=self._app_state.stream.frame_path == "device")
            if not self._stopping.is_set():
                report = self._live.run()
                facts = {name: report.as_json()[name] for name in REPORTED}
                log.info("a live session ended", extra={"facts": {"session": self.token[:4], **facts}})
        except Closed:
            pass
        except FieldTooSmall:
            dream = self.controls.current()
            fewer = f" with {dream.octaves} octaves; choose fewer," if dream.octaves > 1 else "; choose"
            error = f"these pictures are too small for {dream.layers}{fewer} a lower layer or larger pictures"
        except StreamdreamError as failure:
            error = visitor_message(failure)
        except Exception:
            self._app_state.health.failed()
            log.exception("a live session failed")
            error = "the dream failed; see the server's log"
        finally:
            self._live = None
            self._app_state.active_sessions.discard(self.token)
            self._app_state.release(self.token)
            self._ended(error)
