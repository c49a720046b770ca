"""Is there room for a render? Chunks and result exist together while the chunks are joined."""
from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import SinkError
from streamdream.media.images import WRITABLE
from streamdream.media.input_container import is_pattern
from streamdream.media.sinks.chunks import LOSSLESS_CODEC, ONE_PASS_CODECS
from streamdream.media.sinks.encoders import CONTAINERS, find_codec
from streamdream.system.sizes import describe_bytes

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source
    from streamdream.render.job import RenderJob

MIN_FREE_BYTES = 1_000_000
"""With less, a render that needs more is not begun."""
MIN_BITS_PER_PIXEL = {"libx264": 0.13, "libx265": 0.11, "libsvtav1": 0.1, "libvpx-vp9": 0.15, "gif": 3.0,
                      LOSSLESS_CODEC: 3.0}
"""Two thirds of the least that dreams took with ``--crf`` up to ``REFERENCE_CRF``; figures:
docs/notebook/2026-11-27-forecast-of-a-render.md.
"""
OTHER_BITS_PER_PIXEL = 0.1
PICTURE_BITS_PER_PIXEL = {".png": 6.5, ".jpg": 1.2, ".jpeg": 1.2, ".webp": 0.9, ".tif": 8.0, ".tiff": 8.0}
REFERENCE_CRF, CRF_FOR_HALF = 18, 4.5
MAX_GROWTH = 5
"""A lossy result is taken to be no larger than so many times its input, which may hold little but a still picture."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a render takes at its end, in the folder of its chunks and in that of its result."""

    work_folder: Path
    work_bytes: int
    result_folder: Path
    result_bytes: int

    def by_disk(self) -> Iterator[tuple[Path, int, int]]:
        """(folder, bytes needed, bytes free) of each file system; nothing where a folder does not exist."""
        needs: dict[int, tuple[Path, int]] = {}
        for folder, size in ((self.result_folder, self.result_bytes), (self.work_folder, self.work_bytes)):
            if folder.is_dir():
                device = folder.stat().st_dev
                first, sum_so_far = needs.get(device, (folder, 0))
                needs[device] = first, sum_so_far + size
        for folder, size in needs.values():
            yield folder, size, shutil.disk_usage(folder).free


def least_need(job: RenderJob, source: Source, work_path: Path | None, frames_done: int) -> DiskNeed:
    """A cheap lower estimate, without a sample; all of it 0 where the length is unknown. ``work_path`` is None for a
    render in one pass.
    """
    bits, result_bits = _least_bits_per_pixel(job)
    frames, frame_bytes = source.frame_count, source.width * source.height / 8
    chunk_bytes, result_bytes = frames * frame_bytes * bits, frames * frame_bytes * result_bits
    if bits < 1 and Path(job.input).is_file():
        most = MAX_GROWTH * Path(job.input).stat().st_size
        chunk_bytes, result_bytes = min(chunk_bytes, most), min(result_bytes, most)
    folder = Path(job.output).absolute().parent
    if work_path is None:
        return DiskNeed(folder, 0, folder, int(result_bytes))
    if is_pattern(job.output):  # chunks become the result by links
        result_bytes = 0.0
    missing = 1 - frames_done / frames if frames > frames_done else 0.0
    return DiskNeed(work_path.parent, int(missing * chunk_bytes), folder, int(result_bytes))


def check_space(job: RenderJob, source: Source, work_path: Path | None = None, frames_done: int = 0) -> None:
    """Warn where the disk will probably be full. Raises SinkError where it is full already."""
    for folder, needed, free in least_need(job, source, work_path, frames_done).by_disk():
        if needed > free and free < MIN_FREE_BYTES:
            raise SinkError(f"no space left in {folder} for {job.output}: {describe_bytes(free)} are free")
        if needed > free:
            log.warning("%s has %s free, and %s will need about %s there; --work-folder puts the unfinished half "
                        "elsewhere", folder, describe_bytes(free), job.output, describe_bytes(needed))


def _least_bits_per_pixel(job: RenderJob) -> tuple[float, float]:
    """Of chunks, and of the result."""
    suffix = Path(job.output).suffix.lower()
    if suffix in WRITABLE:
        return PICTURE_BITS_PER_PIXEL[suffix], PICTURE_BITS_PER_PIXEL[suffix]
    if suffix not in CONTAINERS:
        return 0.0, 0.0
    codec = find_codec(job.run.render.codec, CONTAINERS[suffix]).name
    least = MIN_BITS_PER_PIXEL.get(codec, OTHER_BITS_PER_PIXEL)
    if codec not in (*ONE_PASS_CODECS, LOSSLESS_CODEC):
        least *= math.pow(2, -max(job.run.render.crf - REFERENCE_CRF, 0) / CRF_FOR_HALF)
    return MIN_BITS_PER_PIXEL[LOSSLESS_CODEC] if codec in ONE_PASS_CODECS else least, least
