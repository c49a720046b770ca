"""A worker process of a render: told over standard input which chunks to render, it reports over standard output.

One JSON object a line: ``{"chunks": [3, 4]}`` in; ``{"frame": 1}``, ``{"chunk": {...}, "warnings": [...]}``,
``{"done": true}`` or ``{"error": "..."}`` out. The parent answers each frame with ``{"acknowledged": 1}``: while it is
paused, a worker stops after ``MAX_UNACKNOWLEDGED`` frames. It ends when its standard input ends, so none survives its
parent.
"""
from __future__ import annotations

import dataclasses
import json
import os
import queue
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from streamdream.errors import StreamdreamError
from streamdream.render.plan import Chunk, RenderPlan
from streamdream.render.work_folder import PLAN_FILE, ChunkStore
from streamdream.system import process_tuning

MAX_UNACKNOWLEDGED = 4


class ReportingStore(ChunkStore):
    """Reports each chunk to the parent, which alone writes the plan."""

    def __init__(self, path: Path, suffix: str, name: str, plan: RenderPlan, reports: IO[str]) -> None:
        super().__init__(path, suffix, name, plan)
        self._reports = reports

    def add_chunk(self, done: Chunk, following: Chunk | None, warnings: list[str]) -> None:
        super().add_chunk(done, following, warnings)
        report(self._reports, chunk=dataclasses.asdict(done), warnings=warnings)


def report(reports: IO[str], **values: Any) -> None:
    reports.write(json.dumps(values) + "\n")
    reports.flush()


def main(folder: str, device: str) -> None:
    """Render what comes over standard input, for the plan in ``folder``."""
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints must not disturb the parent
    orders: queue.Queue[list[int]] = queue.Queue()
    window = threading.Semaphore(MAX_UNACKNOWLEDGED)
    threading.Thread(target=_read_orders, args=(orders, window), daemon=True).start()
    process_tuning.tune_process()
    try:
        _work(Path(folder), device, orders, window, reports)
    except StreamdreamError as error:
        report(reports, error=str(error))
        sys.exit(1)


def _read_orders(orders: queue.Queue[list[int]], window: threading.Semaphore) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "chunks" in message:
            orders.put(message["chunks"])
        else:
            window.release()
    os._exit(0)


def _work(folder: Path, device: str, orders: queue.Queue[list[int]], window: threading.Semaphore,
          reports: IO[str]) -> None:
    from streamdream.dream.build import build_dreamer
    from streamdream.render.chunk_render import render_range
    from streamdream.render.chunked_output import chunked_output
    from streamdream.render.job import RenderJob, open_job_source

    plan = RenderPlan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
    os.chdir(plan.job["folder"])
    job, identity = RenderJob.from_json(plan.job), plan.identity
    job = replace(job, run=replace(job.run, stream=replace(job.run.stream, device=device)))
    stream = replace(job.run.stream, backend=identity["backend"], precision=identity["precision"],
                     frame_path=identity["frame_path"], threads=identity["threads"])
    dreamer = build_dreamer(stream)
    with open_job_source(job) as source:
        output = chunked_output(job, source)
    assert output is not None

    def on_frame(frame: int) -> None:
        window.acquire()
        report(reports, frame=frame)

    while True:
        numbers = orders.get()
        plan = RenderPlan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
        store = ReportingStore(folder, output.suffix, job.output, plan, reports)
        render_range(store, tuple(plan.chunks[number] for number in numbers), job, stream, output, dreamer,
                     on_frame)
        report(reports, done=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
