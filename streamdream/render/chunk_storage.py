"""How the chunks of an output are stored, and how they become it: packets of a video, or files of a sequence."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.media.images import WRITABLE
from streamdream.media.input_container import is_pattern
from streamdream.media.sinks.chunks import ChunkEncoder, ChunkFile, ChunkFormat, join_chunks
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sinks.image_sequence import ImageFolder, join_folders, to_bgr
from streamdream.media.sinks.video import describe_moved_pictures
from streamdream.media.sinks.video_encoder import PictureClock, copy_picture, new_clock
from streamdream.media.sinks.video_output import VideoOutput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamdream.media.sources.video import Source
    from streamdream.render.job import RenderJob
    from streamdream.render.plan import Chunk
    from streamdream.render.work_folder import WorkFolder


@dataclass(frozen=True)
class ChunkStorage:
    """``prepare`` copies one picture [H, W, 3] RGB, ``open`` begins a chunk, ``join`` makes the output of all of them.

    ``open`` and ``join`` get the recipe for the metadata; ``join`` also the folder, the clock after the last picture,
    and a function that it calls just before the output gets its name, with the path that it has until then, if it is
    one file. It returns warnings. ``check`` tries whether the output can be written.
    """

    suffix: str
    prepare: Callable[[NDArray[np.uint8]], Any]
    open: Callable[[Path, Chunk, str], ChunkFile]
    new_clock: Callable[[], PictureClock]
    check: Callable[[], None]
    join: Callable[[WorkFolder, PictureClock, Callable[[Path | None], None], str], list[str]]
    joins_in_place: bool = False
    """Whether the output may be half there when the joining ends early, as many files are."""


def chunk_storage(job: RenderJob, source: Source) -> ChunkStorage | None:
    """The storage for the output of the job; None for one that is no file. Raises as ``VideoOutput`` does."""
    suffix = Path(job.output).suffix.lower()
    if suffix in WRITABLE and is_pattern(job.output):
        return _image_storage(job, source)
    return _video_storage(job, source) if suffix in CONTAINERS else None


def _video_storage(job: RenderJob, source: Source) -> ChunkStorage:
    kind, settings = CONTAINERS[Path(job.output).suffix.lower()], job.run.render
    chunk_format = ChunkFormat.of(kind, settings)

    def open_output(recipe: str) -> VideoOutput:
        return VideoOutput(job.output, source, settings, job.input, job.overwrite, recipe=lambda: recipe)

    def join(folder: WorkFolder, clock: PictureClock, before_commit: Callable[[Path | None], None], recipe: str
             ) -> list[str]:
        chunks, output = folder.chunks_done(), open_output(recipe)
        try:
            join_chunks(output, [(folder.file(chunk), folder.load_record(chunk.state_file).times) for chunk in chunks],
                        chunk_format.one_pass, chunks[-1].end_pts)
            before_commit(output.partial.path)
            output.commit()
        except BaseException as error:
            output.discard()
            if isinstance(error, Exception):
                output.partial.raise_error(error)
            raise
        return [*output.warnings, *describe_moved_pictures(clock, job.output)]

    return ChunkStorage(".nut", copy_picture, lambda path, chunk, recipe: ChunkEncoder(path, source, chunk_format),
                        lambda: new_clock(kind, source, settings), lambda: open_output("").discard(), join)


def _image_storage(job: RenderJob, source: Source) -> ChunkStorage:
    def open_folder(path: Path, chunk: Chunk, recipe: str) -> ChunkFile:
        return ImageFolder(path, job.output, chunk.first_frame + 1, recipe)

    def join(folder: WorkFolder, clock: PictureClock, before_commit: Callable[[Path | None], None], recipe: str
             ) -> list[str]:
        paths: Sequence[Path] = [folder.file(chunk) for chunk in folder.chunks_done()]
        before_commit(None)
        return join_folders(job.output, paths, job.overwrite)

    return ChunkStorage(".pictures", to_bgr, open_folder, lambda: PictureClock(source.time_base, False),
                        lambda: None, join, joins_in_place=True)
