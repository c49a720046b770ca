"""Render the missing chunks of a plan in several processes: each has its share of the processor, or its own GPU."""
from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any

from streamdream.errors import StreamdreamError
from streamdream.render.plan import Chunk
from streamdream.system import child_process

if TYPE_CHECKING:
    from streamdream.render.work_folder import WorkFolder

MAX_FAILURES = 3
"""Workers that may end in a row without a whole chunk."""
POLL_SECONDS = 0.2
log = logging.getLogger(__name__)


class Worker:
    """One process; what it reports goes to ``reports``, and None when it has ended."""

    def __init__(self, number: int, folder: WorkFolder, device: str, reports: queue.Queue[tuple[Worker, Any]]) -> None:
        self.number = number
        self.chunks: tuple[Chunk, ...] = ()
        """What it renders now."""
        self.frames = 0
        """Of those chunks so far."""
        self._log_path = folder.path / f"worker-{number}.log"
        with self._log_path.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamdream.render.worker", str(folder.path), device], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        self._thread = threading.Thread(target=self._read, args=(reports,), daemon=True)
        self._thread.start()

    def _read(self, reports: queue.Queue[tuple[Worker, Any]]) -> None:
        output: IO[str] | None = self._process.stdout
        assert output is not None
        for line in output:
            reports.put((self, json.loads(line)))
        reports.put((self, None))

    def order(self, chunks: tuple[Chunk, ...]) -> None:
        self.chunks, self.frames = chunks, 0
        self._send(chunks=[chunk.number for chunk in chunks])

    def acknowledge_frame(self) -> None:
        self.frames += 1
        self._send(acknowledged=1)

    def _send(self, **values: Any) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it has just ended, which its thread reports
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        child_process.end(self._process, self._thread)

    def last_words(self) -> str:
        """Why it ended, as far as that is known."""
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with code {self._process.wait()}"


class ProcessExecutor:
    """``count`` processes; each takes the longest range of chunks that is ready. One that ends early is replaced."""

    def __init__(self, count: int, device: str) -> None:
        self.parallel, self._device = count, device

    def threads(self, usable: int) -> int:
        return worker_threads(usable, self.parallel)

    def render(self, folder: WorkFolder, on_frame: Callable[[int], None]) -> Generator[tuple[Chunk, list[str]]]:
        """As of ``Executor``. Raises StreamdreamError when several workers end without rendering anything, and for what
        a worker raises.
        """
        assert folder.plan is not None
        ranges = sorted(folder.plan.missing_ranges(), key=folder.plan.count_frames, reverse=True)
        reports: queue.Queue[tuple[Worker, Any]] = queue.Queue()
        devices = worker_devices(self._device)
        with ExitStack() as stack:
            def start(number: int) -> Worker:
                worker = Worker(number, folder, devices[number % len(devices)], reports)
                stack.callback(worker.stop)
                return worker

            workers = {number: start(number) for number in range(min(self.parallel, len(ranges)))}
            failures = 0
            while ranges or any(worker.chunks for worker in workers.values()):
                for worker in workers.values():
                    ready = next((chunks for chunks in ranges if folder.is_ready(chunks[0])), None)
                    if ready is not None and not worker.chunks:
                        ranges.remove(ready)
                        worker.order(ready)
                on_frame(folder.plan.frames_done + sum(worker.frames for worker in workers.values()))
                try:
                    worker, message = reports.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if worker is not workers[worker.number]:
                    continue
                if message is None:
                    failures += 1
                    if failures > MAX_FAILURES:
                        raise StreamdreamError(f"workers end before their work is done: {worker.last_words()}")
                    log.warning("worker %d ended (%s); another one replaces it", worker.number, worker.last_words())
                    workers[worker.number] = start(worker.number)
                    if missing := _missing(folder, worker.chunks):
                        workers[worker.number].order(missing)
                elif "error" in message:
                    raise StreamdreamError(message["error"])
                elif "frame" in message:
                    worker.acknowledge_frame()
                elif "chunk" in message:
                    failures, worker.frames = 0, 0
                    yield Chunk(**message["chunk"]), message["warnings"]
                else:
                    worker.chunks, worker.frames = (), 0


def _missing(folder: WorkFolder, chunks: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    assert folder.plan is not None
    now = [folder.plan.chunks[chunk.number] for chunk in chunks]
    return tuple(chunk for chunk in now if not chunk.done)


def worker_threads(threads: int, count: int) -> int:
    """Threads of each of ``count`` workers that share ``threads``."""
    return max(1, threads // count)


def worker_devices(device: str) -> list[str]:
    """The devices that workers take in turn: all GPUs of the machine where one of them would be taken."""
    import torch

    from streamdream.backends import choose_device

    chosen = choose_device(device)
    if chosen.type == "cpu" or chosen.index is not None:
        return [device]
    return [f"{chosen.type}:{number}" for number in range(torch.accelerator.device_count())]

