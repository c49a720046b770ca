"""The hidden folder of a render that is not finished: its plan, its chunks, and the state after each.

    .dream.mp4.render/  lock                     held while a process renders
                        plan.json                RenderPlan
                        chunk-00000.nut          pictures 0..249, encoded
                        chunk-00000.safetensors  the state after them, and their times
"""
from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, UsageError, error_text
from streamdream.media import planes
from streamdream.media.frame import blank_frame
from streamdream.media.sinks.chunks import ChunkTimes
from streamdream.render.plan import STATE_WARM_UP, Chunk, DamagedPlan, RenderPlan, warm_up_file
from streamdream.system.atomic_file import DISK_FULL_ERRORS, MAX_STEM, OutputTarget, write_file
from streamdream.system.durations import describe_seconds

if TYPE_CHECKING:
    from streamdream.dream.state import DreamState
    from streamdream.media.frame import Frame

PLAN_FILE, LOCK_FILE, TIMES_FILE = "plan.json", "lock", "times.safetensors"
MAX_NAME_BYTES = 240
"""A longer name of an output has no room for more."""
LARGE_PLAN_CHUNKS, MAX_SAVE_SHARE = 500, 0.1
"""A plan of more chunks is written for at most this share of the time: thousands of them take 50 ms, and a process that
is killed loses the chunks of half a second."""
MIN_BYTES_TO_REPORT = 1 << 30
"""Fewer are read in a moment."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChunkRecord:
    """What is kept beside the pictures of a chunk."""

    state: DreamState
    """After its last frame."""
    times: ChunkTimes
    source_pts: NDArray[np.int64]
    """Of each frame, in order, in ticks of the source since the start of the output."""
    frozen_frame: Frame | None = None
    """That at which the source is frozen at its end, if it is."""


class ChunkTarget(OutputTarget):
    """Describes errors of the files in ``place`` as errors of the output ``name``."""

    def __init__(self, name: str, place: Path) -> None:
        super().__init__(name)
        self._place = place

    def raise_error(self, error: BaseException) -> NoReturn:
        is_of_file = isinstance(error, SinkError) and isinstance(error.__cause__, OSError)
        super().raise_error(error.__cause__ if is_of_file and error.__cause__ else error)

    def _describe_error(self, error: BaseException) -> SinkError:
        if getattr(error, "errno", None) in DISK_FULL_ERRORS:
            return SinkError(f"no space left in {self._place} for {self.name}")
        return super()._describe_error(error)


class ChunkStore:
    """The chunks of a plan in its folder. ``suffix`` is that of the chunks; ``target`` names the output in errors."""

    def __init__(self, path: Path, suffix: str, output: str, plan: RenderPlan | None = None) -> None:
        self.path, self.suffix, self.output, self.plan = path, suffix, output, plan
        self.target = ChunkTarget(output, path.parent)

    @property
    def is_planned(self) -> bool:
        """Whether the chunks were planned before the first was rendered."""
        return (self.path / TIMES_FILE).exists()

    def add_chunk(self, done: Chunk, following: Chunk | None, warnings: list[str]) -> None:
        """Take ``done``, which is whole now, into the plan, and ``following``, whose first frame is known now."""
        assert self.plan is not None
        plan = self.plan.with_chunk(done)
        if following is not None:
            plan = plan if plan.next_chunk(done) else plan.with_chunk(following)
        else:
            plan = replace(plan, frames=done.first_frame + done.frames)
        self.plan = replace(plan, warnings=tuple(dict.fromkeys((*plan.warnings, *warnings))))

    def save_record(self, chunk: Chunk, record: ChunkRecord) -> None:
        from safetensors.numpy import save

        arrays: dict[str, Any] = {"pts": record.times.pts, "durations": record.times.durations,
                                  "source_pts": record.source_pts, "residual": record.state.residual,
                                  "grey": record.state.grey, "doubt": record.state.doubt,
                                  "maturity": record.state.maturity}
        values: dict[str, Any] = {"index": record.state.index, "cuts": record.state.cuts}
        if record.frozen_frame is not None:
            arrays["frozen_image"] = record.frozen_frame.image
            if record.frozen_frame.picture is not None:
                planar = planes.to_arrays(record.frozen_frame.picture)
                arrays |= {f"frozen_{number}": samples for number, samples in enumerate(planar.components)}
                values["frozen"] = planar.tags
        arrays["numbers"] = np.frombuffer(json.dumps(values).encode(), np.uint8)
        self.write(chunk.state_file, save({name: np.ascontiguousarray(array) for name, array in arrays.items()
                                            if array is not None}))

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the folder, whole or not at all. Raises SinkError, as when the disk is full."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        try:
            write_file(str(path), data, overwrite=True)
        except SinkError as error:
            self.target.raise_error(error)

    def load_record(self, name: str) -> ChunkRecord:
        """Raises SinkError."""
        from streamdream.dream.state import DreamState

        arrays = self._load(name)
        values = json.loads(bytes(arrays["numbers"]))
        frozen = None
        if "frozen_image" in arrays:
            frozen = replace(blank_frame(0.0), image=arrays["frozen_image"])
            if tags := values.pop("frozen", None):
                components = [arrays[name] for name in sorted(arrays.keys() & {f"frozen_{n}" for n in range(4)})]
                frozen = replace(frozen, picture=planes.from_arrays(planes.PlanarArrays(components, tags)))
        planes_of_state: dict[str, Any] = {name: arrays.get(name) for name in ("residual", "grey", "doubt", "maturity")}
        state = DreamState(**planes_of_state, **values)
        return ChunkRecord(state, ChunkTimes(arrays["pts"], arrays["durations"]), arrays["source_pts"], frozen)

    def load_times(self, chunk: Chunk) -> ChunkTimes:
        """Raises SinkError."""
        arrays = self._load(chunk.state_file, "pts", "durations")
        return ChunkTimes(arrays["pts"], arrays["durations"])

    def _load(self, name: str, *keys: str) -> dict[str, NDArray[Any]]:
        """Those arrays of a file, or all of them. Raises SinkError."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path / name, "numpy") as file:
                return {key: file.get_tensor(key) for key in keys or file.keys()}
        except (OSError, SafetensorError) as error:
            raise SinkError(f"{self.path / name} is damaged ({error_text(error)}); --restart starts over") from None

    def is_ready(self, chunk: Chunk) -> bool:
        """Whether all that the chunk begins with is there."""
        assert self.plan is not None
        is_state_there = chunk.begins_anew or self.plan.chunks[chunk.number - 1].done
        return is_state_there and (not chunk.blend or (self.path / chunk.blend).exists())

    def file(self, chunk: Chunk) -> Path:
        """The pictures of a chunk: a file, or a folder of files."""
        return self.path / (chunk.name + self.suffix)

    def measure(self, chunk: Chunk) -> tuple[int, str]:
        """Size in bytes and SHA-256 of all that belongs to the chunk. Raises OSError."""
        warm_up = [self.path / warm_up_file(chunk.number)] if chunk.state_before == STATE_WARM_UP else []
        return measure(self.file(chunk), self.path / chunk.state_file, *warm_up)

    def source_pts_before(self, frame: int) -> NDArray[np.int64]:
        """Times of all frames before the one of that index, in ticks of the source."""
        assert self.plan is not None
        times_file = self.path / TIMES_FILE
        if times_file.exists():
            from safetensors.numpy import load_file

            return load_file(times_file)["source_pts"][:frame]
        parts = [self._load(chunk.state_file, "source_pts")["source_pts"] for chunk in self.plan.chunks
                 if chunk.first_frame < frame]
        return np.concatenate(parts)[:frame] if parts else np.zeros(0, np.int64)


class WorkFolder(ChunkStore):
    """Holds the lock of the folder while it is open.

    Raises UsageError when another process holds it, SinkError when the folder cannot be made.
    """

    def __init__(self, path: Path, output: str, suffix: str) -> None:
        """``suffix`` is that of the chunks."""
        from filelock import FileLock, Timeout

        super().__init__(path, suffix, output)
        self._lock = FileLock(path / LOCK_FILE)
        self._is_saved, self._next_save = True, 0.0
        atexit.register(self.close)  # a signal may arrive while libraries load
        try:
            path.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"{output} is being rendered by another process; {path} is its folder") from None
        except OSError as error:
            raise SinkError(f"{output} cannot be written: its folder of chunks, {path}, cannot be made "
                            f"({error_text(error)}); --work-folder names another place") from None

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; remove a folder that holds no chunk."""
        atexit.unregister(self.close)
        if not self._lock.is_locked:
            with contextlib.suppress(OSError):  # not empty: it is of another process
                self.path.rmdir()
            return
        if self.plan is not None and not self._is_saved:
            with contextlib.suppress(SinkError):  # the plan before it is there
                self.save(self.plan)
        if self.path.exists() and (self.plan is None or not any(chunk.done for chunk in self.plan.chunks)):
            self.remove()
        self._lock.release()

    def load(self) -> RenderPlan | None:
        """The plan in the folder, without the chunks whose files are damaged; None when there is none. Raises
        DamagedPlan.
        """
        plan = read_plan(self.path)
        if plan is None:
            return None
        if sum(chunk.bytes for chunk in plan.chunks) >= MIN_BYTES_TO_REPORT:
            log.info("checking the chunks of %s", self.output)
        if plan.times_sha256 != self.times_digest():
            raise DamagedPlan("the times of its frames were changed")
        for chunk in plan.chunks:
            if chunk.done and not self._is_whole(chunk):
                plan = plan.with_chunk(replace(chunk, sha256=""))
        self.plan = plan
        return plan

    def add_chunk(self, done: Chunk, following: Chunk | None, warnings: list[str]) -> None:
        super().add_chunk(done, following, warnings)
        assert self.plan is not None
        self._is_saved = False
        if time.monotonic() >= self._next_save or self.plan.complete:
            self.save(self.plan)

    def save_times(self, source_pts: NDArray[np.int64]) -> None:
        """Keep the times of all frames, in ticks of the source, where the whole source was read before."""
        from safetensors.numpy import save

        self.write(TIMES_FILE, save({"source_pts": source_pts}))

    def times_digest(self) -> str:
        """SHA-256 of these times; "" where there are none."""
        path = self.path / TIMES_FILE
        return measure(path)[1] if path.exists() else ""

    def save(self, plan: RenderPlan) -> None:
        """Raises SinkError, as when the disk is full."""
        began = time.monotonic()
        self.write(PLAN_FILE, plan.to_json().encode())
        self.plan, self._is_saved, ended = plan, True, time.monotonic()
        is_large = len(plan.chunks) > LARGE_PLAN_CHUNKS
        self._next_save = ended + (ended - began) * (1 / MAX_SAVE_SHARE - 1) if is_large else 0.0

    def chunks_done(self) -> list[Chunk]:
        assert self.plan is not None
        return [chunk for chunk in self.plan.chunks if chunk.done]

    def describe_kept(self) -> str:
        """What an interruption leaves, in a few words; "" when that is nothing."""
        frames = self.plan.frames_done if self.plan else 0
        return f"{frames} frames of {self.output} are kept; the same command resumes" if frames else ""

    def describe_resume(self) -> str:
        """The time of the first frame that is missing."""
        assert self.plan is not None
        missing = next((chunk for chunk in self.plan.chunks if not chunk.done), None)
        return describe_seconds(float(missing.from_pts * Fraction(*self.plan.time_base))) if missing else "the end"

    def save_result(self, path: Path | None) -> None:
        """Remember the joined file, which gets its name next: it is recognized when the process ends in between."""
        assert self.plan is not None
        status = path.stat() if path else None
        self.save(replace(self.plan, result={"bytes": status.st_size, "inode": status.st_ino} if status else {}))

    def is_result(self, plan: RenderPlan) -> bool:
        """Whether the output is what the plan was joined into."""
        try:
            status = Path(os.path.realpath(self.output)).stat()
        except OSError:
            return False
        return plan.result == {"bytes": status.st_size, "inode": status.st_ino}

    def clear(self) -> None:
        """Remove all but the lock."""
        self.plan = None
        for path in self.path.iterdir():
            if path.name != LOCK_FILE:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.clear()
            (self.path / LOCK_FILE).unlink(missing_ok=True)
            self.path.rmdir()

    def _is_whole(self, chunk: Chunk) -> bool:
        try:
            return self.measure(chunk) == (chunk.bytes, chunk.sha256)
        except OSError:
            return False


def measure(*paths: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of files, or of all files in folders. Raises OSError."""
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    total, digest = 0, hashlib.sha256()
    for file in files:
        total += file.stat().st_size
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return total, digest.hexdigest()


def read_plan(path: Path) -> RenderPlan | None:
    """The plan in a folder, which stays as it is; None when there is none. Raises DamagedPlan."""
    try:
        text = (path / PLAN_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedPlan(error_text(error)) from None
    return RenderPlan.from_json(text)


def default_path(output: str, work_folder: str) -> Path:
    """Hidden beside the output, or in ``work_folder``, where names of outputs in other folders must not meet.

    Raises UsageError where ``work_folder`` does not exist.
    """
    target = Path(output).absolute()
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:8]
    is_long = len(os.fsencode(target.name)) > MAX_NAME_BYTES
    if not work_folder:
        return target.with_name(f".{target.name[:MAX_STEM]}.{digest}.render" if is_long else f".{target.name}.render")
    if not Path(work_folder).is_dir():
        raise UsageError(f"--work-folder {work_folder}: no such folder")
    return Path(work_folder) / f"{target.name[:MAX_STEM]}.{digest}.render"
