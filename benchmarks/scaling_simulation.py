"""Simulate a render by many workers: the plan is the real one, times are costs that were measured or assumed.

Pure functions; nothing is measured here. ``scaling.py`` says where the costs come from.
"""
from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamdream.render.parallel_scan import MAX_PROCESSES
from streamdream.render.plan import STATE_WARM_UP, Chunk, RenderPlan
from streamdream.render.scene_scan import ChunkList, ChunkStart, Scan
from streamdream.render.seams import WARM_UP_FRAMES, split_long_shots
from streamdream.render.work_folder import LARGE_PLAN_CHUNKS, MAX_SAVE_SHARE


@dataclass(frozen=True)
class Costs:
    """In seconds."""

    load: float = 0.0
    """Of the command, until it reads or dreams the first frame."""
    frame: float = 0.0
    """Of a frame in a worker; decoding and encoding go on beside it."""
    cut: float = 0.0
    """By which the first frame of a shot takes longer: its warm-up passes."""
    start: float = 0.0
    """Of a worker."""
    open: float = 0.0
    """Until a worker is at the first frame of its shot."""
    chunk: float = 0.0
    """The same for each further chunk of a shot; 0 where one process renders them in one go."""
    scan_frame: float = 0.0
    """Of a frame that one process looks through."""
    scan_core_frame: float = 0.0
    """Of a processor core for that."""
    scan_start: float = 0.0
    keep: float = 0.0
    """Of a whole chunk, until the driver has fetched it, checked it and taken it into its plan."""
    keep_planned: float = 0.0
    """Of the same for each chunk that the plan has, which is then written anew; a slow one not each time."""
    join_chunk: float = 0.0
    join_frame: float = 0.0
    """Of a chunk and of a frame, at the end."""


@dataclass(frozen=True)
class Outcome:
    """What a render takes. Shares are of the time of all workers from the first start to the last chunk."""

    seconds: float
    scan_seconds: float
    render_seconds: float
    join_seconds: float
    idle_ratio: float
    warm_up_ratio: float
    seams: int
    limit: str
    """What takes most of the time, and what determines that."""


def saving_seconds(costs: Costs, chunks: int) -> float:
    """For each chunk that is kept: of the writing of a plan of so many chunks."""
    seconds = costs.keep_planned * chunks
    if chunks <= LARGE_PLAN_CHUNKS:
        return seconds
    return min(seconds, costs.keep * MAX_SAVE_SHARE / (1 - MAX_SAVE_SHARE))


def film_scan(shot_frames: Sequence[int], chunk_frames: int) -> Scan:
    """What a scan finds of a film with shots of so many frames."""
    chunks, cuts, frames = ChunkList(chunk_frames), set(np.cumsum(shot_frames).tolist()), sum(shot_frames)
    for index in range(frames):
        if chunks.is_start(index, index in cuts):
            chunks.add(index, index, index in cuts, ChunkStart([index, 0, "0", None, 0], 0))
    return Scan(tuple(chunks.found), np.arange(frames, dtype=np.int64))


def plan_of(scan: Scan, chunk_frames: int, slots: int, seams: str) -> RenderPlan:
    """The plan that a render with so many slots and these ``--seams`` makes of a scan."""
    chunks = scan.chunks if seams == "exact" else split_long_shots(scan, slots)
    return RenderPlan({}, {}, (1, 24), chunk_frames, chunks, len(scan.source_pts))


def alone(plan: RenderPlan, costs: Costs) -> float:
    """Seconds of the render by one process without workers: it needs no scan."""
    shots = sum(chunk.begins_anew for chunk in plan.chunks)
    return (costs.load + costs.frame * plan.frames + costs.cut * shots + costs.keep
            + costs.join_chunk * len(plan.chunks) + costs.join_frame * plan.frames)


def simulate(plan: RenderPlan, slots: int, costs: Costs, driver_cores: int) -> Outcome:
    """Render with ``slots`` workers, each of which takes the longest shot that is ready."""
    processes = min(driver_cores, MAX_PROCESSES)
    scan = costs.scan_start + plan.frames * max(costs.scan_frame / processes, costs.scan_core_frame / driver_cores)
    workers = _Workers(plan, slots, costs)
    render = workers.run()
    join = costs.join_chunk * len(plan.chunks) + costs.join_frame * plan.frames
    work = costs.frame * plan.frames
    bounds = {"frames": workers.busy / slots, "longest shot": workers.longest, "driver keeps chunks": workers.driver,
              "start of workers": costs.start}
    phases = {"scan": scan, "join": join, max(bounds, key=lambda name: bounds[name]): render}
    total = render * slots
    return Outcome(costs.load + scan + render + join, scan, render, join, 1 - workers.busy / total if work else 0.0,
                   workers.warm_up / total if work else 0.0, sum(bool(chunk.blend) for chunk in plan.chunks),
                   max(phases, key=lambda name: phases[name]))


class _Workers:
    """The chunks of a plan, by events: a worker is free, a warm-up or a chunk is done, the driver has kept a chunk."""

    def __init__(self, plan: RenderPlan, slots: int, costs: Costs) -> None:
        self._plan, self._costs = plan, costs
        self._waiting = sorted(plan.missing_ranges(), key=plan.count_frames, reverse=True)
        self._slots = min(slots, len(self._waiting))
        self._keep = costs.keep + saving_seconds(costs, len(plan.chunks))
        self._events: list[tuple[float, int, str, int]] = []
        self._warm: set[int] = set()
        self._kept: set[int] = set()
        self._driver_free = 0.0
        self.busy = self.warm_up = self.longest = self.driver = 0.0
        """Seconds: of all workers, of them for warm-up, of the longest range with its start, of the driver."""

    def run(self) -> float:
        """Return when the last chunk is kept."""
        free, now = 0, 0.0
        for _ in range(self._slots):
            self._at(self._costs.start, "free")
        while self._events:
            now, _, kind, number = heapq.heappop(self._events)
            if kind == "free":
                free += 1
            elif kind == "warm":
                self._warm.add(number)
            elif kind == "kept":
                self._kept.add(number)
            else:
                self._driver_free = max(self._driver_free, now) + self._keep
                self.driver += self._keep
                self._at(self._driver_free, "kept", number)
            while free and (ready := next((index for index, chunks in enumerate(self._waiting)
                                           if self._is_ready(chunks[0])), None)) is not None:
                free -= 1
                self._begin(now, self._waiting.pop(ready))
        return now

    def _at(self, seconds: float, kind: str, number: int = 0) -> None:
        heapq.heappush(self._events, (seconds, len(self._events), kind, number))

    def _is_ready(self, chunk: Chunk) -> bool:
        is_state_there = chunk.begins_anew or chunk.number - 1 in self._kept
        return is_state_there and (not chunk.blend or chunk.number + 1 in self._warm)

    def _begin(self, now: float, chunks: tuple[Chunk, ...]) -> None:
        costs, first = self._costs, chunks[0]
        at = now + costs.open + (costs.cut if first.begins_anew else 0.0)
        if first.state_before == STATE_WARM_UP:
            self.warm_up += WARM_UP_FRAMES * costs.frame
            at += WARM_UP_FRAMES * costs.frame
            self._at(at, "warm", first.number)
        for chunk in chunks:
            at += self._plan.count_frames((chunk,)) * costs.frame + (costs.chunk if chunk is not first else 0.0)
            self._at(at, "chunk", chunk.number)
        self._at(at, "free")
        self.busy += at - now
        self.longest = max(self.longest, costs.start + at - now)


def shot_frames(frames: int, mean_frames: float, deviation_ratio: float, seed: int) -> list[int]:
    """Lengths of the shots of a film, log-normal: ``deviation_ratio`` is their standard deviation by their mean."""
    random, found = np.random.default_rng(seed), list[int]()
    variance = np.log(1 + deviation_ratio**2)
    while (left := frames - sum(found)) > 0:
        length = max(1, round(random.lognormal(np.log(mean_frames) - variance / 2, variance**0.5)))
        found.append(min(length, left))
    return found
