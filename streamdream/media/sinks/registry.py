"""Where dreams go: a file, a sequence of pictures, a window, a virtual camera, a stream; several at once, or nowhere.

``open_sink`` picks the kind by the name; a new kind is one more row of ``SINKS``. Files are written under another name
beside the final one, in a thread of their own, and appear under the final name only when they are whole. That name is
hidden, unless it is of a live recording, which is kept whatever happens.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import UsageError
from streamdream.media.container import is_pattern, sequence_files
from streamdream.media.images import WRITABLE
from streamdream.media.sinks.base import LiveContext, NullSink, Sink
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sinks.image_sequence import ImageWriter
from streamdream.media.sinks.stream import StreamWriter, hls_files, is_hls, is_stream
from streamdream.media.sinks.tee import Tee
from streamdream.media.sinks.threaded import DroppingSink, ThreadedSink, Writer
from streamdream.media.sinks.video import VideoWriter
from streamdream.media.sinks.virtual_camera import VirtualCameraWriter
from streamdream.settings import RenderSettings

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

STREAM_DEPTH = 2
"""Pictures that wait for a stream or a virtual camera; the newest are the ones to show."""
RECORDING_BYTES = 256 << 20
"""Of pictures that wait for a recording: what a busy encoder makes up later is not lost."""
MIN_DEPTH, MAX_DEPTH = 8, 256


@dataclass(frozen=True)
class SinkRequest:
    """What ``open_sink`` was asked for."""

    path: str
    source: Source
    settings: RenderSettings
    overwrite: bool
    input_path: str | None
    show: LiveContext | None = None


@dataclass(frozen=True)
class SinkType:
    """``open`` makes the sink for a path that ``matches``; ``files`` are those it writes, or patterns of them."""

    matches: Callable[[str], bool]
    open: Callable[[SinkRequest], Sink]
    files: Callable[[str], list[str]] = lambda path: []


def _open_window(order: SinkRequest) -> Sink:
    from streamdream.media.sinks.window import WindowSink

    def record(name: str) -> Sink:
        return _open_video(replace(order, path=name, overwrite=False, input_path=None))

    return WindowSink(order.source, order.show, record)


def _open_video(order: SinkRequest) -> Sink:
    _check_folder(order.path)
    target = Path(order.path)
    if target.is_dir():
        raise UsageError(f"{order.path} is a folder")
    if target.exists():
        if order.input_path and Path(order.input_path).exists() and target.samefile(order.input_path):
            raise UsageError(f"{order.path} is the input itself; give the output another name")
        _check_overwrite(order)
    writer = VideoWriter(order.path, order.source, order.settings, order.input_path, order.overwrite,
                         order.show is not None)
    return _in_thread(writer, order)


def _open_images(order: SinkRequest) -> Sink:
    _check_folder(order.path)
    if sequence_files(order.path):
        if order.input_path and Path(order.input_path).absolute() == Path(order.path).absolute():
            raise UsageError(f"{order.path} is the input itself; give the output another name")
        _check_overwrite(order)
    return _in_thread(ImageWriter(order.path, order.overwrite), order)


def _in_thread(writer: Writer, order: SinkRequest) -> Sink:
    """A recording of a show drops what it cannot hold, and holds much; a rendering waits for its writer."""
    if order.show is None:
        return ThreadedSink(writer)
    depth = RECORDING_BYTES // (3 * order.source.width * order.source.height)
    return DroppingSink(writer, min(max(depth, MIN_DEPTH), MAX_DEPTH), remedy="--encoder-preset ultrafast is faster",
                    kept=order.show.kept)


def _open_stream(order: SinkRequest) -> Sink:
    if is_hls(order.path):
        _check_folder(order.path)
        if any(Path(name).exists() or (is_pattern(name) and sequence_files(name)) for name in hls_files(order.path)):
            _check_overwrite(order)
    return _dropping(StreamWriter(order.path, order.source, order.settings), order)


def _open_virtual_camera(order: SinkRequest) -> Sink:
    return _dropping(VirtualCameraWriter(order.path, order.source), order)


def _dropping(writer: Writer, order: SinkRequest) -> Sink:
    return ThreadedSink(writer) if order.show is None else DroppingSink(writer, STREAM_DEPTH, newest=True)


def _check_folder(path: str) -> None:
    if not Path(path).parent.is_dir():
        raise UsageError(f"no such folder: {Path(path).parent}")


def _check_overwrite(order: SinkRequest) -> None:
    if not order.overwrite:
        raise UsageError(f"{order.path} exists; -y overwrites it")


SINKS: dict[str, SinkType] = {
    "null": SinkType(lambda path: path == "null", lambda order: NullSink()),
    "window": SinkType(lambda path: path == "window", _open_window),
    "virtualcam": SinkType(lambda path: path.partition(":")[0] == "virtualcam", _open_virtual_camera),
    "stream": SinkType(is_stream, _open_stream, hls_files),
    "images": SinkType(lambda path: Path(path).suffix.lower() in WRITABLE and is_pattern(path), _open_images,
                   lambda path: [path]),
    "video": SinkType(lambda path: Path(path).suffix.lower() in CONTAINERS, _open_video, lambda path: [path]),
}
"""The first one that matches is used."""


def open_sink(path: str, source: Source, settings: RenderSettings, overwrite: bool = False,
              input_path: str | None = None, show: LiveContext | None = None) -> Sink:
    """Opens a sink for pictures of the size of ``source``, in its colours and unit of time.

    ``path`` is a video file, a pattern such as ``frame_%04d.png``, ``window``, ``virtualcam``, a URL to stream to, an
    ``.m3u8`` file or ``null``. What lies beside the pictures is copied from ``input_path`` if it is a file. Raises
    UsageError before anything is written, and SinkError.
    """
    order = SinkRequest(path, source, settings, overwrite, input_path, show)
    for kind in SINKS.values():
        if kind.matches(path):
            return kind.open(order)
    legal = f"{', '.join(CONTAINERS)}, or a pattern such as frame_%04d.png"
    if show is not None:
        legal += "; or it is window, virtualcam, null, a .m3u8 file, or a URL with rtmp, udp or tcp"
    raise UsageError(f"cannot write {path}: its name must end in {legal}")


def open_sinks(
    paths: Sequence[str], source: Source, settings: RenderSettings, overwrite: bool, show: LiveContext
) -> Sink:
    """Sinks of a live run as one, which goes on as long as any of them does. Raises as ``open_sink``."""
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise UsageError(f"--sink {twice.pop()} is given twice")
    with ExitStack() as stack:
        sinks = [stack.enter_context(open_sink(path, source, settings, overwrite, show=show)) for path in paths]
        stack.pop_all()
    return Tee(sinks, paths, show.failures)
