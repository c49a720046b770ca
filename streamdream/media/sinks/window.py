"""Show pictures in a window, and control a show by its keys."""
from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import Closed, MissingPackage, SinkError, StreamdreamError
from streamdream.media import images
from streamdream.media.frame import Frame
from streamdream.media.opencv import cv2
from streamdream.media.sinks import overlay
from streamdream.media.sinks.base import SinkBase
from streamdream.settings import DreamSettings, maximum
from streamdream.settings_parsing import parse_layers

if TYPE_CHECKING:
    from streamdream.media.sinks.base import LiveContext, Sink
    from streamdream.media.sources.video import Source

TITLE = "streamdream"
STRENGTH_FACTOR = 1.25
MIN_STRENGTH = 0.1
MESSAGE_SECONDS = 4.0
FONT_FOLDERS = ("/usr/share/fonts", "/")
"""OpenCV sets a font folder that it does not have, and Qt prints many warnings; any existing folder avoids them."""


class WindowSink(SinkBase):
    """Show pictures at once; ``write`` raises Closed when the user closes it. ``show`` is what the keys control,
    ``record`` opens a recording under a name.

    Raises SinkError where there is no display, MissingPackage where OpenCV has no windows. Must be used in the main
    thread.
    """

    def __init__(self, source: Source | None = None, show: LiveContext | None = None,
                 record: Callable[[str], Sink] | None = None) -> None:
        self.warnings: list[str] = []
        self.bytes_written = 0
        self._source, self._context, self._record = source, show, record
        self._full = self._help = False
        self._overlay = show is not None
        self._shown_at: deque[float] = deque(maxlen=240)
        self._latency_ms: float | None = None
        self._message, self._message_until = "", 0.0
        self._recording: Sink | None = None
        self._recording_name = ""
        self._snapshot_threads: list[threading.Thread] = []
        self._image: NDArray[np.uint8] | None = None
        self._open_window()
        if show is not None:
            self.show_message("h shows the keys")

    def _open_window(self) -> None:
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SinkError("there is no display here for a window; --sink null, or --sink out.mp4 to record")
        cv = cv2()
        if is_window_blocked():
            raise SinkError("OpenCV's windows would hang here, since PyAV was loaded first: import cv2 before av")
        if not Path(os.environ.get("QT_QPA_FONTDIR", "/")).exists():
            os.environ["QT_QPA_FONTDIR"] = next(folder for folder in FONT_FOLDERS if Path(folder).exists())
        try:
            cv.namedWindow(TITLE, cv.WINDOW_NORMAL | cv.WINDOW_KEEPRATIO | cv.WINDOW_GUI_NORMAL)
        except cv.error:
            raise MissingPackage("this OpenCV has no windows: pip uninstall -y opencv-python-headless && pip install "
                                 "--force-reinstall opencv-python") from None
        if self._source is not None:
            factor = max(1, -(-overlay.MIN_TEXT_LINES // self._source.height))
            cv.resizeWindow(TITLE, factor * self._source.width, factor * self._source.height)

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        cv, self._image = cv2(), image
        self._measure(frame)
        if self._recording is not None:
            self._attempt(lambda sink: sink.write(image, frame), self._recording)
        cv.imshow(TITLE, self._with_overlay(image)[..., ::-1])
        key = key_of(cv.waitKeyEx(1))
        if not self._is_open():
            raise Closed("the window was closed")
        if key in KEYS:
            KEYS[key].act(self)

    def _is_open(self) -> bool:
        try:
            return bool(cv2().getWindowProperty(TITLE, cv2().WND_PROP_VISIBLE) >= 1)
        except cv2().error:  # Qt has no windows any more after the last one is closed
            return False

    def _measure(self, frame: Frame) -> None:
        now, start = time.perf_counter(), getattr(self._source, "start_seconds", None)
        self._shown_at.append(now)
        if start is not None:
            latency = 1e3 * (now - start - frame.pts_seconds)
            self._latency_ms = latency if self._latency_ms is None else 0.9 * self._latency_ms + 0.1 * latency

    def _with_overlay(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        message = self._message if time.perf_counter() < self._message_until else ""
        if not (self._overlay or self._help or message):
            return image
        image = overlay.upscale_for_text(image)
        if self._overlay:
            overlay.write_line(image, self.status())
        if self._help:
            overlay.write_table(image, [(name, key.help) for name, key in KEYS.items()])
        if message:
            overlay.write_line(image, message, bottom=True)
        return image

    def status(self) -> str:
        """As in ``30 fps  12 ms  mixed3  strength 1  recording``."""
        parts = []
        if len(self._shown_at) > 1:
            recent = [at for at in self._shown_at if at > self._shown_at[-1] - 1] or [0.0]
            span = self._shown_at[-1] - recent[0]
            parts.append(f"{(len(recent) - 1) / span:.0f} fps" if span else "")
        if self._latency_ms is not None:
            parts.append(f"{self._latency_ms:.0f} ms")
        if self._context is not None:
            settings = self._context.controls.current()
            parts += [settings.layers, f"strength {settings.strength:.2g}"]
            parts += ["frozen"] if self._context.controls.frozen else []
        parts += ["recording"] if self._recording is not None else []
        return "   ".join(filter(None, parts))

    # Actions of the keys.

    def show_message(self, message: str) -> None:
        self._message, self._message_until = message, time.perf_counter() + MESSAGE_SECONDS

    def _change(self, name: str, value: object) -> None:
        if self._context is not None:
            try:
                self._context.controls.change({name: value})
            except StreamdreamError as error:
                return self.show_message(str(error))
            self.show_message(f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}")

    def step_layer(self, by: int) -> None:
        """Select the next layer of the network, counted from the first of the current ones."""
        if self._context is not None and (layers := list(self._context.layers())):
            current = parse_layers(self._context.controls.current().layers)[0].name.replace("/", "_")
            names = [layer.replace("/", "_") for layer in layers]
            index = names.index(current) + by if current in names else 0
            self._change("layers", layers[index % len(layers)])

    def scale_strength(self, factor: float) -> None:
        if self._context is not None:
            strength = self._context.controls.current().strength or MIN_STRENGTH
            highest = maximum(DreamSettings, "strength")
            self._change("strength", round(min(max(factor * strength, MIN_STRENGTH), highest), 3))

    def freeze(self) -> None:
        if self._context is not None:
            self._context.controls.frozen = not self._context.controls.frozen

    def reset(self) -> None:
        if self._context is not None:
            self._context.controls.reset()
            self.show_message("the dream restarts")

    def snapshot(self) -> None:
        """Save the dream without text as a PNG in the working folder, in a thread."""
        if self._image is not None:
            name = unused_name(".png")
            saver = threading.Thread(target=self._save, args=(name, self._image.copy()), name="streamdream-snapshot")
            self._snapshot_threads = [other for other in self._snapshot_threads if other.is_alive()] + [saver]
            saver.start()

    def _save(self, name: str, image: NDArray[np.uint8]) -> None:
        try:
            images.write_image(name, image)
        except StreamdreamError as error:
            return self.show_message(str(error))
        self.show_message(f"saved as {name}")

    def toggle_recording(self) -> None:
        """Record a video in the working folder; it gets its name when it is stopped."""
        if self._recording is not None:
            return self._stop_recording()
        if self._record is not None:
            self._recording_name = unused_name(".mp4")
            try:
                self._recording = self._record(self._recording_name)
            except StreamdreamError as error:
                self.show_message(str(error))

    def _stop_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None and self._attempt(lambda sink: sink.finish(), recording):
            self.warnings += recording.warnings
            self.show_message(f"recorded as {self._recording_name}")

    def _attempt(self, work: Callable[[Sink], None], recording: Sink) -> bool:
        """Write to the recording; one that fails is dropped, and the show goes on."""
        try:
            work(recording)
        except StreamdreamError as error:
            self._recording = None
            self.warnings.append(str(error))
            if self._context is not None:
                self._context.failures[self._recording_name] = str(error)
            self.show_message(str(error))
            return False
        return True

    def toggle_help(self) -> None:
        self._help = not self._help

    def toggle_overlay(self) -> None:
        self._overlay = not self._overlay

    def toggle_full_screen(self) -> None:
        cv, self._full = cv2(), not self._full
        cv.setWindowProperty(TITLE, cv.WND_PROP_FULLSCREEN, cv.WINDOW_FULLSCREEN if self._full else cv.WINDOW_NORMAL)

    def quit(self) -> None:
        raise Closed("the window was closed")

    # The end.

    def finish(self) -> None:
        self._stop_recording()
        for saver in self._snapshot_threads:
            saver.join()
        with contextlib.suppress(cv2().error):  # closed already
            cv2().destroyAllWindows()
            cv2().waitKey(1)  # Qt closes it only now

    def abort(self) -> None:
        """Recordings and snapshots stay."""
        self.finish()


def is_window_blocked() -> bool:
    """The wheels of PyAV and OpenCV contain X11 libraries of the same names. With those of PyAV, Qt waits for ever for
    a reply; with those of OpenCV, loaded first, both work.
    """
    maps = Path("/proc/self/maps")
    return maps.exists() and "av.libs/libxcb-shm" in maps.read_text()


@dataclass(frozen=True)
class Key:
    help: str
    act: Callable[[WindowSink], None]


KEYS: dict[str, Key] = {
    "n": Key("next layer", lambda window: window.step_layer(1)),
    "p": Key("previous layer", lambda window: window.step_layer(-1)),
    "+": Key("stronger", lambda window: window.scale_strength(STRENGTH_FACTOR)),
    "-": Key("weaker", lambda window: window.scale_strength(1 / STRENGTH_FACTOR)),
    "space": Key("freeze the picture, let the dream grow", WindowSink.freeze),
    "x": Key("restart the dream", WindowSink.reset),
    "s": Key("save this picture (PNG)", WindowSink.snapshot),
    "r": Key("record, and stop recording (MP4)", WindowSink.toggle_recording),
    "f": Key("full screen", WindowSink.toggle_full_screen),
    "o": Key("speed and settings on the picture", WindowSink.toggle_overlay),
    "h": Key("these keys", WindowSink.toggle_help),
    "q": Key("quit", WindowSink.quit),
}
"""The keys; the help in the window is made from this table."""
ALIASES = {32: "space", 27: "q", ord("="): "+", ord("_"): "-", ord("?"): "h",
           65363: "n", 2555904: "n", 63235: "n",  # arrow right on X11, Windows, macOS
           65361: "p", 2424832: "p", 63234: "p",  # left
           65362: "+", 2490368: "+", 63232: "+",  # up
           65364: "-", 2621440: "-", 63233: "-"}  # down


def key_of(code: int) -> str:
    """A code of ``cv2.waitKeyEx`` -> a name in ``KEYS``, or a name without an action."""
    if code in ALIASES:
        return ALIASES[code]
    return chr(code & 0xFF).lower() if code >= 0 else ""


def unused_name(suffix: str) -> str:
    """The name of a new file in the working folder, made from the time."""
    stem = time.strftime("streamdream-%Y%m%d-%H%M%S")
    names = (f"{stem}{number}{suffix}" for number in ("", *(f"-{count}" for count in range(2, 10_000))))
    return next(name for name in names if not Path(name).exists())
