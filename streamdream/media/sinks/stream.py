"""A stream out: to a server or a player by RTMP, UDP or TCP, or as HLS files that a web server gives away.

A receiver that goes away is looked for again, ever more seldom, while the show goes on.
"""
from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, StreamdreamError, error_text
from streamdream.media.frame import Frame
from streamdream.media.sinks.encoders import Container, Encoder, find_codec, stored_size
from streamdream.media.sinks.video import to_pixels
from streamdream.settings import RenderSettings
from streamdream.system.atomic_file import OutputTarget

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

SILENT_SECONDS = 5
"""A receiver that takes nothing for so long is gone."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 8.0
"""Between two attempts to reach one: the first, doubled each time, and the most."""
STABLE_SECONDS = 2.0
"""A receiver that breaks off before this has refused: a wrong key, say. That is an error at once."""
KEY_SECONDS = 1
"""Between pictures at which a receiver can begin."""
BITS_PER_PIXEL = 0.12
"""The most, whatever --crf asks for: 3.3 Mbit/s for 1280x720 at 30 a second."""
MIN_BIT_RATE = 500_000
TICK = Fraction(1, 90_000)
GLOBAL_HEADER = 1 << 22
"""FFmpeg's AV_CODEC_FLAG_GLOBAL_HEADER, which FLV needs."""
X264 = {"preset": "superfast", "tune": "zerolatency"}
"""No picture is held back in the encoder."""


@dataclass(frozen=True)
class StreamProtocol:
    """``format`` of what is sent, and its options. ``port`` is the usual one; 0: nothing answers there."""

    format: str
    port: int = 0
    global_header: bool = False
    options: dict[str, str] = field(default_factory=dict)


MPEGTS = {"flush_packets": "1", "pat_period": "0.5"}
PROTOCOLS = {
    "rtmp": StreamProtocol("flv", 1935, True, {"flvflags": "no_duration_filesize"}),
    "rtmps": StreamProtocol("flv", 443, True, {"flvflags": "no_duration_filesize"}),
    "tcp": StreamProtocol("mpegts", 1, options=MPEGTS),
    "udp": StreamProtocol("mpegts", options=MPEGTS),
}
H264 = Container("", "libx264")
HLS = {"hls_time": "2", "hls_list_size": "6", "hls_flags": "delete_segments+independent_segments+temp_file"}


def is_stream(name: str) -> bool:
    return (name.partition("://")[0] in PROTOCOLS and "://" in name) or is_hls(name)


def is_hls(name: str) -> bool:
    return Path(name).suffix.lower() == ".m3u8" and "://" not in name


def hls_files(name: str) -> list[str]:
    """The list and the pattern of its segments; none for what is sent over a network."""
    return [name, str(Path(name).with_name(f"{Path(name).stem}%d.ts"))] if is_hls(name) else []


class HlsFile:
    """What FFmpeg writes a file of an HLS list to. FFmpeg goes on whatever fails, so errors are told to ``fail``, and a
    file that is not whole is removed: it does not get the name of the last good one.
    """

    def __init__(self, path: str, fail: Callable[[OSError], None]) -> None:
        self._path, self._fail, self._file = Path(path), fail, contextlib.ExitStack()
        self._write: Callable[[bytes], int | None] = len
        self._attempt(self._open)

    def _open(self) -> None:
        self._write = self._file.enter_context(self._path.open("wb", buffering=0)).write

    def write(self, data: bytes) -> int:
        self._attempt(lambda: self._write_all(data))
        return len(data)

    def _write_all(self, data: bytes) -> None:
        while data:  # of what does not fit, a part is written first
            data = data[self._write(data):]

    def close(self) -> None:
        self._attempt(self._file.close)

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self._write = len
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._fail(error)


class StreamWriter:
    """See ``threaded.Writer``. Raises SinkError when the receiver cannot be reached at first."""

    bytes_written = 0
    kept = ""

    def __init__(self, name: str, source: Source, settings: RenderSettings) -> None:
        self.warnings: list[str] = []
        self.partial = OutputTarget(name)
        self._name, self._source, self._settings = name, source, settings
        self._container: Any = None
        self._wait = FIRST_WAIT_SECONDS
        self._retry_at = 0.0
        self._lost_at: float | None = None
        self._losses, self._gone_seconds = 0, 0.0
        self._is_settled = False
        self._file_error: OSError | None = None
        self._failed_files = 0
        self._connect()

    # One connection.

    def _connect(self) -> None:
        """Raises SinkError."""
        from av import FFmpegError, open

        try:
            if is_hls(self._name):
                tempfile.TemporaryFile(dir=Path(self._name).parent).close()  # the first segment comes much later
                self._container = open(self._name, "w", format="hls", container_options=HLS, io_open=self._open_file)
            else:
                self._container = self._open_network(open)
            self._start()
        except (FFmpegError, OSError, ValueError) as error:  # ValueError: of an address that is none
            self._disconnect()
            verb = "written" if is_hls(self._name) else "reached"
            raise SinkError(f"{self._name} cannot be {verb} ({error_text(error)})") from None
        except StreamdreamError:
            self._disconnect()
            raise
        self._began, self._last_pts = time.perf_counter(), -1
        self._origin: Fraction | None = None

    def _open_network(self, open: Any) -> Any:
        """FFmpeg's fifo sends in a thread of its own, and passes the time limit on, which RTMP's muxer cannot."""
        protocol, parts = PROTOCOLS[self._name.partition("://")[0]], urlsplit(self._name)
        if protocol.port:
            address = parts.hostname or "", parts.port or protocol.port
            socket.create_connection(address, SILENT_SECONDS).close()
        target = self._name
        if parts.scheme == "udp" and "pkt_size" not in parts.query:
            target += ("&" if parts.query else "?") + "pkt_size=1316"  # seven packets of MPEG-TS fit an Ethernet frame
        options = {"rw_timeout": str(SILENT_SECONDS * 1_000_000)} | protocol.options
        return open(target, "w", format="fifo", container_options={
            "fifo_format": protocol.format, "queue_size": "120", "drop_pkts_on_overflow": "1",
            "format_opts": ":".join(f"{key}={value}" for key, value in options.items())})

    def _open_file(self, path: str, flags: int, options: dict[str, str]) -> HlsFile:
        return HlsFile(path, self._fail_files)

    def _fail_files(self, error: OSError) -> None:
        """One warning; the next files are tried all the same, as there may be room again."""
        self._failed_files += 1
        if self._file_error is None:
            self._file_error = error
            logging.getLogger(__name__).warning("%s cannot be written (%s)", self._name, error_text(error))

    def _start(self) -> None:
        source, name = self._source, find_codec(self._settings.codec, H264).name
        rate = min(max(source.rate, Fraction(1)), Fraction(120)).limit_denominator(1001)
        most = max(MIN_BIT_RATE, round(BITS_PER_PIXEL * source.width * source.height * rate))
        options = X264 | {"crf": str(min(self._settings.crf, 51)), "maxrate": str(most), "bufsize": str(most // 2)}
        if self._settings.encoder_preset != "auto":
            options["preset"] = self._settings.encoder_preset
        self._stream = self._container.add_stream(name, rate=rate, options=options if name == "libx264" else {})
        context = self._stream.codec_context
        context.pix_fmt = "yuv420p"
        context.width, context.height = stored_size(source.width, source.height, "yuv420p", Encoder())
        self._padding = context.width - source.width, context.height - source.height
        context.time_base, context.max_b_frames = TICK, 0
        context.gop_size = max(1, round(KEY_SECONDS * rate))
        color = source.color
        context.colorspace, context.color_range = color.colorspace, color.range
        context.color_primaries, context.color_trc = color.primaries, color.trc
        self._convert = to_pixels("yuv420p", color)
        if not is_hls(self._name) and PROTOCOLS[self._name.partition("://")[0]].global_header:
            context.flags |= GLOBAL_HEADER
        self._container.start_encoding()

    def _disconnect(self) -> None:
        from av import FFmpegError

        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(FFmpegError, ValueError):
                container.close()

    # Pictures.

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> tuple[Any, Fraction]:
        from av import VideoFrame

        right, below = self._padding
        if right or below:
            image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        return VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"), frame.pts * Fraction(*frame.time_base)

    def write(self, item: tuple[Any, Fraction]) -> None:
        """Raises SinkError when the receiver refuses from the start; later it is looked for again."""
        if self._container is None and not self._reconnect():
            return
        picture, seconds = item
        try:
            self._send(picture, seconds)
        except self._failures() as error:
            self._on_disconnect(SinkError(f"{self._name} is gone ({error_text(error)})"))
        else:
            if self._lost_at is not None and time.perf_counter() - self._began > FIRST_WAIT_SECONDS:
                self._on_reconnect(self._lost_at)
            self._is_settled |= time.perf_counter() - self._began > STABLE_SECONDS

    def _failures(self) -> tuple[type[Exception], ...]:
        from av import FFmpegError

        return FFmpegError, OSError

    def _send(self, picture: Any, seconds: Fraction) -> None:
        self._origin = seconds if self._origin is None else self._origin
        pts = max(self._last_pts + 1, round((seconds - self._origin) / TICK))
        picture = self._convert(picture)
        picture.pts, picture.time_base, self._last_pts = pts, TICK, pts
        for packet in self._stream.encode(picture):
            self._container.mux_one(packet)

    def _on_disconnect(self, error: SinkError) -> None:
        self._disconnect()
        if not self._is_settled:
            raise error
        now = time.perf_counter()
        if self._lost_at is None:
            self._lost_at, self._wait = now, FIRST_WAIT_SECONDS
            self._losses += 1
        else:
            self._wait = min(2 * self._wait, MAX_WAIT_SECONDS)
        self._retry_at = now + self._wait
        logging.getLogger(__name__).warning("%s; trying again in %.2g s", error, self._wait)
        self._count_losses(now - self._lost_at)

    def _reconnect(self) -> bool:
        if time.perf_counter() < self._retry_at:
            return False
        try:
            self._connect()
        except SinkError as error:
            self._on_disconnect(error)
            return False
        return True

    def _on_reconnect(self, lost_at: float) -> None:
        gone = self._began - lost_at
        self._lost_at = None
        logging.getLogger(__name__).info("%s is back after %.1f s", self._name, gone)
        self._count_losses(gone)
        self._gone_seconds += gone

    def _count_losses(self, gone: float) -> None:
        self.warnings[:] = [f"{self._name} was gone {'once' if self._losses == 1 else f'{self._losses} times'}, for "
                            f"{self._gone_seconds + gone:.1f} s in all"]

    # The end.

    def complete(self) -> None:
        """Raises SinkError when the end of the show did not arrive."""
        if self._container is not None:
            with contextlib.suppress(*self._failures()):
                for packet in self._stream.encode(None):
                    self._container.mux_one(packet)
        self._disconnect()
        if self._lost_at is not None:
            gone = time.perf_counter() - self._lost_at
            raise SinkError(f"{self._name} was gone at the end, for {gone:.1f} s")
        if self._file_error is not None:
            noun = "a file" if self._failed_files == 1 else f"{self._failed_files} files"
            raise SinkError(f"{noun} of {self._name} could not be written ({error_text(self._file_error)})")

    def commit(self) -> None:
        pass

    def discard(self) -> None:
        """A play list is left as it is: whoever watches may see the rest."""
        self._disconnect()

    def keep(self) -> None:
        self.discard()
