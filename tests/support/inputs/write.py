"""Write the files that phones, cameras, recorders and editors make, by PyAV alone."""
from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from support.inputs.chart import SIZE, WEIGHTS, Picture, chart

FRAMES = 12
RATE = Fraction(25)
TONE_HZ = 440.0
MILLISECOND = Fraction(1, 1000)
Color = tuple[int, int, int, int]
"""Matrix, primaries, transfer, range; numbers of H.273."""
BT601: Color = (6, 6, 6, 1)
BT709: Color = (1, 1, 1, 1)
BT470BG: Color = (5, 5, 6, 1)
FULL: Color = (6, 6, 6, 2)
BT2020: Color = (9, 9, 14, 1)
HLG: Color = (9, 9, 18, 1)
PQ: Color = (9, 9, 16, 1)
FAST = {"libx264": {"crf": "6", "g": "6", "bf": "2", "preset": "veryfast"}, "libx265": {"preset": "ultrafast"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "1M"}, "libsvtav1": {"preset": "12", "crf": "12"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0"}}
ASS_HEADER = (b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n"
              b"Style: Default,Arial,16\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, "
              b"Effect, Text\nDialogue: 0,0:00:00.10,0:00:00.30,Default,,0,0,0,,hello\n")
X265 = "log-level=none:crf=8"


@dataclass(frozen=True)
class Video:
    """One video stream."""

    codec: str = "libx264"
    pixels: str = "yuv420p"
    frames: int = FRAMES
    first: int = 0
    """Number of the first picture."""
    size: tuple[int, int] = SIZE
    rate: Fraction = RATE
    tick: Fraction | None = None
    """Of the encoder; a frame by default."""
    times: Sequence[int] | None = None
    """Of the frames, in ticks; steady by default."""
    color: Color = BT601
    tagged: bool = True
    aspect: Fraction | None = None
    rotation: tuple[float, bool, bool] | None = None
    """Degrees counter-clockwise, mirrored horizontally, vertically."""
    fields: str = ""
    """``tff`` or ``bff``: two pictures in each frame, the upper or the lower lines first."""
    options: dict[str, str] = field(default_factory=dict)
    picture: Callable[[int, tuple[int, int]], NDArray[np.uint8]] = chart
    """RGB or RGBA of the frame with that number."""
    tags: dict[str, str] = field(default_factory=dict)
    codec_tag: str = ""


@dataclass(frozen=True)
class Sound:
    """One sound stream, of one tone."""

    codec: str = "aac"
    rate: int = 44100
    layout: str = "mono"
    seconds: float | None = None
    """As long as the pictures by default."""
    start: float = 0.0
    hertz: float = TONE_HZ
    options: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """One stream of subtitles; each line is start and end in ms, and its text."""

    codec: str
    lines: tuple[tuple[int, int, str], ...] = ((100, 300, "hello"),)
    tags: dict[str, str] = field(default_factory=dict)


def write(path: Path, *streams: Video | Sound | Text, format: str | None = None, chapters: Sequence[str] = (),
          tags: dict[str, str] | None = None, **options: str) -> Path:
    """A file of these streams; ``options`` are of the muxer."""
    with av.open(str(path), "w", format=format, container_options=options) as output:
        output.metadata.update(tags or {})
        writers = [_WRITERS[type(stream)](output, stream, _seconds(streams)) for stream in streams]
        if chapters:
            output.set_chapters([
                {"id": number, "start": 200 * number, "end": 200 * number + 200, "time_base": MILLISECOND,
                 "metadata": {"title": title}} for number, title in enumerate(chapters)])
        packets = sorted((packet for writer in writers for packet in writer()), key=_time)
        for packet in packets:
            output.mux(packet)
    return path


def _seconds(streams: Iterable[Any]) -> float:
    return next((float(stream.frames / stream.rate) for stream in streams if isinstance(stream, Video)), 0.5)


def _time(packet: Any) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return Fraction((time or 0) * packet.time_base)


# --- pictures


def _video_writer(output: Any, video: Video, seconds: float) -> Callable[[], list[Any]]:
    options = {**FAST.get(video.codec, {}), **video.options}
    if video.codec == "libx265":
        options["x265-params"] = ":".join(filter(None, (X265, video.options.get("x265-params"))))
    stream = output.add_stream(video.codec, rate=video.rate, options=options)
    context = stream.codec_context
    context.width, context.height = video.size
    context.pix_fmt = video.pixels
    context.time_base = video.tick or 1 / video.rate
    if video.aspect:
        context.sample_aspect_ratio = video.aspect
    if video.tagged and not av.VideoFormat(video.pixels).is_rgb:
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = video.color
    if video.fields:
        context.flags |= 0x20040000  # interlaced DCT and motion estimation
    if video.rotation:
        stream.set_display_rotation(*video.rotation)
    if video.codec_tag:
        context.codec_tag = video.codec_tag
    stream.metadata.update(video.tags)
    return lambda: list(_encoded(stream, pictures(video)))


def _encoded(stream: Any, frames: Iterable[Any]) -> Iterable[Any]:
    for frame in frames:
        yield from stream.encode(frame)
    yield from stream.encode()


def pictures(video: Video) -> Iterable[Any]:
    """The frames, as they go to the encoder."""
    tick = video.tick or 1 / video.rate
    times = video.times if video.times is not None else [
        round(number / video.rate / tick) for number in range(video.frames)]
    mark = _field_marker(video) if video.fields else None
    for number, time in zip(range(video.first, video.first + video.frames), times, strict=True):
        image = _woven(video, number) if video.fields else video.picture(number, video.size)
        frame = to_frame(image, video.pixels, video.color)
        frame.pts, frame.time_base = time, tick
        yield mark(frame) if mark else frame


def _woven(video: Video, number: int) -> NDArray[np.uint8]:
    """Two pictures in one frame: a line of the one, a line of the other."""
    early, late = (video.picture(2 * number + part, video.size) for part in (0, 1))
    woven = early.copy()
    first = 1 if video.fields == "tff" else 0
    woven[first::2] = late[first::2]
    return woven


def _field_marker(video: Video) -> Callable[[Any], Any]:
    graph: Any = av.filter.Graph()
    width, height = video.size
    source = graph.add_buffer(width=width, height=height, format=video.pixels, time_base=video.tick or 1 / video.rate)
    marker, sink = graph.add("setfield", f"mode={video.fields}"), graph.add("buffersink")
    source.link_to(marker)
    marker.link_to(sink)
    graph.configure()

    def mark(frame: Any) -> Any:
        graph.push(frame)
        marked = graph.pull()
        marked.colorspace, marked.color_range = frame.colorspace, frame.color_range
        return marked

    return mark


def to_frame(image: NDArray[np.uint8], pixels: str, color: Color = BT601) -> Any:
    """RGB or RGBA uint8 -> a picture of that format; 4:2:0 and so on by averaging, the matrix by NumPy."""
    format = av.VideoFormat(pixels)
    if format.is_rgb or pixels in ("pal8", "monob") or image.shape[2] == 4:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgba" if image.shape[2] == 4 else "rgb24")
        if not format.is_rgb and pixels != "pal8":
            frame.colorspace, frame.color_range = color[0], color[3]
        made = frame.reformat(format=pixels)
    else:
        planes = to_planes(image, color)
        frame = av.VideoFrame.from_ndarray(planes, "yuv444p16le")
        frame.colorspace, frame.color_range = color[0], color[3]
        made = frame.reformat(format=pixels)
        made.colorspace, made.color_primaries, made.color_trc, made.color_range = color
    return made


def to_planes(image: Picture, color: Color) -> NDArray[np.uint16]:
    """R'G'B' -> 16-bit Y'CbCr [H, W, 3]."""
    red, green, blue = (image[..., part].astype(np.float64) / 255 for part in range(3))
    k_red, k_blue = WEIGHTS[color[0]]
    luma = k_red * red + (1 - k_red - k_blue) * green + k_blue * blue
    chroma = (blue - luma) / (2 - 2 * k_blue), (red - luma) / (2 - 2 * k_red)
    if color[3] == 2:
        planes = [luma * 65535, *(part * 65535 + 32768 for part in chroma)]
    else:
        planes = [(16 + 219 * luma) * 256, *((128 + 224 * part) * 256 for part in chroma)]
    return np.round(np.clip(np.stack(planes, axis=-1), 0, 65535)).astype(np.uint16)


# --- sound and text


def _sound_writer(output: Any, sound: Sound, seconds: float) -> Callable[[], list[Any]]:
    stream = output.add_stream(sound.codec, rate=sound.rate, options=sound.options)
    stream.codec_context.layout = sound.layout
    stream.metadata.update(sound.tags)
    length = sound.seconds if sound.seconds is not None else seconds
    return lambda: list(_encoded(stream, tones(stream.codec_context, sound, length)))


def tones(context: Any, sound: Sound, seconds: float) -> Iterable[Any]:
    """Sound frames of a tone, in the format and with the size that the encoder takes."""
    context.open(strict=False)
    count, size = round(seconds * sound.rate), context.frame_size or 1024
    channels, name = len(av.AudioLayout(sound.layout).channels), context.format.name
    wave = 0.5 * np.sin(2 * np.pi * sound.hertz * np.arange(count) / sound.rate)
    start = round(sound.start * sound.rate)
    for first in range(0, count, size):
        part = wave[first:first + size]
        samples = _as_samples(part, name)
        shape = np.tile(samples, (channels, 1)) if name.endswith("p") else np.repeat(samples, channels)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(shape), format=name, layout=sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, start + first, Fraction(1, sound.rate)
        yield frame


def _as_samples(wave: NDArray[np.float64], name: str) -> NDArray[Any]:
    if name.startswith("flt"):
        return wave.astype(np.float32)
    if name.startswith("u8"):
        return np.asarray(np.round(wave * 127 + 128), np.uint8)
    if name.startswith("s32"):
        return np.asarray(np.round(wave * (2**31 - 1)), np.int32)
    return np.asarray(np.round(wave * 32767), np.int16)


def _text_writer(output: Any, text: Text, seconds: float) -> Callable[[], list[Any]]:
    stream = _styled_stream(output) if text.codec == "ass" else output.add_mux_stream(text.codec)
    stream.metadata.update(text.tags)

    def packets() -> list[Any]:
        found = []
        for start, end, line in text.lines:
            packet: Any = av.Packet(_payload(text.codec, line))
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = end - start, MILLISECOND, stream
            found.append(packet)
        return found

    return packets


def _styled_stream(output: Any) -> Any:
    """Of ASS, whose header PyAV takes only from a stream that has one."""
    with av.open(io.BytesIO(ASS_HEADER), format="ass") as styled:
        return output.add_stream_from_template(styled.streams[0])


def _payload(codec: str, line: str) -> bytes:
    if codec == "mov_text":
        return len(line.encode()).to_bytes(2, "big") + line.encode()
    if codec == "ass":
        return b"0,0,Default,,0,0,0,," + line.encode()
    return line.encode()


_WRITERS: dict[type, Any] = {Video: _video_writer, Sound: _sound_writer, Text: _text_writer}


def encoded_packets(video: Video) -> list[Any]:
    """The packets alone, for files without a container."""
    with av.open("/dev/null", "w", format="null") as output:
        return _video_writer(output, video, 0)()
