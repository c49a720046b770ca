"""Network streams and FFmpeg's camera devices.

Pictures of a broadcast (RTSP, RTMP, UDP) are shown when they arrive. Those of a protocol with bursts (HLS, a file over
HTTP) are shown at their timestamps.
"""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError, error_text
from streamdream.media.container_description import fetch_only
from streamdream.media.decoder import VideoDecoder
from streamdream.media.hardware_decoding import HardwareDecoding, HardwareError
from streamdream.media.input_container import Rotation, main_video_stream
from streamdream.media.pyav import demux, fraction, open_av

OPEN_SECONDS, SILENT_SECONDS = 10.0, 5.0
"""How long opening may take; a stream without data for that long is lost."""
RETRY_SECONDS = 0.005
"""Between two reads of a camera that has no picture yet."""
PROBE = {"fflags": "nobuffer", "analyzeduration": "1000000"}
"""FFmpeg probes a stream for a second at most, and buffers nothing of it."""
LOW_LATENCY_OPTIONS = {
    "rtsp": {**PROBE, "rtsp_flags": "prefer_tcp"},
    "rtsps": {**PROBE, "rtsp_flags": "prefer_tcp"},
    "rtmp": PROBE,
    "rtmps": PROBE,
    "rtp": PROBE,
    "tcp": PROBE,
    "tls": PROBE,
    "udp": {**PROBE, "overrun_nonfatal": "1"},
    "unix": PROBE,
}
"""Schemes of broadcasts -> FFmpeg's options for them."""
EARLY_SECONDS, LATE_SECONDS = 30.0, 0.5
"""A picture that is earlier or later than this restarts the playout clock."""
log = logging.getLogger(__name__)
END_SECONDS = 1.0
"""A file is complete when its last picture is this near to its stated end."""


@dataclass(frozen=True)
class Address:
    """What FFmpeg opens; of ``option_sets`` the first that works is used."""

    name: str
    target: str
    format: str | None = None
    option_sets: tuple[dict[str, str], ...] = field(default=({},))
    realtime: bool = True
    """Show pictures when they arrive, not at their timestamps."""


def address_of(url: str) -> Address:
    scheme = url.partition("://")[0].lower()
    return Address(url, url, option_sets=(LOW_LATENCY_OPTIONS.get(scheme, {}),), realtime=scheme in LOW_LATENCY_OPTIONS)


class NetworkReader:
    """See ``reconnecting.Reader``. Where the device of ``hardware`` fails, the address is opened anew in software.

    Raises SourceError when it cannot be opened or holds no video.
    """

    def __init__(self, address: Address, stop: threading.Event, hardware: HardwareDecoding | None = None) -> None:
        self._address, self._stop, self._hardware = address, stop, hardware or HardwareDecoding()
        self._open_container()
        stream = self._decoder.stream
        rate = fraction(stream.guessed_rate) or fraction(stream.average_rate)
        self.rate = rate if 1 <= rate <= 240 else Fraction(0)
        self.color, self.pixel_aspect = self._decoder.color, self._decoder.pixel_aspect
        self.damaged = 0

    def _open_container(self) -> None:
        self._container = self._hardware.open(lambda **options: _open(self._address, **options), main_video_stream)
        try:
            self._decoder = VideoDecoder(self._container, self._address.name, self._hardware)
        except SourceError:
            self._container.close()
            raise
        fetch_only(self._container, self._decoder.stream)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        playout, last = PlayoutClock(), 0.0
        for number, picture in enumerate(self._decode()):
            rotation = Rotation.of(picture) if number else self._decoder.describe(picture)
            self.color, self.pixel_aspect = self._decoder.color, self._decoder.pixel_aspect
            image = self._decoder.to_rgb(picture, rotation)
            if picture.pts is not None and picture.time_base:
                last = float(picture.pts * picture.time_base)
                if not self._address.realtime and self._stop.wait(playout.wait_seconds(last, time.perf_counter())):
                    return
            yield image
        if not self._is_whole(last):
            raise SourceError(f"{self._address.name} has ended")

    def _decode(self) -> Iterator[Any]:
        """All pictures. Damage is counted from the first one on: before it, the decoder waits for a key frame.

        Raises SourceError when there was no picture for ``OPEN_SECONDS``.
        """
        last_picture_at, is_joined = time.perf_counter(), False
        for packet in self._demux():
            before, corrupt = self._decoder.damaged, packet is not None and packet.is_corrupt
            try:
                pictures = self._decoder.decode(packet)
            except HardwareError as error:
                log.warning("%s is decoded in software from now on: %s", self._address.name, error)
                self._hardware.fail(str(error))
                self._container.close()
                self._open_container()
                yield from self._decode()
                return
            self.damaged += is_joined and (corrupt or self._decoder.damaged > before)
            for picture in pictures:
                last_picture_at, is_joined = time.perf_counter(), True
                yield picture
            if time.perf_counter() - last_picture_at > OPEN_SECONDS:
                raise SourceError(f"{self._address.name} comes, but nothing in it can be decoded")

    def _demux(self) -> Iterator[Any]:
        from av import FFmpegError
        from av.error import BlockingIOError

        while not self._stop.is_set():
            try:
                for packet in demux(self._container, self._decoder.stream):
                    if packet.size:
                        yield packet
                yield None  # flushes the decoder
                return
            except BlockingIOError:  # a camera has no picture yet
                self._stop.wait(RETRY_SECONDS)
            except FFmpegError as error:
                raise SourceError(
                    f"{self._address.name} is gone ({connection_error_text(error, SILENT_SECONDS)})"
                ) from None

    def _is_whole(self, last_seconds: float) -> bool:
        """Whether the stream states its length and has reached it."""
        container = self._container
        if not container.duration:
            return False
        end = ((container.start_time or 0) + container.duration) / 1e6
        return bool(last_seconds > end - END_SECONDS - float(1 / (self.rate or 1)))

    def close(self) -> None:
        self._container.close()


def _open(address: Address, hwaccel: Any = None) -> Any:
    """Open the container with the first set of options that works. Raises SourceError with the first failure."""
    import av

    refusal = ""
    for options in address.option_sets:
        try:
            return open_av(address.target, format=address.format, options=options, hwaccel=hwaccel,
                           timeout=(OPEN_SECONDS, SILENT_SECONDS))
        except (av.FFmpegError, ValueError) as error:
            refusal = refusal or connection_error_text(error, OPEN_SECONDS)
    raise SourceError(f"cannot open {address.name} ({refusal})")


def connection_error_text(error: BaseException, seconds: float) -> str:
    """Why FFmpeg failed; after a timeout of ``seconds`` its own text is "immediate exit requested"."""
    from av.error import ExitError

    return f"nothing came for {seconds:g} s" if isinstance(error, ExitError) else error_text(error)


class PlayoutClock:
    """Due times of pictures that arrive in bursts: the first at once, the others at their distance from it."""

    def __init__(self) -> None:
        self._origin: float | None = None

    def wait_seconds(self, pts_seconds: float, now: float) -> float:
        ahead = 0.0 if self._origin is None else self._origin + pts_seconds - now
        if self._origin is None or not -LATE_SECONDS <= ahead <= EARLY_SECONDS:
            self._origin, ahead = now - pts_seconds, 0.0
        return max(0.0, ahead)
