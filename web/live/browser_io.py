"""The browser as the source and the sink of a live run: its frames come as JPEG, residuals go back as JPEG.

Wherever a frame waits, a newer one replaces it, so a session holds few frames, however fast they come.
"""
from __future__ import annotations

import io
import logging
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from streamdream.dream import reference_images
from streamdream.errors import SourceError
from streamdream.live import compositor
from streamdream.live.compositor import PublishedResidual
from streamdream.live.mailbox import Mailbox
from streamdream.media.frame import Frame
from streamdream.media.opencv import cv2
from streamdream.media.sinks.base import SinkBase
from streamdream.media.sources.live import LiveSource
from streamdream.settings import DreamSettings

from ..core import histogram, limits

HEADER = struct.Struct("<IH")
"""Header of each JPEG: the number of the frame, and its ms in the server (0 in frames of the browser)."""
SAME_ASPECT = 0.02
"""Frames whose aspect ratios differ by less have the same shape: the sizes of small ones are rounded."""
MIN_QUALITY, MAX_QUALITY = 75, 90
"""JPEG quality of residuals; the page scales them up, with their artifacts."""
log = logging.getLogger(__name__)


def decode(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a frame to uint8 [H, W, 3] RGB; check format and size in its header first. Raises SourceError.

    By OpenCV, which is faster than Pillow; libjpeg prints a line about damaged data.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as header:
            width, height = header.size
            is_progressive = "progressive" in header.info
    except Exception:  # a parser may raise any type on malicious bytes
        raise SourceError("this is no JPEG picture") from None
    if is_progressive or width * height > limits.MAX_LIVE_PIXELS or min(width, height) < 16:
        raise SourceError(f"a picture of {width}x{height} is not accepted; at most {limits.MAX_LIVE_PIXELS} pixels, in "
                          "one pass")
    if not jpeg.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise SourceError("this picture is truncated")
    image: NDArray[np.uint8] | None = cv2().imdecode(
        np.frombuffer(jpeg, np.uint8), cv2().IMREAD_COLOR_RGB | cv2().IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape != (height, width, 3):
        raise SourceError("this is no JPEG picture")
    return image


class BrowserSource(LiveSource):
    """Yields the frames that a browser pushes, decoded in the thread that iterates. Ends with ``close``.

    ``on_shape`` is called before the first frame and before each frame with another aspect ratio. ``Frame.pts`` is the
    number that the browser gave the frame: its residual is sent back under that number.
    """

    def __init__(self, on_shape: Callable[[], None] = lambda: None) -> None:
        super().__init__("browser")
        self._on_shape, self._aspect = on_shape, 0.0
        self.width, self.height, self.rate = 640, 480, Fraction(30)
        self._newest: Mailbox[tuple[int, bytes, float]] = Mailbox()
        self.arrived: dict[int, float] = {}
        """Number of a frame -> the time of its arrival, for the latest frames."""
        self.bad = 0
        """Frames in a row that could not be decoded."""

    def push(self, number: int, jpeg: bytes) -> None:
        self._newest.put((number, jpeg, time.perf_counter()))

    def __iter__(self) -> Iterator[Frame]:
        next_at = 0.0
        while (item := self._newest.take()) is not None:
            number, jpeg, arrived_at = item
            time.sleep(max(0.0, next_at - time.perf_counter()))
            next_at = time.perf_counter() + 1 / limits.MAX_LIVE_RATE
            try:
                image = decode(jpeg)
            except SourceError as error:
                self.bad += 1
                if self.bad >= limits.MAX_BAD_FRAMES:
                    raise
                log.info("a frame was dropped: %s", error)
                continue
            self.bad = 0
            self.height, self.width = image.shape[:2]
            if abs(self.width / self.height - self._aspect) > SAME_ASPECT:
                self._aspect = self.width / self.height
                self._on_shape()
            self.arrived = dict(list(self.arrived.items())[-8:]) | {number: arrived_at}
            yield Frame(image, number / float(self.rate), number, (1, 30))

    def close(self) -> None:
        self._newest.close()


def split_residual(
    published: PublishedResidual | None, image: NDArray[np.uint8], settings: DreamSettings
) -> NDArray[np.uint8]:
    """Return what the dream adds to ``image`` [H, W, 3], at the field's size: uint8 [2h, w, 3], the positive part in
    the top half, the negative part (negated) in the bottom half.

    The page has the camera's frame and adds the residual itself: no large frame is sent, and the result is as sharp as
    the camera.
    """
    if published is None:
        return np.zeros((16, 8, 3), np.uint8)
    levels = compositor.warp_residual(published, image, settings)
    mask = reference_images.mask_weights(published.references, *levels.shape[:2])
    if mask is not None:
        levels = np.rint(levels * mask).astype(np.int16)
    return np.vstack([np.clip(half, 0, 255).astype(np.uint8) for half in (levels, -levels)])


class ResidualSink(SinkBase):
    """Sends each residual of ``split_residual`` as JPEG behind its header to ``send``, which must not block."""

    def __init__(self, source: BrowserSource, send: Callable[[bytes], None]) -> None:
        self.warnings: list[str] = []
        self.bytes_written = 0  # on the disk
        self._source, self._send = source, send
        self.quality = MAX_QUALITY
        self.shown = 0
        self.server_seconds = 0.0
        self.latencies: Counter[str] = Counter()
        """Frames by their time in the server, see ``core/histogram.py``."""

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        ok, jpeg = cv2().imencode(".jpg", cv2().cvtColor(image, cv2().COLOR_RGB2BGR),
                                  [cv2().IMWRITE_JPEG_QUALITY, self.quality,
                                   cv2().IMWRITE_JPEG_SAMPLING_FACTOR, cv2().IMWRITE_JPEG_SAMPLING_FACTOR_444])
        assert ok
        number = frame.pts  # see BrowserSource
        server_ms = round(1e3 * (time.perf_counter() - self._source.arrived.get(number, time.perf_counter())))
        self.shown += 1
        self.server_seconds += server_ms / 1e3
        self.latencies[histogram.bucket("frame_latency", server_ms / 1e3, histogram.FRAME_BOUNDS)] += 1
        self._send(HEADER.pack(number, min(server_ms, 65535)) + jpeg.tobytes())

    def adapt_quality(self, is_slow: bool) -> None:
        """Make the next pictures smaller where the connection is slow, else better."""
        self.quality = min(MAX_QUALITY, max(MIN_QUALITY, self.quality - 3 if is_slow else self.quality + 1))

    def finish(self) -> None:
        """Nothing is left to send: each picture is sent when it is written."""

    def abort(self) -> None:
        """As ``finish``."""
