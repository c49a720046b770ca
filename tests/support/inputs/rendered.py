"""A render that was run, and its output as players see it."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rendered:
    """What a command made of ``source``; properties read ``output`` once."""

    source: Path | str
    output: Path | str
    code: int = 0
    stderr: str = ""

    @cached_property
    def frames(self) -> list[Any]:
        """All pictures, decoded, as they are stored."""
        with opened(self.output) as file:
            return list(file.decode(video=0))

    @cached_property
    def seconds(self) -> list[float]:
        """Times of the pictures."""
        return [float(frame.pts * frame.time_base) for frame in self.frames]

    @cached_property
    def stream(self) -> dict[str, Any]:
        """Facts of the video stream."""
        with opened(self.output) as file:
            video = file.streams.video[0]
            return {"rate": video.average_rate, "aspect": video.sample_aspect_ratio or Fraction(1),
                    "tick": float(video.time_base), "codec": video.codec_context.name,
                    "tag": video.codec_context.codec_tag, "metadata": {**file.metadata, **video.metadata},
                    "streams": [stream.type for stream in file.streams], "chapters": file.chapters()}

    @property
    def said(self) -> list[str]:
        """Lines on stderr, but for the title; the names of the files are none of the words."""
        text = self.stderr.replace(str(self.output), "OUTPUT").replace(str(self.source), "INPUT")
        return [line for line in text.splitlines() if "→" not in line]

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.said if line.startswith("warning: ")]


@contextmanager
def opened(path: Path | str) -> Iterator[Any]:
    with av.open(str(path)) as file:
        yield file


def packets(path: Path | str, kind: str) -> list[list[tuple[float, float, bytes]]]:
    """Of each stream of a kind: times and durations in s, and contents, of all packets."""
    with opened(path) as file:
        found: dict[int, list[tuple[float, float, bytes]]] = {
            stream.index: [] for stream in file.streams if stream.type == kind and stream.codec_context is not None}
        streams = [file.streams[index] for index in found]
        for packet in file.demux(streams) if streams else ():
            if packet.size and packet.pts is not None:
                tick = float(packet.time_base)
                found[packet.stream.index].append((packet.pts * tick, (packet.duration or 0) * tick, bytes(packet)))
        return list(found.values())


def sounds(path: Path | str) -> list[tuple[str, float, float, NDArray[np.float32]]]:
    """Of each sound stream: codec, start and length in s, and its samples, one channel, decoded."""
    with opened(path) as file:
        names = [stream.codec_context.codec.canonical_name for stream in file.streams.audio if stream.codec_context]
    return [(name, *_decoded(path, number)) for number, name in enumerate(names)]


def _decoded(path: Path | str, number: int) -> tuple[float, float, NDArray[np.float32]]:
    parts: list[NDArray[np.float32]] = []
    start, rate = 0.0, 1
    with opened(path) as file:
        resampler = av.AudioResampler("fltp", "mono")
        for frame in file.decode(audio=number):
            if not parts:
                start, rate = float((frame.pts or 0) * frame.time_base), frame.sample_rate
            parts += [resampled.to_ndarray()[0] for resampled in resampler.resample(frame)]
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return start, len(samples) / rate, samples


def tone(samples: NDArray[np.float32], seconds: float) -> float:
    """The strongest frequency in Hz; 0 where there is no sound."""
    if not len(samples):
        return 0.0
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum[2:].argmax() + 2) / seconds
