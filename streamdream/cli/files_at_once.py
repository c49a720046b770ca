"""Render several files of a batch at the same time, so that short ones fill a cluster: a thread waits for each. The
main thread alone shows the progress of all, pauses them, and learns of Ctrl-C.
"""
from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from streamdream.cli import signals
from streamdream.cli.output import log_line

if TYPE_CHECKING:
    from streamdream.cli.pause import Pause
    from streamdream.cli.progress import Progress
    from streamdream.cli.progress_blocks import ProgressBlocks
    from streamdream.render.batch import Task
    from streamdream.render.job import RenderJob
    from streamdream.render.work_folder import WorkFolder

MAX_FILES = 16
"""Each holds its input open."""
POLL_SECONDS = 0.2
STOP_SECONDS = 3.0
"""In which files clean up after Ctrl-C."""


class FilesAtOnce:
    """The files that are rendered at the same time, and their progress."""

    def __init__(self, count: int, folder: str, quiet: bool, pause: Pause, blocks: ProgressBlocks) -> None:
        """``count`` files at once, and one more that is planned meanwhile, go into ``folder``."""
        self.quiet, self.blocks = quiet, blocks
        self.planning = threading.Lock()
        """Held while a file is planned: that needs this machine, and the first one shall begin soon."""
        self.device = threading.Lock()
        """Held for each dream that is computed here, as the device has one owner at a time."""
        self._count, self._folder, self._pause = min(count + 1, MAX_FILES), folder, pause
        self._going = threading.Event()
        self._going.set()
        self._files: list[FileProgress] = []

    def render(self, tasks: Sequence[Task], render_one: Callable[[int, Task], dict[str, Any]]
               ) -> Iterator[tuple[Task, dict[str, Any]]]:
        """Yield each task when it is done, with what ``render_one`` returns for its number, from 1 on, and for it."""
        from streamdream.cli.progress import Progress

        todo, taking = iter(enumerate(tasks, 1)), threading.Lock()
        results: queue.SimpleQueue[tuple[Task, dict[str, Any]]] = queue.SimpleQueue()

        def work() -> None:
            with suppress(signals.SignalReceived):
                while True:
                    with taking:
                        number, task = next(todo, (0, None))
                    if task is None:
                        return
                    results.put((task, render_one(number, task)))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self._count, len(tasks)))]
        title = f"{len(tasks)} files → {self._folder}"
        with signals.describe_with(self._describe_kept), Progress(title, 0, "frames", self.quiet) as progress:
            for thread in threads:
                thread.start()
            try:
                for _ in tasks:
                    yield self._wait_for(results, progress, len(tasks))
            finally:
                end = time.monotonic() + STOP_SECONDS
                for thread in threads:
                    thread.join(max(0.0, end - time.monotonic()))

    def _wait_for(self, results: queue.SimpleQueue[Any], progress: Progress, count: int) -> Any:
        """Return the next result. Raises SignalReceived."""
        while True:
            files = list(self._files)
            if sum(file.is_known for file in files) == count:
                progress.set_total(sum(file.total for file in files))
            progress.update(sum(file.done for file in files))
            paused_seconds = self._pause.wait(self._held(progress))
            for file in files:
                file.blocks.resume(paused_seconds)
            with suppress(queue.Empty):
                return results.get(timeout=POLL_SECONDS)

    @contextmanager
    def _held(self, progress: Progress) -> Iterator[None]:
        self._going.clear()
        with progress.suspended():
            yield
        self._going.set()

    def add(self, file: FileProgress) -> None:
        self._files.append(file)

    def check(self) -> None:
        """Wait while it is paused. Raises SignalReceived."""
        signals.check()
        while not self._going.wait(POLL_SECONDS):
            signals.check()

    def _describe_kept(self) -> str:
        folders = [file.folder for file in list(self._files) if file.folder is not None]
        frames = sum(folder.plan.frames_done for folder in folders if folder.plan)
        return f"{frames} frames of unfinished files are kept; the same command resumes" if frames else ""


class FileProgress:
    """The observer of the render of one of the files, in its thread."""

    def __init__(self, files: FilesAtOnce, job: RenderJob, title: str) -> None:
        """``title`` stands before the names of the file."""
        self.total, self.done = 0, 0
        self.is_known = False
        """Whether it is planned, so that ``total`` holds."""
        self.folder: WorkFolder | None = None
        """Until it is done, or has failed."""
        self.blocks = copy.copy(files.blocks)
        self._files, self._job, self._title = files, job, title

    def __enter__(self) -> FileProgress:
        self._files.planning.acquire()
        self._is_planning = True
        self._files.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._end_planning()
        if error is None:
            self.done = self.total
        self.total = self.done
        if not isinstance(error, signals.SignalReceived):  # which tells what is kept
            self.folder = None
        self.blocks.end()

    def _end_planning(self) -> None:
        self.is_known = True
        if self._is_planning:
            self._is_planning = False
            self._files.planning.release()

    def scanned(self, frames: int, total_frames: int) -> None:
        self._files.check()

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None, rate: float) -> None:
        self.total, self.done, self.folder = total_frames, done_frames, folder
        if not self._files.quiet:
            there = f", {done_frames} frames are there" if done_frames else ""
            log_line(f"{self._title}{self._job.shown_input} → {self._job.output}{there}")
        self.blocks.begin(self._job.shown_input, rate, done_frames)
        self._end_planning()

    def frame(self, done_frames: int) -> None:
        self.done = done_frames
        self.blocks.frame(done_frames)
        self._files.check()
