"""Render many files into a folder, whatever happens to each of them, and a table at the end."""
from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream.cli import path_conflicts, signals
from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import describe_error, log_line, print_error, print_table, print_warnings
from streamdream.errors import UsageError
from streamdream.settings import Run

if TYPE_CHECKING:
    from streamdream.cli.files_at_once import FilesAtOnce
    from streamdream.render.batch import Task
    from streamdream.render.report import RenderReport


@dataclass(frozen=True)
class Work:
    """What one command renders: one file, or those of a batch, into ``folder``."""

    tasks: Sequence[Task]
    folder: str = ""


def add_batch_flags(parser: Parser) -> None:
    parser.advanced += [
        parser.add_argument("--suffix", default="", metavar="TEXT",
                            help="text after the names in a folder: -dream makes clip-dream.mp4 of clip.mp4"),
        parser.add_argument("--container", default="", metavar="NAME",
                            help="container of the outputs in a folder, such as mkv; default that of input, or mp4; of "
                                 "-o -: nut, y4m or mkv"),
    ]


def join_suffix(argv: Sequence[str]) -> list[str]:
    """``--suffix -dream`` as one argument: argparse takes a text that begins with a dash for a flag."""
    joined = list(argv)
    if "--suffix" in joined[:-1]:
        place = joined.index("--suffix")
        joined[place:place + 2] = ["=".join(joined[place:place + 2])]
    return joined


def choose_work(args: argparse.Namespace, run: Run) -> Work:
    """The files to render. Raises UsageError, before anything is written, as ``path_conflicts.check`` does."""
    from streamdream.media.picture_files import picture_files
    from streamdream.media.sinks.pipe import pipe_name
    from streamdream.render.batch import Task, find_pictures, output_is_folder, plan_batch

    path_conflicts.check_not_empty(args)
    if args.output == "-":
        if len(args.input) > 1 or args.preview:
            raise UsageError("-o - is for one video, as a whole")
        args.output, args.container = pipe_name(args.container), ""
    if args.preview and args.output and output_is_folder(args.input, args.output):
        raise UsageError("--preview is for one file")
    if not args.output or not output_is_folder(args.input, args.output):
        for option in ("suffix", "container"):
            if getattr(args, option):
                raise UsageError(f"--{option} is for outputs in a folder, and -o {args.output} is a file")
        name = find_pictures(args.input, args.output or "")
        args.input = [str(path) for path in picture_files(name)] or [name]
        path_conflicts.check(args, run)
        return Work([Task(name, args.output or "")])
    if args.record_settings:
        raise UsageError("--record-settings is for one file, and these go into a folder")
    tasks = plan_batch(args.input, args.output, args.suffix, args.container, args.overwrite)
    args.input = [task.input for task in tasks]
    path_conflicts.check(args, run, [path_conflicts.NamedPath("-o", task.output) for task in tasks], folder=True)
    if not Path(args.output).absolute().parent.is_dir():
        raise UsageError(f"no such folder: {Path(args.output).parent}")
    return Work(tasks, args.output)


@contextlib.contextmanager
def folder_for(work: Work) -> Iterator[None]:
    """The folder of a batch exists within it, and remains if something is in it."""
    if not work.folder:
        yield
        return
    Path(work.folder).mkdir(exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            Path(work.folder).rmdir()


def render_all(work: Work, args: argparse.Namespace, render: Callable[[Task, str], RenderReport],
               files: FilesAtOnce | None = None) -> int:
    """Return 1 if any file failed, else 0. ``render`` gets a task and where it is in the batch; without ``files`` one
    is rendered after the other.
    """
    rows: dict[str, dict[str, Any]] = {}
    total = len(work.tasks)

    def render_one(number: int, task: Task) -> dict[str, Any]:
        return _render_one(task, args, partial(render, task, f"{number} of {total}: "))

    with folder_for(work), signals.describe_with(lambda: _describe_kept(rows.values(), total)):
        results = (files.render(work.tasks, render_one) if files else
                   ((task, render_one(number, task)) for number, task in enumerate(work.tasks, 1)))
        for task, values in results:
            rows[task.output] = _row(task, values)
            if args.json:
                print(json.dumps({**values, "input": task.input, "output": task.output}), flush=True)
    if not args.json:
        print_table([rows[task.output] for task in work.tasks])
    return int(any(row["result"] == "failed" for row in rows.values()))


def _render_one(task: Task, args: argparse.Namespace, render: Callable[[], RenderReport]) -> dict[str, Any]:
    """The report, or {"error": ...}, or {"skipped": ...}."""
    try:
        if not args.overwrite and _is_there(task, args.work_folder):
            log_line(f"{task.output} is there; -y dreams it again")
            return {"skipped": "it is there"}
        report = render()
    except Exception as error:
        message, _ = describe_error(error)
        print_error(message)
        return {"error": message}
    print_warnings(report)
    return report.as_json()


def _is_there(task: Task, work_folder: str) -> bool:
    """Whether the output is whole. While its work folder is there, only the render can tell."""
    from streamdream.render.batch import is_whole
    from streamdream.render.work_folder import default_path

    return Path(task.output).exists() and not default_path(task.output, work_folder).exists() and is_whole(task.output)


def _row(task: Task, values: dict[str, Any]) -> dict[str, Any]:
    result = "failed" if "error" in values else "skipped" if "skipped" in values else "done"
    return {"input": task.input, "output": task.output, "result": result, "frames": values.get("frames", ""),
            "fps": values.get("fps", ""), "": values.get("error", values.get("skipped", ""))}


def _describe_kept(rows: Collection[dict[str, Any]], total: int) -> str:
    done = sum(row["result"] != "failed" for row in rows)
    return f"{done} of {total} files are done, and the same command goes on" if done else ""
