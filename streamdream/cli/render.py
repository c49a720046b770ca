"""The command that dreams a video file."""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from streamdream import settings
from streamdream.cli import batch, signals
from streamdream.cli.argument_parser import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.automation import add_automation_flags
from streamdream.cli.completion import add_exec_flag, run_and_then
from streamdream.cli.dry_run import add_dry_run_flags, look_ahead
from streamdream.cli.files_at_once import FileProgress, FilesAtOnce
from streamdream.cli.output import log_line, print_error, print_report, show_log, warn_of_older_files
from streamdream.cli.pause import Pause
from streamdream.cli.progress_blocks import ProgressBlocks, add_progress_flag
from streamdream.errors import StreamdreamError, UnknownName, UsageError
from streamdream.render.plan import SEAMS
from streamdream.settings import AutomationSettings, DreamSettings, RenderSettings, Run, StreamSettings

if TYPE_CHECKING:
    from streamdream.cli.progress import Progress
    from streamdream.render.batch import Task
    from streamdream.render.file_render import PlanOptions
    from streamdream.render.job import RenderJob
    from streamdream.render.report import RenderReport
    from streamdream.render.work_folder import WorkFolder

MAX_WORKERS = 64


def render_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream a video file, with its sound; or many

    streamdream render clip.mp4 -o dream.mp4
    streamdream render clip.mp4 -o dream.mp4 --layers mixed4 -ss 0:30 -t 10
    streamdream render *.mov -o dreams/
    """
    parser.add_argument("input", nargs="*", help="a video file, - (stdin), a URL, lavfi:GRAPH, or pictures: several, a "
                                                 "folder of them, img%%04d.png; with a folder as OUTPUT several files, "
                                                 "or a folder of videos (folders in it are not searched)")
    parser.add_argument("-o", "--output", help="the dreamed video: .mp4, .mkv, .webm, ..., - (stdout), null; a "
                                               "folder for many")
    add_run_flags(parser)
    add_automation_flags(parser)
    add_plan_flags(parser)
    batch.add_batch_flags(parser)
    add_progress_flag(parser)
    add_exec_flag(parser)
    add_dry_run_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings, AutomationSettings, RenderSettings)
    args = parser.parse(join_maps(batch.join_suffix(argv)))
    run = resolve(args)
    if args.print_config:
        print(settings.to_toml((run.dream, run.stream, run.automation, run.render)), end="")
        return 0
    parser.require(args, input="a file", **({} if args.preview else {"output": "-o dream.mp4"}))
    if args.seams not in SEAMS:
        raise UnknownName("kind of seams", args.seams, SEAMS)
    if args.seams != "exact" and args.workers == 1 and not args.cluster:
        raise UsageError(f"--seams {args.seams} is for several processes: --workers 2")
    if args.cluster and args.workers > 1:
        raise UsageError("--workers is for this machine, --cluster for others; there --chunk-resources says how many "
                         "render at once")
    if args.chunk_resources and not args.cluster:
        raise UsageError("--chunk-resources is for a cluster: --cluster auto")
    if args.cluster:
        from streamdream.render import ray_connection

        ray_connection.check_address(args.cluster)  # before PyTorch is loaded
        ray_connection.parse_resources(args.chunk_resources)
    uses = [use for use, used in (("--json", args.json), ("--progress pipe:1", args.progress == "pipe:1"),
                                  ("-o -", args.output == "-")) if used]
    if len(uses) > 1:
        raise UsageError(f"{' and '.join(uses)} would mix on stdout; --progress pipe:2 is stderr")
    work = batch.choose_work(args, run)
    if args.preview or args.dry_run:
        return _look_ahead(args, run, work)
    return run_and_then(args.exec, args.output, lambda: _render(args, run, work))


def _render(args: argparse.Namespace, run: Run, work: batch.Work) -> int:
    """Render one file or many, and print what was done; return the exit code."""
    from streamdream.media.sinks.pipe import is_pipe

    show_log(args.json)
    with ExitStack() as stack:
        pause, blocks = stack.enter_context(Pause()), stack.enter_context(ProgressBlocks(args.progress))
        if args.progress == "pipe:1" or is_pipe(args.output):
            stack.enter_context(redirect_stdout(sys.stderr))
        if work.folder and args.cluster:
            files = FilesAtOnce(_parallel_chunks(args, run), work.folder, args.json, pause, blocks)
            return batch.render_all(work, args, partial(_render_beside_others, args, run, files), files)
        if work.folder:
            return batch.render_all(work, args, partial(_render_file, args, run, pause, blocks))
        task, started = work.tasks[0], time.time()
        report = _render_file(args, run, pause, blocks, task)
        warn_of_older_files(task.output, started)
        print_report(report, _job(args, run, task).shown_input, task.output, args.json)
    return 0


def _render_file(args: argparse.Namespace, run: Run, pause: Pause, blocks: ProgressBlocks, task: Task, title: str = ""
                 ) -> RenderReport:
    from streamdream.render.file_render import render_file

    job, paused_before = _job(args, run, task), pause.seconds
    with RenderProgress(job, args.json, pause, blocks, title) as progress:
        report = render_file(job, _options(args), progress)
    return replace(report, seconds=report.seconds - (pause.seconds - paused_before))


def _render_beside_others(args: argparse.Namespace, run: Run, files: FilesAtOnce, task: Task, title: str
                          ) -> RenderReport:
    from streamdream.render.file_render import render_file
    from streamdream.render.host import RenderHost

    job = _job(args, run, task)
    with FileProgress(files, job, title) as progress:
        # what one process has begun, it goes on with here, where the device has one owner at a time
        return render_file(job, _options(args), progress, RenderHost(device_slot=lambda: files.device))


def _parallel_chunks(args: argparse.Namespace, run: Run) -> int:
    """How many the cluster renders at once. Raises as ``RayExecutor``."""
    from streamdream.render.ray_cluster import RayExecutor
    from streamdream.render.ray_connection import parse_resources
    from streamdream.system.torch_threads import effective_threads

    return RayExecutor(args.cluster, parse_resources(args.chunk_resources), effective_threads(run.stream)).parallel


def _look_ahead(args: argparse.Namespace, run: Run, work: batch.Work) -> int:
    """Tell of each file, or make its preview; a bad file of a batch does not stop the rest."""
    from streamdream.media.sources.pipe import is_pipe

    if pipe := next((task.input for task in work.tasks if is_pipe(task.input)), None):
        raise UsageError(f"{pipe}: a pipe is read once; --dry-run and --preview read the input several times")
    code = 0
    with batch.folder_for(work):
        for task in work.tasks:
            try:
                look_ahead(args, _job(args, run, task), _options(args))
            except StreamdreamError as error:
                if not work.folder:
                    raise
                print_error(str(error))
                code = 1
    return code


def _job(args: argparse.Namespace, run: Run, task: Task) -> RenderJob:
    from streamdream.render.job import RenderJob

    return RenderJob(task.input, task.output, run, args.overwrite, args.settings_track, args.record_settings)


def _options(args: argparse.Namespace) -> PlanOptions:
    from streamdream.render.file_render import PlanOptions

    return PlanOptions(args.restart, args.work_folder, args.workers, args.seams, args.cluster, args.chunk_resources)


def join_maps(argv: Sequence[str]) -> list[str]:
    """``-map 0:a -map -0:a:1`` as one argument: argparse takes a text that begins with a dash for a flag."""
    end = argv.index("--") if "--" in argv else len(argv)
    rest, maps, words = list[str](), list[str](), iter(argv[:end])
    for word in words:
        if word == "-map" and (value := next(words, None)) is not None:
            maps.append(value)
        elif word.startswith("-map="):
            maps.append(word.removeprefix("-map="))
        else:
            rest.append(word)
    return [*rest, *([f"-map={' '.join(maps)}"] if maps else []), *argv[end:]]


def add_plan_flags(parser: Parser) -> None:
    """Add the flags that say how a render is carried out."""
    parser.advanced += [
        parser.add_argument("--restart", action="store_true",
                            help="start over where an interrupted render with other settings is there"),
        parser.add_argument("--workers", type=_parse_workers, default=1, metavar="N",
                            help="processes that render parts of the video between scene cuts; default 1"),
        parser.add_argument("--cluster", default="", metavar="ADDRESS",
                            help="Ray cluster that renders the parts: auto for that of this machine, or "
                                 "ray://HOST:PORT; needs streamdream[ray]"),
        parser.add_argument("--chunk-resources", default="", metavar="TEXT",
                            help="what each part takes of the cluster, as in cpu=4 or cpu=2,gpu=1; default a GPU, or "
                                 "the cores that a render here takes"),
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
    """Shows how far a render is, and pauses it; the line of an interruption says what is kept."""

    def __init__(self, job: RenderJob, quiet: bool, pause: Pause, blocks: ProgressBlocks, title: str = "") -> None:
        """``title`` stands before the names of the files."""
        self._job, self._quiet, self._pause, self._blocks = job, quiet, pause, blocks
        self._title = f"{title}{job.shown_input} → {job.output}"
        self._stack = ExitStack()
        self._scan: ExitStack | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> RenderProgress:
        self._stack.callback(self._blocks.end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._stack.close()
        if self._scan is not None:
            self._scan.close()

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None, rate: float) -> None:
        from streamdream.cli.progress import Progress

        if self._scan is not None:
            self._scan.close()
        if folder is not None:
            self._stack.enter_context(signals.describe_with(folder.describe_kept))
        if folder is not None and done_frames and not self._quiet:
            log_line(f"resuming at {folder.describe_resume()}: {done_frames} frames are there")
        self._progress = self._stack.enter_context(Progress(self._title, total_frames, "frames", self._quiet))
        self._blocks.begin(self._job.shown_input, rate, done_frames)

    def scanned(self, frames: int, total_frames: int) -> None:
        from streamdream.cli.progress import Progress

        if self._scan is None:
            self._scan = ExitStack()
            title = f"{self._job.shown_input}: looking for scene cuts"
            self._progress = self._scan.enter_context(Progress(title, total_frames, "frames", self._quiet))
        assert self._progress is not None
        self._progress.update(frames)

    def frame(self, done_frames: int) -> None:
        assert self._progress is not None
        self._progress.update(done_frames)
        self._blocks.frame(done_frames)
        self._blocks.resume(self._pause.wait(self._progress.suspended()))
