"""Write the pictures of a file to another one as they are decoded, as a render without a dream does."""
from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from streamdream.media.planes import component_views, to_planar
from streamdream.media.sinks.chunks import ChunkEncoder, ChunkFormat, join_chunks
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sinks.picture_clock import new_clock
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sinks.video_output import VideoOutput
from streamdream.media.sources.video import open_source
from streamdream.settings import RenderSettings

HLG = (9, 9, 18, 1)
"""Matrix, primaries, transfer and range."""


def copy_pictures(name: str, path: Path, **settings: Any) -> list[str]:
    """In one pass; returns the warnings."""
    with open_source(name) as source:
        source.deliver_pictures(source.height, source.width)
        with open_sink(str(path), source, RenderSettings(**settings), True) as sink:
            for frame in source:
                sink.write(frame.picture, frame)
    return sink.warnings


def copy_in_chunks(name: str, path: Path, chunk_frames: int = 12, **settings: Any) -> list[str]:
    """As chunks, which are joined; returns the warnings."""
    kind, render = CONTAINERS[path.suffix], RenderSettings(**settings)
    with open_source(name) as source:
        source.deliver_pictures(source.height, source.width)
        chunk_format, clock = ChunkFormat.of(kind, source, render), new_clock(kind, source, render)
        frames = [(clock(frame.pts * Fraction(*frame.time_base)), frame.picture) for frame in source]
        ends = [*(pts for pts, _ in frames), clock.end(source)]
        chunks = []
        for number in range(math.ceil(len(frames) / chunk_frames)):
            start, stop = number * chunk_frames, min((number + 1) * chunk_frames, len(frames))
            chunk = path.with_name(f"chunk{number}.nut")
            encoder = ChunkEncoder(chunk, source, chunk_format)
            for pts, picture in frames[start:stop]:
                encoder.add(picture, pts)
            chunks.append((chunk, encoder.finish(ends[stop])))
        output = VideoOutput(str(path), source, render, overwrite=True)
        join_chunks(output, chunks, chunk_format.one_pass, ends[-1])
        output.commit()
    return output.warnings


def decoded(path: Path | str) -> list[Any]:
    """All pictures as PyAV decodes them."""
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def samples(picture: Any) -> list[NDArray[Any]]:
    return [view.copy() for view in component_views(to_planar(picture, VideoReformatter().reformat))]


def same_samples(first: Any, second: Any) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(samples(first), samples(second), strict=True))


def durations(path: Path | str) -> list[Fraction]:
    """Of each packet of the video, in seconds."""
    with av.open(str(path)) as file:
        found: Any = file.demux(video=0)
        return [packet.duration * packet.time_base for packet in found if packet.size]


def half_clear(folder: Path, pixels: str) -> str:
    """Red, but for the left half, which is transparent."""
    path = folder / "alpha.mkv"
    image = np.full((48, 64, 4), (255, 0, 0, 255), np.uint8)
    image[:, :32, 3] = 0
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for number in range(3):
            picture = av.VideoFrame.from_ndarray(image, "rgba").reformat(format=pixels)
            picture.pts = number
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return str(path)
