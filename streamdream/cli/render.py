"""The command that dreams a video file."""
from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from streamdream import settings
from streamdream.cli import path_conflicts, signals
from streamdream.cli.argument_parser import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.automation import add_automation_flags
from streamdream.cli.output import log_line, print_report, show_log, warn_of_older_files
from streamdream.errors import UnknownName
from streamdream.render.plan import SEAMS
from streamdream.settings import AutomationSettings, DreamSettings, RenderSettings, StreamSettings

if TYPE_CHECKING:
    from streamdream.cli.progress import Progress
    from streamdream.render.job import RenderJob
    from streamdream.render.work_folder import WorkFolder

MAX_WORKERS = 64


def render_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream a video file, with its sound

    streamdream render clip.mp4 -o dream.mp4
    streamdream render clip.mp4 -o dream.mp4 --layers mixed4 -ss 0:30 -t 10
    """
    parser.add_argument("input", nargs="?", help="a video file, a URL, img%%04d.png, or lavfi:GRAPH")
    parser.add_argument("-o", "--output", help="the dreamed video: .mp4, .mkv, .webm, ..., or null")
    add_run_flags(parser)
    add_automation_flags(parser)
    add_plan_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings, AutomationSettings, RenderSettings)
    args = parser.parse(argv)
    run = resolve(args)
    if args.print_config:
        print(settings.to_toml((run.dream, run.stream, run.automation, run.render)), end="")
        return 0
    parser.require(args, input="a file", output="-o dream.mp4")
    if args.seams not in SEAMS:
        raise UnknownName("kind of seams", args.seams, SEAMS)
    path_conflicts.check(args, run)
    from streamdream.render.file_render import PlanOptions, render_file
    from streamdream.render.job import RenderJob

    show_log(args.json)
    started = time.time()
    job = RenderJob(args.input, args.output, run, args.overwrite, args.settings_track, args.record_settings)
    with RenderProgress(job, args.json) as progress:
        report = render_file(job, PlanOptions(args.restart, args.work_folder, args.workers, args.seams), progress)
    warn_of_older_files(args.output, started)
    print_report(report, args.output, args.json)
    return 0


def add_plan_flags(parser: Parser) -> None:
    """Add the flags that say how a render is carried out."""
    parser.advanced += [
        parser.add_argument("--restart", action="store_true",
                            help="start over where an interrupted render with other settings is there"),
        parser.add_argument("--workers", type=_parse_workers, default=1, metavar="N",
                            help="processes that render parts of the video between scene cuts; default 1"),
        parser.add_argument("--seams", default="exact", metavar="NAME",
                            help="where workers split the video: exact, at scene cuts only; or warm-up, in long shots, "
                                 "too, with a crossfade"),
        parser.add_argument("--work-folder", default="", metavar="DIR",
                            help="folder for the parts of an unfinished render; default beside the output"),
    ]


def _parse_workers(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MAX_WORKERS:
        return int(text)
    raise argparse.ArgumentTypeError(f"it must be 1..{MAX_WORKERS}, not {text!r}")


class RenderProgress:
    """Shows how far a render is; the line of an interruption says what is kept."""

    def __init__(self, job: RenderJob, quiet: bool) -> None:
        self._job, self._quiet = job, quiet
        self._stack = ExitStack()
        self._progress: Progress | None = None

    def __enter__(self) -> RenderProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._stack.close()

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None) -> None:
        from streamdream.cli.progress import Progress

        if folder is not None:
            self._stack.enter_context(signals.describe_with(folder.describe_kept))
        if folder is not None and done_frames and not self._quiet:
            log_line(f"resuming at {folder.describe_resume()}: {done_frames} frames are there")
        self._progress = self._stack.enter_context(
            Progress(f"{self._job.input} → {self._job.output}", total_frames, "frames", self._quiet))

    def scanned(self, frames: int) -> None:
        signals.check()

    def frame(self, done_frames: int) -> None:
        assert self._progress is not None
        self._progress.update(done_frames)
