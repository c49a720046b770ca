"""Find the scene cuts of a file by several processes, each of which looks through a range of its frames.

    packets ──times of all frames──▶ ranges ──▶ processes (scan_worker.py) ──frames──▶ the chunks of one scan

The frames that the processes decode must be those that the packets tell, and where a range begins, the process of the
range before must meet the same picture. Where they are not, and for all that only one pass can tell, one process scans:
so the plan is always that of ``scan_source``.
"""
from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamdream.automation.automation import parse_playlist
from streamdream.errors import StreamdreamError
from streamdream.media.input_container import TimeRange
from streamdream.media.packet_scan import picture_times
from streamdream.media.picture_files import is_picture_input
from streamdream.media.sources.video import Source
from streamdream.media.timestamps import SourcePosition
from streamdream.render.scan_worker import RangeFrame, RangeOrder
from streamdream.render.scene_scan import ChunkList, ChunkStart, Matcher, Scan, scan_source
from streamdream.render.workers import worker_devices
from streamdream.system import child_process
from streamdream.system.machine import usable_cores

if TYPE_CHECKING:
    from streamdream.render.job import RenderJob
    from streamdream.settings import StreamSettings

MIN_RANGE_FRAMES = 400
"""Fewer are looked through before another process has begun."""
MAX_PROCESSES = 16
"""Each takes 300 MB at 1280x720."""
MIN_THREADS = 2
"""Of a decoder: with one, some decoders conceal damage in another way than with several."""
POLL_SECONDS = 0.2
MAX_REPORTS = 64
"""Frames that wait to be counted: while a render is paused, its processes stop soon."""
log = logging.getLogger(__name__)


class OnePassNeeded(Exception):
    """Ranges do not fit together; ``str`` says why."""


def scan_in_parallel(job: RenderJob, stream: StreamSettings, source: Source, build_matcher: Callable[[], Matcher],
                     on_frame: Callable[[int], None]) -> Scan:
    """As ``scan_source``, by as many processes as there are cores. ``stream`` is that of the job, with nothing left to
    ``auto``.
    """
    processes = min(usable_cores(), MAX_PROCESSES)
    if processes > 1 and can_be_split(job):
        try:
            times = picture_times(job.input, _span(job))
            if times is None:
                raise OnePassNeeded("times of some frames are missing, or those of others")
            if (count := min(processes, len(times) // MIN_RANGE_FRAMES)) > 1:
                return _join(job, times, _scan_ranges(_orders(job, stream, source, times, count), len(times), on_frame))
        except (StreamdreamError, OnePassNeeded) as reason:
            log.info("one process looks for the scene cuts: %s", reason)
    return scan_source(job, build_matcher(), on_frame)


def can_be_split(job: RenderJob) -> bool:
    """Whether it is one video file, and all of its frames are compared by the same settings."""
    automation = job.run.automation
    entries = parse_playlist(automation.playlist, automation.playlist_seconds)
    compared_alike = not any(entry.values.keys() & {"flow", "cut", "trust"} for entry in entries)
    follows_time = job.settings_track or job.record_settings or not compared_alike
    return not follows_time and Path(job.input).is_file() and not is_picture_input(job.input)


def _span(job: RenderJob) -> TimeRange:
    render = job.run.render
    return TimeRange.of(render.start, render.duration, render.end)


def _orders(job: RenderJob, stream: StreamSettings, source: Source, times: Sequence[int], count: int
            ) -> list[RangeOrder]:
    fixed = {name: getattr(stream, name) for name in ("backend", "precision", "frame_path", "threads")}
    devices = worker_devices(stream.device) if stream.frame_path == "device" else [stream.device]
    threads = max(MIN_THREADS, usable_cores() // count)
    step = 1 / source.rate / source.time_base
    limits = [number * len(times) // count for number in range(count + 1)]
    return [RangeOrder(job.to_json(), {**fixed, "device": devices[number % len(devices)]}, first, limits[number + 1],
                       _position(times, first, step) if first else None, threads)
            for number, first in enumerate(limits[:-1])]


def _position(times: Sequence[int], index: int, step: Fraction) -> list[Any]:
    """What one scan says of that frame, if no time before it had to be repaired."""
    before = times[index - 1]
    return SourcePosition(times[index], 0, before + step, before).to_json()


def _scan_ranges(orders: Sequence[RangeOrder], frames: int, on_frame: Callable[[int], None]
                 ) -> list[list[RangeFrame]]:
    """Return the frames of each range. Raises OnePassNeeded where a process fails."""
    found: list[list[RangeFrame]] = [[] for _ in orders]
    reports: queue.Queue[tuple[int, Any]] = queue.Queue(MAX_REPORTS)
    with ExitStack() as stack:
        for number, order in enumerate(orders):
            stack.callback(_RangeProcess(number, order, reports).stop)
        running = len(orders)
        while running:
            try:
                number, message = reports.get(timeout=POLL_SECONDS)
            except queue.Empty:
                message = None, None
            else:
                if message is None:
                    running -= 1
                elif isinstance(message, dict):
                    raise OnePassNeeded(message["error"])
                else:
                    pts, is_cut, position, checksum = message
                    start = None if checksum is None else ChunkStart(position, checksum)
                    found[number].append(RangeFrame(pts, is_cut, start))
            on_frame(min(sum(map(len, found)), frames))
    return found


class _RangeProcess:
    """One process; what it says of each frame goes to ``reports`` with its number, and None when it has ended."""

    def __init__(self, number: int, order: RangeOrder, reports: queue.Queue[tuple[int, Any]]) -> None:
        self._number, self._reports, self._stopped = number, reports, threading.Event()
        self._process = subprocess.Popen([sys.executable, "-m", "streamdream.render.scan_worker"], text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                         start_new_session=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._process.stdin is not None
        with suppress(OSError):  # it has just ended, which its thread reports
            self._process.stdin.write(json.dumps(asdict(order)) + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._put(json.loads(line))
        self._put(None)

    def _put(self, message: Any) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._reports.put((self._number, message), timeout=POLL_SECONDS)
                return

    def stop(self) -> None:
        self._stopped.set()
        child_process.end(self._process, self._thread)


def _join(job: RenderJob, times: Sequence[int], ranges: Sequence[Sequence[RangeFrame]]) -> Scan:
    """Raises OnePassNeeded where they are not what one scan would find."""
    frames = list(_continuous(ranges, len(times)))
    if len(frames) != len(times):
        raise OnePassNeeded(f"{len(frames)} frames were found of {len(times)}")
    source_pts = np.array([frame.pts for frame in frames], np.int64)
    if not np.array_equal(np.diff(source_pts), np.diff(np.array(times, np.int64))):
        raise OnePassNeeded("times of frames are repaired")
    chunks = ChunkList(job.run.render.chunk_frames)
    for index, frame in enumerate(frames):
        is_cut = frame.is_cut
        if is_cut is None:
            raise OnePassNeeded(f"frame {index} could not be compared")
        if chunks.is_start(index, is_cut):
            assert frame.start is not None
            chunks.add(index, frame.pts, is_cut, frame.start)
    return Scan(tuple(chunks.found), source_pts)


def _continuous(ranges: Sequence[Sequence[RangeFrame]], frames: int) -> Iterator[RangeFrame]:
    """All frames in order. A range goes on into the next ones, which must begin with the same pictures."""
    before: list[RangeFrame] = []
    for number, found in enumerate(ranges):
        first = number * frames // len(ranges)
        overlap = len(before) - first
        if overlap < (number > 0) or len(found) < min(overlap, 1):
            raise OnePassNeeded("a process has ended early")
        if any(one.pts != other.pts or one.start != other.start
               for one, other in zip(before[first:], found, strict=False)):
            raise OnePassNeeded("a part decodes into other pictures than the whole")
        before += found[overlap:]
    yield from before
