"""Stream to a server or a player by RTMP, UDP or TCP, or write HLS files for a web server.

After a lost connection it reconnects with exponential backoff, while the live run continues.
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
from streamdream.media.pyav import open_av
from streamdream.media.reconnect import Reconnect
from streamdream.media.sinks.encoders import Container, Encoder, check_width, find_codec, stored_size
from streamdream.media.sinks.picture_converter import to_pixels
from streamdream.settings import RenderSettings
from streamdream.system.atomic_file import OutputTarget

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

SILENT_SECONDS = 5
"""Timeout of a send; the receiver then counts as disconnected."""
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 8.0
"""See ``Reconnect``."""
STABLE_SECONDS = 2.0
"""A receiver that disconnects earlier has refused the stream, for example for a wrong key: an error, no reconnect."""
REFUSAL_SECONDS = 0.3
"""How long to wait for a refusal where FFmpeg opens the connection in its own thread."""
KEY_SECONDS = 1
"""Interval of key frames; a receiver can join at each."""
BITS_PER_PIXEL = 0.12
"""The maximum, independent of --crf: 3.3 Mbit/s for 1280x720 at 30 frames per second."""
MIN_BIT_RATE = 500_000
TICK = Fraction(1, 90_000)
GLOBAL_HEADER = 1 << 22
"""FFmpeg's AV_CODEC_FLAG_GLOBAL_HEADER, which FLV needs."""
X264 = {"preset": "superfast", "tune": "zerolatency"}
"""Options for an encoder without delay."""


@dataclass(frozen=True)
class StreamProtocol:
    """A protocol: its container ``format`` with ``options``, and its default ``port``, 0 if it is connectionless."""

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
H264 = Container("streams", "libx264")
HLS = {"hls_time": "2", "hls_list_size": "6", "hls_flags": "delete_segments+independent_segments+temp_file"}


def is_stream(name: str) -> bool:
    return (name.partition("://")[0] in PROTOCOLS and "://" in name) or is_hls(name)


def is_hls(name: str) -> bool:
    return Path(name).suffix.lower() == ".m3u8" and "://" not in name


def hls_files(name: str) -> list[str]:
    """Return the HLS playlist and the pattern of its segments; empty for a network stream."""
    return [name, str(Path(name).with_name(f"{Path(name).stem}%d.ts"))] if is_hls(name) else []


class HlsFile:
    """A file that FFmpeg's HLS muxer writes. The muxer ignores errors, so they are passed to ``on_error``, and an
    incomplete file is removed before the muxer renames it over the last complete one.
    """

    def __init__(self, path: str, on_error: Callable[[OSError], None]) -> None:
        self._path, self._on_error, self._stack = Path(path), on_error, contextlib.ExitStack()
        self._write: Callable[[bytes], int | None] = len
        self._attempt(self._open)

    def _open(self) -> None:
        self._write = self._stack.enter_context(self._path.open("wb", buffering=0)).write

    def write(self, data: bytes) -> int:
        self._attempt(lambda: self._write_all(data))
        return len(data)

    def _write_all(self, data: bytes) -> None:
        while data:  # a write to a full disk may be partial
            data = data[self._write(data):]

    def close(self) -> None:
        self._attempt(self._stack.close)

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self._write = len
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._on_error(error)


class SocketFile:
    """A TCP connection that FFmpeg writes to. Raises OSError, also for a receiver that accepts nothing for
    ``SILENT_SECONDS``; after an error nothing more is sent.
    """

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), SILENT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._failed = False

    def write(self, data: bytes) -> int:
        if not self._failed:
            self._failed = True
            self._socket.sendall(data)
            self._failed = False
        return len(data)

    def close(self) -> None:
        self._socket.close()


class StreamWriter:
    """A ``threaded.Writer``. Raises SinkError if the first connection fails."""

    bytes_written = 0
    kept = ""

    def __init__(self, name: str, source: Source, settings: RenderSettings) -> None:
        self.warnings: list[str] = []
        self.partial = OutputTarget(name)
        self._name, self._source, self._settings = name, source, settings
        if settings.encoder_options or settings.pixel_format != "auto":
            self.warnings.append(f"{name}: -e and --pix-fmt are for files; a stream has options of its own")
        self._protocol = None if is_hls(name) else PROTOCOLS[name.partition("://")[0]]
        self._container: Any = None
        self._socket: SocketFile | None = None
        self._reconnect = Reconnect(name, FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, STABLE_SECONDS)
        self._retry_at = 0.0
        self._is_settled = False
        self._file_error: OSError | None = None
        self._failed_files = 0
        self._connect()
        if self._protocol is not None and self._protocol.port and self._socket is None:
            self._await_refusal()

    # --- one connection ---

    def _connect(self) -> None:
        """Open the connection and start the encoder. Raises SinkError."""
        from av import FFmpegError

        try:
            if self._protocol is None:
                tempfile.TemporaryFile(dir=Path(self._name).parent).close()  # fail now, not at the first segment
                self._container = open_av(self._name, "w", format="hls", container_options=HLS, io_open=self._open_file)
            else:
                self._container = self._open_network(self._protocol)
            self._start()
        except (FFmpegError, OSError, ValueError) as error:  # ValueError: not a legal address
            self._disconnect()
            raise self._unreachable(error) from None
        except StreamdreamError:
            self._disconnect()
            raise
        self._connected_at, self._last_pts = time.perf_counter(), -1
        self._origin: Fraction | None = None

    def _unreachable(self, error: Exception) -> SinkError:
        verb = "written" if self._protocol is None else "reached"
        return SinkError(f"{self._name} cannot be {verb} ({error_text(error)})")

    def _open_network(self, protocol: StreamProtocol) -> Any:
        """Open a container on the network.

        TCP uses our own socket. The rest uses FFmpeg's fifo muxer, which connects and sends in its own thread and sets
        the timeout; PyAV has no option for that. Connect only once: ``ffmpeg -listen 1`` accepts one connection.
        """
        parts = urlsplit(self._name)
        host, port = parts.hostname or "", parts.port or protocol.port
        if parts.scheme == "tcp":
            self._socket = SocketFile(host, port)
            return open_av(self._socket, "w", format=protocol.format, container_options=protocol.options)
        socket.getaddrinfo(host, port)  # fail now for an unknown host, not in the thread
        target = self._name
        if parts.scheme == "udp" and "pkt_size" not in parts.query:
            target += ("&" if parts.query else "?") + "pkt_size=1316"  # seven MPEG-TS packets: one Ethernet frame
        options = {"rw_timeout": str(SILENT_SECONDS * 1_000_000)} | protocol.options
        return open_av(target, "w", format="fifo", container_options={
            "fifo_format": protocol.format, "queue_size": "120", "drop_pkts_on_overflow": "1",
            "format_opts": ":".join(f"{key}={value}" for key, value in options.items())})

    def _await_refusal(self) -> None:
        """Send two black pictures with a pause between, since the fifo reports a failed connection at the next packet.

        Raises SinkError if the receiver refuses within that time.
        """
        from av import VideoFrame

        context = self._stream.codec_context
        black = VideoFrame.from_ndarray(np.zeros((context.height, context.width, 3), np.uint8), "rgb24")
        try:
            for wait_seconds in (0.0, REFUSAL_SECONDS):
                time.sleep(wait_seconds)
                self._encode(black, self._last_pts + 1)
        except self._failures() as error:
            self._disconnect()
            raise self._unreachable(error) from None

    def _open_file(self, path: str, flags: int, options: dict[str, str]) -> HlsFile:
        return HlsFile(path, self._on_file_error)

    def _on_file_error(self, error: OSError) -> None:
        """Warn once, and go on: the disk may have room for the next files."""
        self._failed_files += 1
        if self._file_error is None:
            self._file_error = error
            logging.getLogger(__name__).warning("%s cannot be written (%s)", self._name, error_text(error))

    def _start(self) -> None:
        source, name = self._source, find_codec(self._settings.codec, H264).name
        rate = min(max(source.rate, Fraction(1)), Fraction(120)).limit_denominator(1001)
        max_rate = max(MIN_BIT_RATE, round(BITS_PER_PIXEL * source.width * source.height * rate))
        options = X264 | {"crf": str(min(self._settings.crf, 51)), "maxrate": str(max_rate),
                          "bufsize": str(max_rate // 2)}
        if self._settings.encoder_preset != "auto":
            options["preset"] = self._settings.encoder_preset
        self._stream = self._container.add_stream(name, rate=rate, options=options if name == "libx264" else {})
        context = self._stream.codec_context
        context.pix_fmt = "yuv420p"
        context.width, context.height = stored_size(source.width, source.height, "yuv420p", Encoder())
        check_width(name, context.width, H264.codec)
        self._padding = context.width - source.width, context.height - source.height
        context.time_base, context.max_b_frames = TICK, 0
        context.gop_size = max(1, round(KEY_SECONDS * rate))
        color = source.color
        context.colorspace, context.color_range = color.colorspace, color.range
        context.color_primaries, context.color_trc = color.primaries, color.trc
        self._convert = to_pixels("yuv420p", color)
        if self._protocol is not None and self._protocol.global_header:
            context.flags |= GLOBAL_HEADER
        self._container.start_encoding()

    def _disconnect(self) -> None:
        from av import FFmpegError

        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                container.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- pictures ---

    def prepare(self, image: NDArray[np.uint8], frame: Frame) -> tuple[Any, Fraction]:
        from av import VideoFrame

        right, below = self._padding
        if right or below:
            image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        return VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"), frame.pts * Fraction(*frame.time_base)

    def write(self, item: tuple[Any, Fraction]) -> None:
        """Raises SinkError if the receiver refuses the stream at its start; reconnects after a later disconnect."""
        if self._container is None and not self._try_reconnect():
            return
        picture, seconds = item
        self._origin = seconds if self._origin is None else self._origin
        try:
            self._encode(picture, round((seconds - self._origin) / TICK))
        except self._failures() as error:
            self._on_disconnect(SinkError(f"{self._name} is gone ({error_text(error)})"))
            return
        connected_seconds = time.perf_counter() - self._connected_at
        if self._reconnect.is_lost and connected_seconds > FIRST_WAIT_SECONDS:
            self._reconnect.on_reconnect(self._connected_at)
            self.warnings[:] = [self._reconnect.summary]
        self._is_settled |= connected_seconds > STABLE_SECONDS

    def _failures(self) -> tuple[type[Exception], ...]:
        from av import FFmpegError

        return FFmpegError, OSError

    def _encode(self, picture: Any, pts: int) -> None:
        self._last_pts = max(self._last_pts + 1, pts)
        picture = self._convert(picture)
        picture.pts, picture.time_base = self._last_pts, TICK
        for packet in self._stream.encode(picture):
            self._container.mux_one(packet)

    def _on_disconnect(self, error: SinkError) -> None:
        self._disconnect()
        if not self._is_settled:
            raise error
        self._retry_at = time.perf_counter() + self._reconnect.on_disconnect(error)
        self.warnings[:] = [self._reconnect.summary]

    def _try_reconnect(self) -> bool:
        if time.perf_counter() < self._retry_at:
            return False
        try:
            self._connect()
        except SinkError as error:
            self._on_disconnect(error)
            return False
        return True

    # --- the end ---

    def complete(self) -> None:
        """Flush and disconnect. Raises SinkError if the receiver is disconnected at the end, or files are missing."""
        if self._container is not None:
            with contextlib.suppress(*self._failures()):
                for packet in self._stream.encode(None):
                    self._container.mux_one(packet)
        self._disconnect()
        if self._reconnect.is_lost:
            raise SinkError(f"{self._name} was gone at the end, for {self._reconnect.lost_seconds:.1f} s")
        if self._file_error is not None:
            noun = "a file" if self._failed_files == 1 else f"{self._failed_files} files"
            raise SinkError(f"{noun} of {self._name} could not be written ({error_text(self._file_error)})")

    def commit(self) -> None:
        pass

    def discard(self) -> None:
        """Disconnect. The files of an HLS stream stay, so that viewers can watch the rest."""
        self._disconnect()

    def keep(self) -> None:
        self.discard()
