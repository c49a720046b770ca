"""Films of known shots, of the clip and the photograph that come with streamdream."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice

import numpy as np

from streamdream.media.pyav import open_av
from streamdream.media.sample_files import CLIP, sample_file

from . import clips
from .metrics import Picture

RATE = 24
CLIP_FRAMES = 100


def write_film(path: str, shots: Sequence[int], height: int, width: int, crf: int = 18) -> None:
    """Write shots of so many frames as H.264, at ``RATE``; each is unlike the one before it."""
    import av

    with open_av(path, "w") as film:
        stream = film.add_stream("libx264", rate=RATE, width=width, height=height, pix_fmt="yuv420p",
                                 options={"crf": str(crf), "preset": "veryfast"})
        for number, picture in enumerate(pictures(shots, height, width)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))


def pictures(shots: Sequence[int], height: int, width: int) -> Iterator[Picture]:
    """The clip, to and fro, and the photograph, upside down, in turn."""
    clip = clips.read(str(sample_file(CLIP)), CLIP_FRAMES, height, width)
    there_and_back = [*clip, *clip[-2:0:-1]]
    photograph = list(islice(clips.other_shot(CLIP_FRAMES, height, width), CLIP_FRAMES))
    upside_down = [picture[::-1] for picture in [*photograph, *photograph[-2:0:-1]]]
    for number, frames in enumerate(shots):
        pool = upside_down if number % 2 else there_and_back
        for index in range(frames):
            yield pool[(7 * number + index) % len(pool)]
