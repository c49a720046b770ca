"""Makes tiny clips for tests, with PyAV."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 48000
SEED = 20


@dataclass(frozen=True)
class Clip:
    """What ``make`` puts in a file. Pictures are ``marked``, so that each tells its number."""

    frames: int = 30
    size: tuple[int, int] = (64, 48)
    """Width and height."""
    pts: Sequence[int] | None = None
    """Of each frame, in ``time_base``; steady when None."""
    time_base: Fraction = Fraction(1, 30)
    last_ticks: int = 1
    """How long the last frame lasts."""
    rate: Fraction = Fraction(30)
    codec: str = "libx264"
    pixels: str = "yuv420p"
    color: tuple[int, int, int, int] | None = None
    """Colour space, primaries, transfer, range; BT.601 and untagged when None."""
    tagged: bool = True
    rotation: tuple[float, bool, bool] | None = None
    """Degrees counter-clockwise, then mirrored horizontally, vertically."""
    aspect: Fraction | None = None
    options: dict[str, str] = field(default_factory=lambda: {"crf": "4", "g": "10", "bf": "2"})
    audio: str | None = None
    audio_seconds: float = 1.0
    subtitles: tuple[tuple[int, int, str], ...] = ()
    """Start and end in ms, and text."""
    chapters: tuple[tuple[int, int, str], ...] = ()
    """Start and end in ms, and title."""
    attachment: bytes = b""
    metadata: dict[str, str] = field(default_factory=dict)
    language: str = ""
    container_options: dict[str, str] = field(default_factory=dict)


def marked(number: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """A grey picture with ``number`` (below 256) as eight black or white bars; left to right is bit 0 to 7."""
    width, height = size
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(8):
        image[height // 4: -(height // 4), bit * width // 8: (bit + 1) * width // 8] = 255 * (number >> bit & 1)
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that ``marked`` wrote, also after a lossy codec."""
    height, width = image.shape[:2]
    row = image[height // 2].mean(axis=1)
    return sum(1 << bit for bit in range(8) if row[(2 * bit + 1) * width // 16] > 128)


def irregular(count: int, low: int, high: int, first: int = 0) -> list[int]:
    """Ever later times with steps of ``low`` to ``high``."""
    steps = np.random.default_rng(SEED).integers(low, high, count - 1)
    return [first, *(first + int(time) for time in np.cumsum(steps))]


def make(path: Path, clip: Clip | None = None, images: Iterable[NDArray[np.uint8]] | None = None) -> str:
    """Writes ``clip`` to ``path`` and returns it as text."""
    clip = clip or Clip()
    with av.open(str(path), "w", container_options=clip.container_options) as output:
        output.metadata.update(clip.metadata)
        video = _add_video(output, clip)
        audio = _add_audio(output, clip) if clip.audio else None
        subtitles = output.add_mux_stream("subrip") if clip.subtitles else None
        if clip.attachment:
            output.add_attachment("font.ttf", "application/x-truetype-font", clip.attachment)
        chapters: Any = [
            {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
            for number, (start, end, title) in enumerate(clip.chapters)]
        output.set_chapters(chapters)
        _write_video(output, video, clip, images)
        if audio is not None:
            _write_audio(output, audio, clip)
        for start, end, text in clip.subtitles:
            packet: Any = av.Packet(text.encode())
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = end - start, Fraction(1, 1000), subtitles
            output.mux(packet)
    return str(path)


def _add_video(output: Any, clip: Clip) -> Any:
    stream = output.add_stream(clip.codec, rate=clip.rate, options=clip.options if "264" in clip.codec else {})
    context = stream.codec_context
    context.width, context.height = clip.size
    context.pix_fmt = clip.pixels
    context.time_base = clip.time_base
    if clip.aspect:
        context.sample_aspect_ratio = clip.aspect
    if clip.color and clip.tagged:
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = clip.color
    if clip.rotation:
        stream.set_display_rotation(*clip.rotation)
    if clip.language:
        stream.metadata["language"] = clip.language
    return stream


def _write_video(output: Any, stream: Any, clip: Clip, images: Iterable[NDArray[np.uint8]] | None) -> None:
    pts = list(clip.pts if clip.pts is not None else range(clip.frames))
    ends = [*pts[1:], pts[-1] + clip.last_ticks]
    lasts = {start: end - start for start, end in zip(pts, ends, strict=True)}
    pictures = images if images is not None else (marked(number % 256, clip.size) for number in range(len(pts)))

    def mux(packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = lasts.get(packet.pts, packet.duration)
            output.mux(packet)

    for time, image in zip(pts, pictures, strict=True):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        if clip.color and clip.pixels.startswith("yuv"):
            picture.colorspace, picture.color_range = clip.color[0], clip.color[3]
        picture = picture.reformat(format=clip.pixels)
        picture.pts, picture.time_base = time, clip.time_base
        mux(stream.encode(picture))
    mux(stream.encode())


def _add_audio(output: Any, clip: Clip) -> Any:
    stream = output.add_stream(clip.audio, rate=SAMPLE_RATE)
    stream.codec_context.layout = "mono"
    if clip.language:
        stream.metadata.update(language=clip.language, title="the sound")
    return stream


def _write_audio(output: Any, stream: Any, clip: Clip) -> None:
    stream.codec_context.open(strict=False)
    size = stream.codec_context.frame_size or 1024
    layout = stream.codec_context.format.name
    noise = np.random.default_rng(SEED).normal(0, 0.1, int(clip.audio_seconds * SAMPLE_RATE))
    for start in range(0, len(noise) - size + 1, size):
        samples = noise[None, start: start + size]
        if layout.startswith("flt"):
            samples = samples.astype(np.float32)
        else:
            samples = (samples * 32767).astype(np.int32 if layout.startswith("s32") else np.int16)
        sound = av.AudioFrame.from_ndarray(samples, format=layout, layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        output.mux(stream.encode(sound))
    output.mux(stream.encode())


def only_sound(path: Path) -> str:
    """A file with sound and no video."""
    with av.open(str(path), "w") as output:
        clip = Clip(audio="aac", audio_seconds=0.3)
        _write_audio(output, _add_audio(output, clip), clip)
    return str(path)


def sound_with_cover(path: Path) -> str:
    """Sound and a picture of its cover, which is no video."""
    with av.open(str(path), "w") as output:
        clip = Clip(audio="aac", audio_seconds=0.3)
        cover = add_cover(output)
        audio = _add_audio(output, clip)
        mux_cover(output, cover)
        _write_audio(output, audio, clip)
    return str(path)


def add_cover(output: Any) -> Any:
    cover: Any = output.add_stream("png", rate=1)
    cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
    cover.disposition = av.stream.Disposition.attached_pic
    return cover


def mux_cover(output: Any, cover: Any) -> None:
    for packet in cover.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 77, np.uint8), "rgb24")):
        packet.pts = packet.dts = 0
        output.mux(packet)


def shuffled(path: Path, pts: Sequence[int]) -> str:
    """An mkv of marked pictures with these times in ms, in this order, which no encoder would write."""
    with av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as output:
        stream = _add_video(output, Clip(codec="mjpeg", pixels="yuvj420p", rate=Fraction(25)))
        for number, time in enumerate(pts):
            picture = av.VideoFrame.from_ndarray(marked(number), "rgb24").reformat(format="yuvj420p")
            picture.pts, picture.time_base = number, stream.codec_context.time_base
            for packet in stream.encode(picture):
                # Matroska does not store dts; so they may be anything that the muxer accepts.
                packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), time, number - len(pts)
                output.mux(packet)
    return str(path)


def truncated(path: str, share: float) -> str:
    """Leaves only the first ``share`` of a file."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])
    return path


def packets(path: str, kind: str = "audio") -> list[tuple[Fraction, bytes]]:
    """Times in seconds and contents of all packets of the streams of a kind."""
    with av.open(path) as file:
        streams = [stream for stream in file.streams if stream.type == kind]
        found: Any = file.demux(streams) if streams else ()
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in found if packet.size]
