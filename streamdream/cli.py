"""Commands and flags; the only module that prints.

A user's mistake is one line and exit code 2, a failed run is one line and 1, Ctrl-C is 130; ``--debug`` shows
tracebacks.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from streamdream import __version__, process, settings
from streamdream.errors import SinkError, StreamdreamError, UnknownName, UsageError
from streamdream.settings import DreamSettings, RenderSettings, StreamSettings

if TYPE_CHECKING:
    from streamdream.models import Model
    from streamdream.pipeline import Report

STILL_PRESET = "still"
"""What ``image`` starts from when no preset is named."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors as exceptions and no abbreviations (``--st`` would change meaning with the next flag)."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """As parse_args, but an unknown flag names the close ones."""
        found, unknown = self.parse_known_args(arguments)
        flags = [text for action in self._actions for text in action.option_strings]
        for text in unknown:
            close = difflib.get_close_matches(text.partition("=")[0], flags, n=3) if text.startswith("-") else []
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            self.error(f"unexpected {text!r}{hint}")
        return found


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    debug = "--debug" in arguments
    process.tune()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch([text for text in arguments if text != "--debug"])
    except StreamdreamError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except _Terminated:
        return _fail("terminated; nothing was left behind", 143)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was left behind", 130)
    except BrokenPipeError:  # the reader of our output has gone, as in `streamdream layers ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if debug:
            raise
        return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where, please report it", 1)


class _Terminated(BaseException):
    """SIGTERM; not an Exception, so that nothing swallows it."""


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _fail(message: str, code: int) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return code


def _dispatch(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in ("--version", "-V"):
        print(f"streamdream {__version__}")
        return 0
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UnknownName("command", name, COMMANDS)
    command = COMMANDS[name]
    parser = Parser(prog=f"streamdream {name}", description=command.__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    return command(parser, rest)


def overview() -> str:
    """What ``streamdream --help`` prints."""
    rows = "\n".join(f"  {name:<8} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items())
    return ("Dream a video, steady from frame to frame, with its sound.\n\nusage: streamdream COMMAND ...\n\n"
            f"{rows}\n\nstreamdream COMMAND --help shows its flags.\n"
            "A start: streamdream render clip.mp4 -o dream.mp4")


# --- settings as flags ------------------------------------------------------------------------------------------------

def add_settings(parser: Parser, *groups: type[DreamSettings] | type[StreamSettings] | type[RenderSettings]) -> None:
    """A flag for every field; its text is parsed by settings.resolve, so presets and environment go the same way."""
    for group in groups:
        section = parser.add_argument_group((group.__doc__ or "").splitlines()[0].rstrip("."))
        for item in dataclasses.fields(group):
            if isinstance(item.default, bool):
                section.add_argument(settings.flag(item), dest=item.name, default=argparse.SUPPRESS,
                                     action="store_const", const="true", help=_help(item))
                section.add_argument("--no-" + settings.flag(item).removeprefix("--"), dest=item.name,
                                     default=argparse.SUPPRESS, action="store_const", const="false",
                                     help=argparse.SUPPRESS)
                continue
            section.add_argument(settings.flag(item), dest=item.name, default=argparse.SUPPRESS,
                                 metavar=item.name.split("_")[-1].upper(), help=_help(item))
    parser.add_argument("--preset", default="", help=f"start from a preset: {', '.join(settings.preset_names())}, "
                                                     "or a .toml file")
    parser.add_argument("--print-config", action="store_true", help="print the settings as a preset file and stop")


def _help(item: dataclasses.Field[Any]) -> str:
    legal = " ".join(part for part in (settings.describe_range(item), item.metadata["unit"]) if part)
    default = "" if item.default is False or item.default in ("", float("inf")) else f"default {item.default}"
    details = "; ".join(part for part in (legal, default) if part)
    return f"{item.metadata['help']} ({details})".replace(" ()", "").replace("%", "%%")


def resolve(found: argparse.Namespace, preset: str = "") -> tuple[DreamSettings, StreamSettings, RenderSettings]:
    """The settings of a run from its flags, the environment and the preset."""
    names = {item.name for group in settings.GROUPS for item in dataclasses.fields(group)}
    flags = {name: text for name, text in vars(found).items() if name in names}
    return settings.resolve(flags, os.environ, found.preset or preset)


# --- commands ---------------------------------------------------------------------------------------------------------

def render_command(parser: Parser, arguments: Sequence[str]) -> int:
    """dream a video file, with its sound

    streamdream render clip.mp4 -o dream.mp4
    streamdream render clip.mp4 -o dream.mp4 --layers mixed4 -ss 0:30 -t 10
    """
    parser.add_argument("input", help="a video file, a URL, img%%04d.png, or lavfi:GRAPH")
    parser.add_argument("-o", "--output", help="the dreamed video: .mp4, .mkv, .webm, ..., or null")
    _add_run_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings, RenderSettings)
    found = parser.parse(arguments)
    dream, stream, encode = resolve(found)
    if found.print_config:
        print(settings.to_toml((dream, stream, encode)), end="")
        return 0
    if not found.output:
        parser.error("an output is needed: -o dream.mp4")
    from streamdream.progress import Progress
    from streamdream.references import Player
    from streamdream.sinks import open_sink
    from streamdream.sources import open_source

    with (Player(dream) as others,
          open_source(found.input, encode.start, encode.duration, encode.end) as source,
          open_sink(found.output, source, encode, found.overwrite, found.input) as sink,
          Progress(f"{found.input} → {found.output}", source.frame_count, "frames", found.json) as progress):
        from streamdream.pipeline import build_dreamer, render

        report = render(source, sink, build_dreamer(stream), dream, progress.update, others.at)
    _print_report(report, found.output, found.json)
    return 0


def image_command(parser: Parser, arguments: Sequence[str]) -> int:
    """dream one picture, over many octaves

    streamdream image photo.jpg -o dream.png
    streamdream image photo.jpg -o dream.png --preset google-2015
    """
    parser.add_argument("input", help="a PNG or JPEG picture")
    parser.add_argument("-o", "--output", help="the dreamed picture: .png or .jpg")
    _add_run_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings)
    found = parser.parse(arguments)
    dream, stream, _ = resolve(found, STILL_PRESET)
    if found.print_config:
        print(settings.to_toml((dream, stream)), end="")
        return 0
    if not found.output:
        parser.error("an output is needed: -o dream.png")
    from streamdream import references, stills
    from streamdream.progress import Progress

    stills.check_output(found.output, found.overwrite, found.input)
    image = stills.read_image(found.input)
    references.read(dream)  # before anything large is loaded
    total = (1 + dream.onset) * dream.octaves * dream.steps
    with Progress(f"{found.input} → {found.output}", total, "steps", found.json) as progress:
        from streamdream.dream import DreamState
        from streamdream.pipeline import build_dreamer, summarize

        dreamer = build_dreamer(stream)
        dreamer.on_step = progress.update
        state, dreamed = dreamer(DreamState(), image, dream)
        stills.write_image(found.output, dreamed)
    report = summarize(dreamer, dream, state.index, 0, dreamer.field_size(*image.shape[:2]), [])
    _print_report(report, found.output, found.json)
    return 0


def models_command(parser: Parser, arguments: Sequence[str]) -> int:
    """list the networks"""
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    found = parser.parse(arguments)
    from streamdream.models import MODELS

    rows = [{"name": row.name, "available": row.available()[0], "reason": row.available()[1], "licence": row.licence,
             "about": row.about} for row in MODELS.values()]
    if found.json:
        print(json.dumps({"models": rows}))
    else:
        _print_table(rows)
    return 0


def layers_command(parser: Parser, arguments: Sequence[str]) -> int:
    """list the layers of a network, lowest first"""
    parser.add_argument("model", help="its name, as in: streamdream models")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    found = parser.parse(arguments)
    from streamdream import models

    taps = [{"name": tap.name, "channels": tap.channels, "stride": tap.stride}
            for tap in models.get(found.model).taps().values()]
    if found.json:
        print(json.dumps({"model": found.model, "taps": taps}))
    else:
        _print_table(taps)
    return 0


def fetch_command(parser: Parser, arguments: Sequence[str]) -> int:
    """fetch the weights of a network

    streamdream fetch                                   what there is
    streamdream fetch bvlc_googlenet
    streamdream fetch bvlc_googlenet --from FILE        a file that you have
    """
    parser.add_argument("model", nargs="?", help="its name, as in: streamdream models")
    parser.add_argument("--from", dest="file", metavar="FILE", help="check this file and keep a copy, download nothing")
    parser.add_argument("--again", action="store_true", help="download it although it is here")
    found = parser.parse(arguments)
    from streamdream import models
    from streamdream.models import fetch

    if not found.model:
        _print_table([{"name": row.name, "here": "yes" if row.available()[0] else "no", "licence": row.licence,
                       "about": row.about} for row in models.MODELS.values() if row.sources])
        return 0
    model = models.get(found.model)
    _say(f"{model.name}: {model.about}")
    _say(f"licence: {model.licence}")
    if found.file:
        path, published = fetch.adopt(model, Path(found.file))
        _say(f"{found.file} fits" + (" and is the published file" if published else ""))
    else:
        path = (not found.again and fetch.find_good(model, _say)) or _download(model)
    print(f"{model.name}: {path}")
    return 0


def _download(model: Model) -> Path:
    from streamdream.models import fetch
    from streamdream.progress import Progress

    with contextlib.ExitStack() as stack:
        bars: list[Progress] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Progress(model.name, total // 10**6, "MB")))
            bars[0].update(done // 10**6)

        try:
            return fetch.fetch(model, _say, show)
        except (KeyboardInterrupt, _Terminated) as signalled:
            stopped = StreamdreamError("interrupted; what has come is kept, the same command goes on from there")
            stopped.exit_code = 130 if isinstance(signalled, KeyboardInterrupt) else 143
            raise stopped from None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def bench_command(parser: Parser, arguments: Sequence[str]) -> int:
    """measure: step, render or quality"""
    try:
        from streamdream_bench import BENCHES, Options, run_bench
    except ImportError:
        raise UsageError("the benchmarks are not installed here: pip install streamdream again") from None
    parser.add_argument("name", help=", ".join(BENCHES))
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("-o", "--output", help="write the JSON to this file too")
    for item in dataclasses.fields(Options):
        parser.add_argument("--" + item.name.replace("_", "-"), dest=item.name, default=argparse.SUPPRESS,
                            type=type(item.default), help=item.metadata.get("help"))
    found = parser.parse(arguments)
    if found.name not in BENCHES:
        raise UnknownName("benchmark", found.name, BENCHES)
    names = {item.name for item in dataclasses.fields(Options)}
    options = Options(**{name: value for name, value in vars(found).items() if name in names})
    report = run_bench(found.name, options, lambda line: print(line, file=sys.stderr, flush=True))
    text = json.dumps(report.to_json())
    if found.output:
        _write_text(found.output, text + "\n")
    print(text if found.json else report.table())
    return 0


COMMANDS: dict[str, Callable[[Parser, Sequence[str]], int]] = {
    "render": render_command,
    "image": image_command,
    "models": models_command,
    "layers": layers_command,
    "fetch": fetch_command,
    "bench": bench_command,
}


# --- what is printed --------------------------------------------------------------------------------------------------

def _add_run_flags(parser: Parser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("-y", dest="overwrite", action="store_true", help="overwrite the output if it exists")
    either.add_argument("-n", dest="overwrite", action="store_false", help="never overwrite it (the default)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout when done")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(overwrite=False)


def _print_report(report: Report, output: str, as_json: bool) -> None:
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps({**report.as_json(), "output": output}))
        return
    noun = "frame" if report.frames == 1 else "frames"
    print(f"{output}: {report.frames} {noun} in {report.seconds:.1f} s ({report.fps:.1f} fps), {report.model} "
          f"{report.layers} on {report.field}, {report.backend} {report.precision} on {report.device}")


def _write_text(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"{path}: {error.strerror}") from None


def _print_table(rows: list[dict[str, Any]]) -> None:
    widths = {key: max(len(str(key)), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    for row in [{key: key for key in rows[0]}, *rows]:
        print("  ".join(str(row[key]).ljust(width) for key, width in widths.items()).rstrip())
