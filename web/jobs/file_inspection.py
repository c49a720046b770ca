"""Inspection of untrusted files in a child process with limits of memory and time.

``inspect`` starts this module as a program, so that a harmful file kills that process and not the server. It reads
headers and packets of a video and decodes nothing. It decodes a picture if its header says that it is small enough, and
replaces the file by a plain PNG.
"""
from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamdream.errors import MissingPackage, SourceError, StreamdreamError, UsageError
from streamdream.media.pyav import open_av
from streamdream.system.durations import describe_seconds

from ..core import strings
from ..core.limits import (
    INSPECTION_BYTES,
    INSPECTION_CPU_SECONDS,
    MAX_PACKETS_PER_SECOND,
    MAX_PICTURE_FACTOR,
    MAX_STORED_PIXELS,
    MAX_STREAMS,
    MAX_VIDEO_RATE,
)

UPLOADABLE_VIDEOS = (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".gif", ".ts", ".mts", ".m2ts", ".mpg",
                     ".mpeg", ".vob", ".wmv", ".asf", ".flv", ".dv")
"""Suffixes of videos: of phones, cameras, recorders and archives. What a file is, its content says."""
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,asf,flv,dv"
"""Container formats that are probed. No play list is one: it could name other files."""
CODECS = frozenset(("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg",
                    "prores", "theora", "gif", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "wmv3", "vc1", "h263", "flv",
                    "dvvideo", "dnxhd", "qtrle", "png"))
AUDIO_CODECS = (
    "aac mp3 mp3float opus vorbis flac alac ac3 eac3 pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_s32le pcm_f32le "
    "pcm_u8 pcm_mulaw pcm_alaw pcm_bluray pcm_dvd mp2 mp2float wmav1 wmav2 amrnb amrwb adpcm_ima_wav adpcm_ima_qt "
    "adpcm_ms dca truehd"
)
SUBTITLE_CODECS = "mov_text subrip srt ass ssa webvtt"
UPLOADABLE_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".bmp", ".tif", ".tiff")
"""Suffixes of pictures."""
PICTURE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "TIFF")
"""Pillow's formats that a file may have, whatever its suffix; MPO is a JPEG with a second picture, as phones write it.
"""
SPARE_SECONDS = 0.5
"""Tolerance of the length: audio rarely ends with the video."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""On a machine with many cores, the memory that libraries reserve per thread would exceed the limit."""


@dataclass(frozen=True)
class InspectionLimits:
    """Limits of an upload; ``pixels`` of one frame, ``seconds`` of a video."""

    megabytes: float
    seconds: float
    pixels: int

    @property
    def picture_pixels(self) -> int:
        return MAX_PICTURE_FACTOR * self.pixels


@dataclass(frozen=True)
class MediaInfo:
    """The result. ``seconds`` and ``frames`` of a picture are 0 and 1; ``suffix`` is that of the actual format."""

    suffix: str
    width: int
    height: int
    seconds: float = 0.0
    frames: int = 1
    codec: str = ""
    sound: str = ""
    notes: tuple[str, ...] = ()
    """What the visitor should know of the file."""


def inspect(path: Path, suffix: str, limits: InspectionLimits) -> MediaInfo:
    """Inspect a file that a visitor sent as a ``suffix``. Raises UsageError with a message for the visitor."""
    request = json.dumps([str(path), suffix, asdict(limits)])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMDREAM_")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **ONE_THREAD}
    try:
        child = subprocess.run([sys.executable, "-m", __name__, request], capture_output=True, text=True, check=False,
                               timeout=2 * INSPECTION_CPU_SECONDS, env=environment, stdin=subprocess.DEVNULL)
        answer = json.loads(child.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise UsageError(strings.text("inspection.exhausting")) from None
    if "refused" in answer:
        raise UsageError(answer["refused"])
    return MediaInfo(**{**answer, "notes": tuple(answer["notes"])})


def known_suffix(name: str) -> str:
    """Return the suffix of a file name in lower case. Raises UsageError for a suffix that is not accepted."""
    suffix = Path(name).suffix.lower()
    if suffix not in UPLOADABLE_VIDEOS and suffix not in UPLOADABLE_PICTURES:
        raise UsageError(strings.text("inspection.other_type", videos=listed(UPLOADABLE_VIDEOS),
                                      pictures=listed(UPLOADABLE_PICTURES)))
    return suffix


def listed(kinds: Iterable[str]) -> str:
    """Return suffixes without dots, such as ``mp4 mov webm``."""
    return " ".join(suffix.removeprefix(".") for suffix in kinds)


def inspect_picture(path: Path, suffix: str, limits: InspectionLimits) -> MediaInfo:
    """Check the header, then replace the file by the decoded picture: upright, RGB, at most ``MAX_STORED_PIXELS``.

    Raises UsageError, in the words of ``streamdream image`` where that refuses the file, too.
    """
    from streamdream.media import images
    from streamdream.media.resize import resize

    _check_picture_header(path, limits)
    with _logged_warnings() as notes:
        try:
            picture = images.read_image(str(path))
        except (SourceError, UsageError) as error:
            raise UsageError(str(error).replace(str(path), "this file")) from None
    height, width = picture.shape[:2]
    check_size(width, height, limits.picture_pixels)
    scale = min(1.0, (MAX_STORED_PIXELS / (height * width)) ** 0.5)
    picture = resize(picture, max(1, round(height * scale)), max(1, round(width * scale)))
    png = path.with_suffix(".png")
    images.write_image(str(png), picture, overwrite=True)  # the upload may have that name
    if png != path:
        path.unlink()
    words = tuple(note.replace(str(path), "this file") for note in notes)
    return MediaInfo(".png", picture.shape[1], picture.shape[0], notes=words)


def _check_picture_header(path: Path, limits: InspectionLimits) -> None:
    """Raises UsageError."""
    from streamdream.media.picture_decoder import ANIMATED_FORMATS, count_pictures, open_picture

    try:
        with open_picture(path) as image:
            (width, height), frames, format = image.size, count_pictures(image, "this picture"), image.format
    except MissingPackage:
        raise UsageError(strings.text("inspection.no_heic")) from None
    except StreamdreamError as error:  # the command's words
        raise UsageError(str(error).replace(str(path), "this file")) from None
    if format not in PICTURE_FORMATS:
        raise UsageError(strings.text("inspection.no_picture"))
    if frames > 1 and format in ANIMATED_FORMATS:
        raise UsageError(strings.text("inspection.animated"))
    check_size(width, height, limits.picture_pixels)


@contextmanager
def _logged_warnings() -> Iterator[list[str]]:
    """Collect what the library warns of meanwhile."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, collector = logging.getLogger("streamdream"), Collector(logging.WARNING)
    log.addHandler(collector)
    try:
        yield lines
    finally:
        log.removeHandler(collector)


def inspect_video(path: Path, suffix: str, limits: InspectionLimits) -> MediaInfo:
    """Check streams, sizes and codecs of the header, and the length by the packets: a header may be wrong.

    Raises UsageError, in the words of ``streamdream render`` where that refuses the file, too.
    """
    import av

    from streamdream.media.input_container import main_video_stream

    container = open_video(path)
    try:
        if len(container.streams) > MAX_STREAMS:
            raise UsageError(strings.text("inspection.streams", count=len(container.streams), most=MAX_STREAMS))
        video = main_video_stream(container)
        if video is None or video.codec_context is None:
            only_sound = video is None and container.streams.audio
            raise UsageError(strings.text("inspection.only_sound" if only_sound else "inspection.no_decodable_video"))
        codec = str(video.codec_context.name)
        if codec not in CODECS:
            raise UsageError(strings.text("inspection.video_codec", codec=codec))
        for stream in container.streams.audio:  # it may be decoded, to be encoded anew
            if stream.codec_context is not None and stream.codec_context.name not in AUDIO_CODECS.split():
                raise UsageError(strings.text("inspection.sound_codec", codec=stream.codec_context.name))
        check_size(video.width, video.height, limits.pixels)
        seconds, frames = check_packets(container, video, limits)
        sound = next((stream.codec_context.name for stream in container.streams.audio if stream.codec_context), "")
        return MediaInfo(suffix, video.width, video.height, round(seconds, 3), frames, codec, sound)
    except (av.FFmpegError, ValueError, OverflowError):
        raise UsageError(strings.text("inspection.damaged")) from None
    finally:
        container.close()


def open_video(path: Path) -> Any:
    """Open an av container of one of ``FORMATS``, restricted so that FFmpeg reads no other file."""
    import av

    allowed = ",".join([*sorted(CODECS), *AUDIO_CODECS.split(), *SUBTITLE_CODECS.split()])
    try:
        return open_av(str(path.absolute()), options={
            "protocol_whitelist": "file", "format_whitelist": FORMATS, "codec_whitelist": allowed})
    except (av.FFmpegError, ValueError):
        raise UsageError(strings.text("inspection.not_a_video")) from None


def check_packets(container: Any, video: Any, limits: InspectionLimits) -> tuple[float, int]:
    """Read all packets and return (seconds, frames). Raises UsageError as soon as a limit is exceeded.

    Times are repaired as a render does. The length of a stream is the sum of all steps forward of its timestamps, so
    that resets do not make it shorter.
    """
    from streamdream.media.packet_clock import repaired_packets
    from streamdream.media.pyav import demux

    index = video.index
    last: dict[int, float] = {}
    elapsed: dict[int, float] = {}
    frames = 0
    filled = (packet for packet in demux(container) if packet.size)
    for packets, packet in enumerate(repaired_packets(filled, video), 1):
        frames += packet.stream.index == index
        time = packet.dts if packet.dts is not None else packet.pts
        stream = packet.stream.index
        if time is not None and packet.time_base:
            now = float(time * packet.time_base)
            elapsed[stream] = elapsed.get(stream, 0.0) + max(0.0, now - last.get(stream, now))
            last[stream] = now
            check_length(elapsed[stream], limits)
        if frames > limits.seconds * MAX_VIDEO_RATE or packets > limits.seconds * MAX_PACKETS_PER_SECOND:
            raise UsageError(strings.text("inspection.frames", rate=MAX_VIDEO_RATE, seconds=f"{limits.seconds:.0f}"))
    if not frames:
        raise UsageError(strings.text("inspection.no_video"))
    return elapsed.get(index, 0.0) * frames / max(1, frames - 1), frames


def check_length(seconds: float, limits: InspectionLimits) -> None:
    """Raises UsageError."""
    if seconds > limits.seconds + SPARE_SECONDS:
        raise UsageError(strings.text("inspection.too_long", length=describe_seconds(limits.seconds)))


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises UsageError."""
    if not width or not height:
        raise UsageError(strings.text("inspection.no_size"))
    if width * height > max_pixels:
        raise UsageError(strings.text("inspection.pixels", width=width, height=height, most=f"{max_pixels / 1e6:.1f}"))


def main(request: str) -> None:
    """Run in the child: print one JSON object, a ``MediaInfo`` or the reason of a refusal."""
    _limit_this_process()
    path, suffix, limits = json.loads(request)
    inspect_file = inspect_video if suffix in UPLOADABLE_VIDEOS else inspect_picture
    try:
        answer: dict[str, Any] = asdict(inspect_file(Path(path), suffix, InspectionLimits(**limits)))
    except StreamdreamError as error:
        answer = {"refused": str(error)}
    sys.stdout.write(json.dumps(answer))


def _limit_this_process() -> None:
    if sys.platform == "win32":
        return
    import resource

    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CPU, (INSPECTION_CPU_SECONDS, INSPECTION_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (INSPECTION_BYTES, INSPECTION_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1])
