"""Render a job by its plan in this process, with interruptions, and compare outputs frame by frame."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamdream import settings
from streamdream.media.input_container import is_pattern, sequence_files
from streamdream.media.opencv import cv2
from streamdream.render.file_render import PlanOptions, render_file
from streamdream.render.job import RenderJob
from streamdream.render.report import RenderReport
from streamdream.render.work_folder import WorkFolder, default_path

SMALL = {"field_height": "48", "layers": "conv2d_3", "octaves": "1", "steps": "1", "warmup_steps": "1",
         "backend": "eager", "precision": "fp32", "threads": "1", "chunk_frames": "8"}
"""Settings with which a frame takes a few milliseconds."""


class Interruption(Exception):
    """Ends a render as Ctrl-C does in the loop."""


@dataclass
class Watcher:
    """The observer of a render; ends it at the first frame that is number ``stop_at`` or later."""

    stop_at: int = 0
    done_before: int = -1
    frames: list[int] = field(default_factory=list)

    def scanned(self, frames: int, total_frames: int) -> None: ...

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None, rate: float) -> None:
        self.done_before = done_frames

    def frame(self, done_frames: int) -> None:
        self.frames.append(done_frames)
        if self.stop_at and done_frames >= self.stop_at:
            raise Interruption


def job(name: str | Path, output: str | Path, **flags: Any) -> RenderJob:
    """A small render; ``flags`` are settings by name, as texts, and other fields of the job."""
    fields = {key: flags.pop(key) for key in ("overwrite", "settings_track", "record_settings") if key in flags}
    return RenderJob(str(name), str(output), settings.resolve(SMALL | flags, {}), **fields)


def render(the_job: RenderJob, stop_at: int = 0, restart: bool = False, work_folder: str = "") -> RenderReport | None:
    """Carry out the job; None when it was interrupted at frame ``stop_at``."""
    watcher = Watcher(stop_at)
    try:
        return render_file(the_job, PlanOptions(restart, work_folder), watcher)
    except Interruption:
        return None


def render_with_stops(the_job: RenderJob, stops: Sequence[int]) -> RenderReport:
    """Carry out the job with an interruption at each of these frames, in ascending order."""
    for stop_at in stops:
        assert render(the_job, stop_at) is None, f"it ended before frame {stop_at}"
    report = render(the_job)
    assert report is not None
    return report


def folder_of(the_job: RenderJob) -> Path:
    return default_path(the_job.output, "")


@dataclass(frozen=True)
class Shown:
    """A decoded frame."""

    pts_seconds: Fraction
    image: NDArray[np.uint8]


def decoded(path: str | Path) -> list[Shown]:
    with av.open(str(path)) as file:
        frames: Any = file.decode(video=0)
        return [Shown(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in frames]


def packet_times(path: str | Path) -> list[tuple[Any, Any, Any, bool]]:
    """Of each packet of the video: pts, dts, duration in ticks, and whether it is a keyframe."""
    with av.open(str(path)) as file:
        return [(packet.pts, packet.dts, packet.duration, packet.is_keyframe)
                for packet in file.demux(file.streams.video[0]) if packet.size]


def assert_same(first: str | Path, second: str | Path) -> None:
    """Both hold the same frames at the same times, bit for bit."""
    if is_pattern(str(first)):
        pictures = [[file.read_bytes() for _, file in sorted(sequence_files(str(path)).items())]
                    for path in (first, second)]
        assert pictures[0] == pictures[1]
        return
    before, after = decoded(first), decoded(second)
    assert [frame.pts_seconds for frame in before] == [frame.pts_seconds for frame in after]
    assert [row[2] for row in sorted(packet_times(first))] == [row[2] for row in sorted(packet_times(second))]
    different = [number for number, (a, b) in enumerate(zip(before, after, strict=True))
                 if not np.array_equal(a.image, b.image)]
    assert different == [], f"of {len(before)} frames these differ: {different}"


def moving(count: int, size: tuple[int, int] = (96, 72), cut_at: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Pictures of one texture that moves by two pixels each, without a cut, or with one before picture ``cut_at``."""
    random = np.random.default_rng(5)
    width, height = size
    scene = random.integers(0, 256, (height, width + 2 * count, 3), np.uint8)
    scene = cv2().GaussianBlur(scene, (0, 0), 2) * 3.0 - 256
    texture = np.clip(scene, 0, 255).astype(np.uint8)
    for number in range(count):
        if number == cut_at:
            texture = np.ascontiguousarray(255 - texture[::-1]) if number else texture
        yield np.ascontiguousarray(texture[:, 2 * number: 2 * number + width])


Frames = list[tuple[int | None, bytes]]
"""Time and samples of each frame."""


def make_shots(path: Path, shot_frames: Sequence[int]) -> Path:
    """Write a lossless film of shots of so many frames, 96x64 at 25/s, each a texture that moves."""
    random, number = np.random.default_rng(0), 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "bgr0"
        for frames in shot_frames:
            texture = np.kron(random.integers(0, 255, (24, 32, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            for shift in range(frames):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[shift:shift + 64, shift:shift + 96]))
                picture.pts, picture.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(picture))
                number += 1
        container.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return [(frame.pts, frame.to_ndarray(format="rgb24").tobytes()) for frame in container.decode(video=0)]
