"""Live without a socket: Gradio's streaming picture, for networks that let no WebSocket through."""
from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from numpy.typing import NDArray

from streamdream.controls import Controls
from streamdream.dream import Dreamer, DreamState
from streamdream.errors import StreamdreamError
from streamdream.opencv import cv2

from . import sessions

if TYPE_CHECKING:
    from .studio import Studio

GONE_SECONDS = 4.0
EVERY_SECONDS = 0.1
LINES, QUALITY = 480, 85
FIELD_HEIGHT = 176


def inline(picture: NDArray[np.uint8] | None) -> ImageData | None:
    """A picture whose bytes are in the answer itself. Gradio writes it to a file, which the page fetches by a second
    request; over a slow line each is replaced by the next before it has come, and the picture stands still.
    """
    if picture is None:
        return None
    good, jpeg = cv2().imencode(".jpg", cv2().cvtColor(picture, cv2().COLOR_RGB2BGR),
                                [cv2().IMWRITE_JPEG_QUALITY, QUALITY])
    assert good
    return ImageData(url="data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode())


@dataclass
class Visit:
    """What is kept of one visitor between two pictures."""

    dreamer: Dreamer
    controls: Controls
    state: DreamState = field(default_factory=DreamState)
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_seconds: float = field(default_factory=time.monotonic)
    said: str = ""


class Plain:
    """All who are here this way; at most as many as may dream live."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._visits: dict[str, Visit] = {}

    def dream(self, image: NDArray[np.uint8] | None, said: str, request: gr.Request) -> NDArray[np.uint8] | None:
        """The next picture of a visitor; None when there is nothing to show or no place."""
        visit = self._visit(str(request.session_hash)) if image is not None else None
        if image is None or visit is None:
            return None
        if not visit.lock.acquire(blocking=False):
            return None  # the last one is not done yet
        try:
            visit.at_seconds = time.monotonic()
            self._listen(visit, said)
            scale = min(1.0, LINES / min(image.shape[:2]))
            if scale < 1:
                image = cv2().resize(image, None, fx=scale, fy=scale, interpolation=cv2().INTER_AREA)
            settings = replace(visit.controls.now(), onset=0)  # it would take seconds; so the dream grows
            with self._studio.turn(str(request.session_hash)):
                visit.state, dreamed = visit.dreamer(visit.state, np.ascontiguousarray(image), settings)
            return dreamed
        finally:
            visit.lock.release()

    def leave(self, request: gr.Request) -> None:
        self._forget(str(request.session_hash))

    def _visit(self, who: str) -> Visit | None:
        now = time.monotonic()
        for other, visit in list(self._visits.items()):
            if now - visit.at_seconds > GONE_SECONDS and not visit.lock.locked():
                self._forget(other)
        if who not in self._visits:
            if len(self._studio.dreaming) >= self._studio.web.max_sessions:
                raise gr.Error("All places are taken. Please wait a moment.", duration=5)
            dreamer = self._studio.dreamer()
            dreamer.in_turn, dreamer.field_height = True, FIELD_HEIGHT
            controls = Controls(sessions.legal_start(self._studio), lambda dream: sessions.check(self._studio, dream))
            self._visits[who] = Visit(dreamer, controls)
            self._studio.dreaming.add(who)
        return self._visits[who]

    def _forget(self, who: str) -> None:
        self._visits.pop(who, None)
        self._studio.dreaming.discard(who)
        self._studio.leave(who)

    def _listen(self, visit: Visit, said: str) -> None:
        """``said`` is the settings as JSON; what is not legal is left out."""
        if said == visit.said or len(said) > 8192:
            return
        visit.said = said
        try:
            values: Any = json.loads(said)
        except (ValueError, RecursionError):
            return
        for name, value in values.items() if isinstance(values, dict) else ():
            try:
                visit.controls.change({name: value})
            except StreamdreamError:
                continue


def build(studio: Studio, page: gr.HTML) -> None:
    """Its part of the tab, which a click that ``page`` triggers brings out."""
    plain = Plain(studio)
    with gr.Column(visible=False, elem_id="live-plain") as column:
        gr.Markdown("The fast way to this server is blocked on your network, so the pictures take a slower one.")
        with gr.Row():
            camera = gr.Image(sources=["webcam"], streaming=True, label="Camera", webcam_options=gr.WebcamOptions(
                mirror=True, constraints={"video": {"width": 640, "height": 480}}))
            shown = gr.Image(label="Dream", interactive=False, elem_id="live-plain-dream")
            # not by a subclass: Gradio would write a file beside this one
            setattr(shown, "postprocess", inline)  # noqa: B010
    said = gr.Textbox(visible="hidden", elem_id="live-said", max_length=8192)
    page.click(lambda: gr.Column(visible=True), outputs=column, show_progress="hidden", api_visibility="private")
    camera.stream(plain.dream, [camera, said], shown, stream_every=EVERY_SECONDS, show_progress="hidden",
                  concurrency_limit=studio.web.max_sessions, api_visibility="private")
    root = gr.context.Context.root_block
    assert root is not None
    root.unload(plain.leave)
