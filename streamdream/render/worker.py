"""A worker process of a render: told over standard input which chunks to render, it reports over standard output.

One JSON object a line: ``{"chunks": [3, 4]}`` in; ``{"frame": 1}``, ``{"chunk": {...}, "warnings": [...]}``,
``{"done": true}`` or ``{"error": "..."}`` out. It ends when its standard input ends, so none survives its parent.
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


class ReportingStore(ChunkStore):
    """Reports each chunk to the parent, which alone writes the plan."""

    def __init__(self, path: Path, suffix: str, name: str, plan: RenderPlan, output: IO[str]) -> None:
        super().__init__(path, suffix, name, plan)
        self._reports = output

    def add_chunk(self, done: Chunk, following: Chunk | None, warnings: list[str]) -> None:
        super().add_chunk(done, following, warnings)
        report(self._reports, chunk=dataclasses.asdict(done), warnings=warnings)


def report(output: IO[str], **values: Any) -> None:
    output.write(json.dumps(values) + "\n")
    output.flush()


def main(folder: str, device: str) -> None:
    """Render what comes over standard input, for the plan in ``folder``."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints must not disturb the parent
    orders: queue.Queue[list[int]] = queue.Queue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    process_tuning.tune_process()
    try:
        _work(Path(folder), device, orders, output)
    except StreamdreamError as error:
        report(output, error=str(error))
        sys.exit(1)


def _read_orders(orders: queue.Queue[list[int]]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line)["chunks"])
    os._exit(0)


def _work(folder: Path, device: str, orders: queue.Queue[list[int]], output: IO[str]) -> None:
    from streamdream.dream.build import build_dreamer
    from streamdream.render.chunk_render import render_range
    from streamdream.render.chunk_storage import chunk_storage
    from streamdream.render.job import RenderJob, open_job_source

    plan = RenderPlan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
    os.chdir(plan.job["folder"])
    job, identity = RenderJob.from_json(plan.job), plan.identity
    stream = replace(job.run.stream, backend=identity["backend"], precision=identity["precision"],
                     threads=identity["threads"], device=device)
    dreamer = build_dreamer(stream)
    with open_job_source(job) as source:
        storage = chunk_storage(job, source)
    assert storage is not None
    while True:
        numbers = orders.get()
        plan = RenderPlan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
        store = ReportingStore(folder, storage.suffix, job.output, plan, output)
        render_range(store, tuple(plan.chunks[number] for number in numbers), job, stream, storage, dreamer,
                     lambda frame: report(output, frame=frame))
        report(output, done=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
