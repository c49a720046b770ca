"""Makes films with all kinds of sound and subtitles, and hears what is in a file."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamdream.media.pyav import fraction

HEARD_RATE = 16_000
FRAMES, RATE = 30, 25


@dataclass(frozen=True)
class Track:
    """A sound track: a tone that rises, so that each moment sounds different."""

    codec: str
    rate: int = 44_100
    layout: str = "mono"
    seconds: float = FRAMES / RATE
    start: float = 0.0
    language: str = ""


def tone(seconds: float, rate: int) -> NDArray[np.float64]:
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (200 * time + 300 * time**2)) * (0.3 + 0.7 * (time * 7 % 1 > 0.5))


def film(path: Path, *tracks: Track, texts: Sequence[tuple[int, int, str]] = (), text_codec: str = "subrip",
         video_codec: str = "mpeg4") -> str:
    """A video of 1.2 s with these sound tracks and texts (start and end in ms, ASS text)."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream(video_codec, rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = [_add_sound(output, track) for track in tracks]
        text: Any = output.add_stream(text_codec) if texts else None
        if text is not None:
            text.time_base = text.codec_context.time_base = Fraction(1, 1000)
            text.codec_context.subtitle_header = ass_header()
        output.start_encoding()
        for number in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8), "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            output.mux(video.encode(picture))
        output.mux(video.encode())
        for track, sound in zip(tracks, sounds, strict=True):
            _write_sound(output, track, sound)
        for order, (start, end, line) in enumerate(texts):
            _write_text(output, text, order, start, end, line)
    return str(path)


def ass_header() -> bytes:
    decoder: Any = av.CodecContext.create("subrip", "r")
    decoder.open()
    return bytes(decoder.subtitle_header)


def _add_sound(output: Any, track: Track) -> Any:
    stream = output.add_stream(track.codec, rate=track.rate, options={"strict": "-2"})
    stream.codec_context.layout = track.layout
    if track.language:
        stream.metadata["language"] = track.language
    if track.codec.startswith("wma"):
        stream.codec_context.bit_rate = 96_000
    stream.codec_context.open(strict=False)
    return stream


def _write_sound(output: Any, track: Track, stream: Any) -> None:
    context = stream.codec_context
    channels, samples = context.layout.nb_channels, tone(track.seconds, track.rate)
    silent = np.zeros_like(samples)
    size, offset = context.frame_size or 1024, round(track.start * track.rate)
    planes = np.stack([samples, *[silent] * (channels - 1)]).astype(np.float32)
    resampler = av.AudioResampler(context.format, context.layout, track.rate)
    for place in range(0, len(samples), size):
        part = np.ascontiguousarray(planes[:, place: place + size])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=track.layout)
        frame.sample_rate, frame.pts, frame.time_base = track.rate, place + offset, Fraction(1, track.rate)
        for each in resampler.resample(frame):
            output.mux(stream.encode(each))
    output.mux(stream.encode())


def _write_text(output: Any, stream: Any, order: int, start: int, end: int, line: str) -> None:
    from av.subtitles.subtitle import SubtitleSet

    entry = f"{order},0,Default,,0,0,0,,{line}".encode()
    packet: Any = stream.codec_context.encode_subtitle(SubtitleSet.create(entry, 0, end - start, start * 1000))
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts, packet.dts, packet.duration = start, start, end - start
    output.mux(packet)


def hear(path: Path | str, number: int = 0) -> NDArray[np.float32]:
    """The first channel of a sound track from time 0 on, as a player gives it, at ``HEARD_RATE``."""
    with av.open(str(path)) as file:
        starts_late = file.format.name in ("mpeg", "mpegts")
        start = Fraction(file.start_time or 0, 1_000_000) if starts_late else Fraction(0)
        resampler = None
        parts: list[Any] = []
        for frame in file.decode(audio=number):
            if resampler is None:
                options = {"async": "1", "min_hard_comp": "0.002", "first_pts": "0"}
                resampler = av.AudioResampler("fltp", frame.layout, HEARD_RATE, options=options)
            frame.pts = frame.pts and frame.pts - round(start / fraction(frame.time_base))
            parts += resampler.resample(frame)
        parts += resampler.resample(None) if resampler else []
    return np.concatenate([part.to_ndarray()[0] for part in parts] or [np.zeros(0, np.float32)])


def delay_of(sound: NDArray[np.float32], original: NDArray[np.float32]) -> float:
    """By how many seconds a sound is late."""
    size = 2 * max(len(sound), len(original))
    product = np.fft.rfft(original, size).conj() * np.fft.rfft(sound, size)
    place = int(np.argmax(np.fft.irfft(product, size)))
    return (place if place < size // 2 else place - size) / HEARD_RATE


def codecs(path: Path | str, kind: str = "audio") -> list[str]:
    with av.open(str(path)) as file:
        return [stream.codec_context.codec.canonical_name for stream in file.streams if stream.type == kind]


def texts_of(path: Path | str) -> list[tuple[float, float, str]]:
    """Start and end in seconds, and text, of all subtitles of a file."""
    found: list[tuple[float, float, str]] = []
    with av.open(str(path)) as file:
        stream: Any = file.streams.subtitles[0]
        for packet in file.demux(stream):
            for subtitle in stream.decode(packet) if packet.size else ():
                start, end = (float(time * packet.time_base) for time in (packet.pts, packet.pts + packet.duration))
                found.append((round(start, 3), round(end, 3), subtitle.dialogue.decode()))
    return found
