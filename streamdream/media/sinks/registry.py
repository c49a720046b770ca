"""Open sinks: a file, a sequence of pictures, a window, a virtual camera, a stream, several at once, or none.

``open_sink`` chooses the type by the name; a new type is one more row of ``SINKS``. Files are written in a thread under
a temporary name in the same folder, and get the final name when they are complete. The temporary name is hidden, except
that of a live recording, which is kept after any error.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import UsageError
from streamdream.media.images import WRITABLE
from streamdream.media.input_container import is_pattern, sequence_files
from streamdream.media.sinks.base import LiveContext, NullSink, Sink
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sinks.image_sequence import ImageWriter
from streamdream.media.sinks.picture_format import PictureFormat
from streamdream.media.sinks.pipe import check_pipe, is_pipe
from streamdream.media.sinks.stream import StreamWriter, hls_files, is_hls, is_stream
from streamdream.media.sinks.tee import Tee
from streamdream.media.sinks.threaded import DroppingSink, ThreadedSink, Writer
from streamdream.media.sinks.video import VideoWriter
from streamdream.media.sinks.virtual_camera import VirtualCameraWriter
from streamdream.settings import RenderSettings

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

STREAM_DEPTH = 2
"""Queue of a stream or a virtual camera; it drops the oldest picture."""
RECORDING_BYTES = 256 << 20
"""Queue of a recording: a busy encoder can catch up without a loss."""
MIN_DEPTH, MAX_DEPTH = 8, 256


@dataclass(frozen=True)
class SinkRequest:
    """The arguments of ``open_sink``."""

    path: str
    source: Source
    settings: RenderSettings
    overwrite: bool
    input_path: str | None
    show: LiveContext | None = None
    recipe: Callable[[], str] = lambda: ""
    """Called once, after the other arguments were checked."""


@dataclass(frozen=True)
class SinkType:
    """``open`` returns the sink for a path that ``matches``; ``files`` lists the files it writes, or their patterns."""

    matches: Callable[[str], bool]
    open: Callable[[SinkRequest], Sink]
    files: Callable[[str], list[str]] = lambda path: []
    check: Callable[[SinkRequest], None] = lambda request: None
    """Raise what ``open`` would about the path, without opening it."""


def _open_window(request: SinkRequest) -> Sink:
    from streamdream.media.sinks.window import WindowSink

    def record(name: str) -> Sink:
        return _open_video(replace(request, path=name, overwrite=False, input_path=None))

    return WindowSink(request.source, request.show, record)


def _check_video(request: SinkRequest) -> None:
    _check_folder(request.path)
    target = Path(request.path)
    if target.is_dir():
        raise UsageError(f"{request.path} is a folder")
    if target.exists():
        if request.input_path and Path(request.input_path).exists() and target.samefile(request.input_path):
            raise UsageError(f"{request.path} is the input itself; give the output another name")
        _check_overwrite(request)


def _open_video(request: SinkRequest) -> Sink:
    _check_video(request)
    writer = VideoWriter(request.path, request.source, request.settings, request.input_path, request.overwrite,
                         request.show is not None, request.recipe)
    return _in_thread(writer, request)


def _open_pipe(request: SinkRequest) -> Sink:
    if request.show is not None:
        raise UsageError("the standard output is for streamdream render; --sink tcp://HOST:PORT streams live")
    check_pipe()
    return ThreadedSink(VideoWriter(request.path, request.source, request.settings, request.input_path))


def _check_images(request: SinkRequest) -> None:
    _check_folder(request.path)
    if sequence_files(request.path):
        if request.input_path and Path(request.input_path).absolute() == Path(request.path).absolute():
            raise UsageError(f"{request.path} is the input itself; give the output another name")
        _check_overwrite(request)


def _open_images(request: SinkRequest) -> Sink:
    _check_images(request)
    format = PictureFormat.of(request.path, request.source, request.settings)
    return _in_thread(ImageWriter(request.path, format, request.overwrite, request.recipe()), request)


def _in_thread(writer: Writer, request: SinkRequest) -> Sink:
    """A live recording drops pictures when its long queue is full; a render waits for its writer."""
    if request.show is None:
        return ThreadedSink(writer)
    depth = RECORDING_BYTES // (3 * request.source.width * request.source.height)
    return DroppingSink(writer, min(max(depth, MIN_DEPTH), MAX_DEPTH), remedy="--encoder-preset ultrafast is faster",
                    kept=request.show.kept)


def _open_stream(request: SinkRequest) -> Sink:
    if is_hls(request.path):
        _check_folder(request.path)
        if any(Path(name).exists() or (is_pattern(name) and sequence_files(name)) for name in hls_files(request.path)):
            _check_overwrite(request)
    return _dropping(StreamWriter(request.path, request.source, request.settings), request)


def _open_virtual_camera(request: SinkRequest) -> Sink:
    return _dropping(VirtualCameraWriter(request.path, request.source), request)


def _dropping(writer: Writer, request: SinkRequest) -> Sink:
    return ThreadedSink(writer) if request.show is None else DroppingSink(writer, STREAM_DEPTH, drop_oldest=True)


def _check_folder(path: str) -> None:
    if not Path(path).parent.is_dir():
        raise UsageError(f"no such folder: {Path(path).parent}")


def _check_overwrite(request: SinkRequest) -> None:
    if not request.overwrite:
        raise UsageError(f"{request.path} exists; -y overwrites it")


SINKS: dict[str, SinkType] = {
    "null": SinkType(lambda path: path == "null", lambda request: NullSink()),
    "window": SinkType(lambda path: path == "window", _open_window),
    "virtualcam": SinkType(lambda path: path.partition(":")[0] == "virtualcam", _open_virtual_camera),
    "stream": SinkType(is_stream, _open_stream, hls_files),
    "pipe": SinkType(is_pipe, _open_pipe, check=lambda request: check_pipe()),
    "images": SinkType(lambda path: Path(path).suffix.lower() in WRITABLE and is_pattern(path), _open_images,
                       lambda path: [path], _check_images),
    "video": SinkType(lambda path: Path(path).suffix.lower() in CONTAINERS, _open_video, lambda path: [path],
                      _check_video),
}
"""In order; the first match is used."""


def open_sink(path: str, source: Source, settings: RenderSettings, overwrite: bool = False,
              input_path: str | None = None, show: LiveContext | None = None,
              recipe: Callable[[], str] = lambda: "") -> Sink:
    """Open a sink for pictures of the size, colours and time base of ``source``.

    ``path`` is a video file, a pattern such as ``frame_%04d.png``, ``window``, ``virtualcam``, a URL to stream to, an
    ``.m3u8`` file or ``null``. Sound and metadata are copied from ``input_path`` if it is a file. ``recipe`` returns a
    text for the metadata of files; "" is none. Raises UsageError before anything is written, and SinkError.
    """
    request = SinkRequest(path, source, settings, overwrite, input_path, show, recipe)
    return _sink_type(path, show is not None).open(request)


def check_output(path: str, source: Source, settings: RenderSettings, overwrite: bool, input_path: str) -> None:
    """Raise UsageError where ``open_sink`` would, because of the path alone."""
    _sink_type(path, False).check(SinkRequest(path, source, settings, overwrite, input_path))


def _sink_type(path: str, is_live: bool) -> SinkType:
    for sink_type in SINKS.values():
        if sink_type.matches(path):
            return sink_type
    legal = f"{', '.join(CONTAINERS)}, or a pattern such as frame_%04d.png"
    if is_live:
        legal += "; or it is window, virtualcam, null, a .m3u8 file, or a URL with rtmp, udp or tcp"
    raise UsageError(f"cannot write {path}: its name must end in {legal}")


def open_sinks(
    paths: Sequence[str], source: Source, settings: RenderSettings, overwrite: bool, show: LiveContext
) -> Sink:
    """Open the sinks of a live run as one, which works as long as any of them does. Raises as ``open_sink`` does."""
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise UsageError(f"--sink {twice.pop()} is given twice")
    with ExitStack() as stack:
        sinks = [stack.enter_context(open_sink(path, source, settings, overwrite, show=show)) for path in paths]
        stack.pop_all()
    return Tee(sinks, paths, show.failures)
