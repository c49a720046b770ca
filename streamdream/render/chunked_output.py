"""Outputs that are made of chunks: how a chunk is encoded, and how all of them are joined into the output."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streamdream.media.images import WRITABLE
from streamdream.media.input_container import is_pattern
from streamdream.media.sinks.chunks import ChunkEncoder, ChunkFile, ChunkFormat, join_chunks
from streamdream.media.sinks.encoders import CONTAINERS
from streamdream.media.sinks.image_sequence import ImageFolder, join_folders
from streamdream.media.sinks.picture_clock import PictureClock, new_clock
from streamdream.media.sinks.picture_format import PictureFormat
from streamdream.media.sinks.video import describe_moved_pictures
from streamdream.media.sinks.video_encoder import to_video_frame
from streamdream.media.sinks.video_output import VideoOutput

if TYPE_CHECKING:

    from streamdream.media.frame import Picture
    from streamdream.media.sources.video import Source
    from streamdream.render.job import RenderJob
    from streamdream.render.plan import Chunk
    from streamdream.render.work_folder import WorkFolder

BeforeCommit = Callable[[Path | None], None]
"""Called just before the output gets its name, with the path that it has until then, if it is one file."""


class ChunkedOutput(Protocol):
    """The output of a render that can be resumed."""

    suffix: str
    """Of the file or the folder of a chunk."""
    joins_in_place: bool
    """Whether a part of the output may have its name when the joining ends early, as it is many files."""

    def check(self) -> list[str]:
        """Try whether the output can be written; return its warnings. Raises as ``VideoOutput`` does."""

    def prepare(self, image: Picture) -> Any:
        """Make what ``ChunkFile.add`` takes of an image, which is copied, or of a PyAV frame."""

    def open_chunk(self, path: Path, chunk: Chunk, recipe: str) -> ChunkFile:
        """Begin the file of a chunk; ``recipe`` is for its metadata."""

    def new_clock(self) -> PictureClock:
        """The clock of the output, at its start."""

    def join(self, folder: WorkFolder, clock: PictureClock, before_commit: BeforeCommit, recipe: str) -> list[str]:
        """Join all chunks of the plan; return warnings. ``clock`` has counted all pictures. Raises SinkError."""


def chunked_output(job: RenderJob, source: Source) -> ChunkedOutput | None:
    """Return the output of the job; None for one that is no file."""
    suffix = Path(job.output).suffix.lower()
    if suffix in WRITABLE and is_pattern(job.output):
        return ChunkedPictures(job, source)
    return ChunkedVideo(job, source) if suffix in CONTAINERS else None


class ChunkedVideo:
    """A video file. A chunk is a file with some of its packets."""

    suffix, joins_in_place = ".nut", False

    def __init__(self, job: RenderJob, source: Source) -> None:
        self._job, self._source = job, source
        self._kind = CONTAINERS[Path(job.output).suffix.lower()]
        self._format = ChunkFormat.of(self._kind, source, job.run.render)

    def check(self) -> list[str]:
        output = self._open_output("")
        output.discard()
        return output.warnings

    def prepare(self, image: Picture) -> Any:
        return to_video_frame(image)

    def open_chunk(self, path: Path, chunk: Chunk, recipe: str) -> ChunkFile:
        return ChunkEncoder(path, self._source, self._format)

    def new_clock(self) -> PictureClock:
        return new_clock(self._kind, self._source, self._job.run.render)

    def join(self, folder: WorkFolder, clock: PictureClock, before_commit: BeforeCommit, recipe: str) -> list[str]:
        chunks, output = folder.chunks_done(), self._open_output(recipe)
        try:
            join_chunks(output, [(folder.file(chunk), folder.load_times(chunk)) for chunk in chunks],
                        self._format.one_pass, chunks[-1].end_pts)
            before_commit(output.partial.path)
            output.commit()
        except BaseException as error:
            output.discard()
            if isinstance(error, Exception):
                output.partial.raise_error(error)
            raise
        return [*output.warnings, *describe_moved_pictures(clock, self._job.output)]

    def _open_output(self, recipe: str) -> VideoOutput:
        job = self._job
        return VideoOutput(job.output, self._source, job.run.render, job.input, job.overwrite, recipe=lambda: recipe)


class ChunkedPictures:
    """A numbered sequence of pictures. A chunk is a folder with some of them."""

    suffix, joins_in_place = ".pictures", True

    def __init__(self, job: RenderJob, source: Source) -> None:
        self._job, self._source = job, source
        self._format = PictureFormat.of(job.output, source, job.run.render)

    def check(self) -> list[str]:
        return list(self._format.warnings)

    def prepare(self, image: Picture) -> Any:
        return self._format(image)

    def open_chunk(self, path: Path, chunk: Chunk, recipe: str) -> ChunkFile:
        return ImageFolder(path, self._job.output, chunk.first_frame + 1, recipe)

    def new_clock(self) -> PictureClock:
        return PictureClock(self._source.time_base, False)

    def join(self, folder: WorkFolder, clock: PictureClock, before_commit: BeforeCommit, recipe: str) -> list[str]:
        before_commit(None)
        return [*self._format.warnings,
                *join_folders(self._job.output, [folder.file(chunk) for chunk in folder.chunks_done()],
                              self._job.overwrite)]
