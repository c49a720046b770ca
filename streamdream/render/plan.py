"""What a render is going to do, as data: its inputs, its settings, and its chunks.

A plan is one JSON file. Whoever has it can carry out the render, or the rest of it: the same command after an
interruption, worker processes, other machines. It carries a digest of itself, so a file that was edited is noticed.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from streamdream.errors import StreamdreamError, UsageError

FORMAT = "streamdream render plan 1"
STATE_NONE, STATE_CUT, STATE_WARM_UP = "none", "cut", "warm-up"
"""Values of ``Chunk.state_before``; any other is the name of a state file."""
NAMES = {"settings": "", "files": "", "versions": "version of "}
"""How parts of an identity are named before what is in them."""

SEAMS = {
    "exact": "split at scene cuts only: the same frames as by one worker",
    "warm-up": "split long shots, too, with a crossfade at each seam",
}


class DamagedPlan(StreamdreamError):
    """The plan cannot be used; ``str`` says why."""


class OtherIdentity(UsageError):
    """The plan is of another input, or of other settings, weights or versions."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames that become one whole file."""

    number: int
    first_frame: int
    """Index of the first frame, from the start of the render."""
    from_pts: int
    """Time of the first frame, in ticks of the source since the start of the output."""
    position: list[Any] | None
    """Position of the first frame in the source: ``SourcePosition.to_json``."""
    checksum: int
    """Checksum of the picture of the first frame."""
    state_before: str
    """The state that the first frame is dreamed from: one of ``STATE_*``, or the name of a state file."""
    blend: str = ""
    """Name of the file with the residuals that fade in over the chunk, at a seam within a shot; see ``seams.py``."""
    frames: int = 0
    cuts: int = 0
    """Number of scene cuts in the chunk, its start included."""
    end_pts: int = 0
    """End of the last picture, in ticks of the encoder."""
    bytes: int = 0
    """Size of the chunk's file and of the state after it."""
    sha256: str = ""
    """Digest of both files; empty until they are whole."""

    @property
    def done(self) -> bool:
        return self.sha256 != ""

    @property
    def begins_anew(self) -> bool:
        """Whether nothing is carried into it from the chunk before."""
        return self.state_before in (STATE_NONE, STATE_CUT, STATE_WARM_UP)

    @property
    def name(self) -> str:
        return f"chunk-{self.number:05d}"

    @property
    def state_file(self) -> str:
        """Holds the state after it, and the times of its frames."""
        return f"{self.name}.safetensors"


@dataclass(frozen=True)
class RenderPlan:
    """``identity`` is what two runs must share so that one resumes the other; see ``identity.py``.

    ``chunks`` are in order. Without a scan of the source, the end of the last one is not known yet, nor whether another
    follows.
    """

    identity: dict[str, Any]
    job: dict[str, Any]
    """``RenderJob.to_json``: what a worker process needs in addition."""
    time_base: tuple[int, int]
    """One tick of the source, in seconds."""
    chunk_frames: int
    chunks: tuple[Chunk, ...] = ()
    frames: int = 0
    """Number of all frames; 0 until the end of the source is known."""
    warnings: tuple[str, ...] = ()
    times_sha256: str = ""
    """Digest of the times of all frames, where the source was read before the render."""
    result: dict[str, int] | None = None
    """Size and inode of the joined file, before it gets its name."""

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return self.frames > 0 and all(chunk.done for chunk in self.chunks)

    @property
    def frames_done(self) -> int:
        return sum(chunk.frames for chunk in self.chunks if chunk.done)

    def with_chunk(self, chunk: Chunk) -> RenderPlan:
        """With that chunk in place of the one of its number, or added."""
        chunks = dict(enumerate(self.chunks)) | {chunk.number: chunk}
        return replace(self, chunks=tuple(chunks[number] for number in sorted(chunks)))

    def next_chunk(self, chunk: Chunk) -> Chunk | None:
        return self.chunks[chunk.number + 1] if chunk.number + 1 < len(self.chunks) else None

    def count_frames(self, chunks: tuple[Chunk, ...]) -> int:
        """Return the number of frames of chunks in a row, of a plan that knows the end of the source."""
        following = self.next_chunk(chunks[-1])
        return (following.first_frame if following else self.frames) - chunks[0].first_frame

    def is_last_of_chunk(self, chunk: Chunk, frame: int) -> bool:
        """Whether the chunk ends with the frame of that index."""
        following = self.next_chunk(chunk)
        end = following.first_frame if following else chunk.first_frame + self.chunk_frames
        return frame + 1 == end

    def missing_ranges(self) -> Iterator[tuple[Chunk, ...]]:
        """Chunks to do, in runs: each begins from nothing or from a state that is there, and goes on from itself."""
        run: list[Chunk] = []
        for chunk in self.chunks:
            if run and (chunk.done or chunk.blend or chunk.begins_anew):
                yield tuple(run)
                run = []
            if not chunk.done:
                run.append(chunk)
        if run:
            yield tuple(run)

    def to_json(self) -> str:
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps({**values, "digest": _digest(values)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RenderPlan:
        """Raises DamagedPlan."""
        try:
            values = json.loads(text)
            if values.pop("digest") != _digest(values):
                raise DamagedPlan("it was changed")
            if values.pop("format") != FORMAT:
                raise DamagedPlan("another version of streamdream made it")
            chunks = tuple(Chunk(**chunk) for chunk in values.pop("chunks"))
            return cls(chunks=chunks, warnings=tuple(values.pop("warnings")), time_base=tuple(values.pop("time_base")),
                       **values)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedPlan("it is cut short, or no plan at all") from None


def warm_up_file(number: int) -> str:
    """The file of the residuals that the warm-up of the chunk of that number leaves."""
    return f"warm-up-{number:05d}.safetensors"


def check_identity(stored: Mapping[str, Any], current: Mapping[str, Any], output: str) -> None:
    """Raises OtherIdentity, with what differs, where a plan of ``stored`` cannot be resumed."""
    if found := list(differences(stored, current)):
        raise OtherIdentity(f"{output} is half rendered with something else: {'; '.join(found[:3])}; --restart starts "
                            "over")


def differences(stored: Any, current: Any, name: str = "") -> Iterator[str]:
    """``name`` is what differs: "steps", "source bytes", "version of torch"."""
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        prefix = NAMES.get(name, f"{name} " if name else "")
        for key in sorted({*stored, *current}):
            yield from differences(stored.get(key), current.get(key), prefix + str(key).replace("_", " "))
    elif stored != current:
        yield f"{name} was {_describe(stored)} and is {_describe(current)}"


def _describe(value: Any) -> str:
    return "not set" if value in (None, "") else "set" if isinstance(value, Mapping) else str(value)[:60]


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
