"""Commands and flags; the only package that prints. One file per group of commands, each with its help as docstring.

A user's mistake is one line and exit code 2, a failed run is one line and 1, Ctrl-C is 130; ``--debug`` shows
tracebacks.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from streamdream import __version__
from streamdream.cli import atlas, bench, cameras, doctor, image, live, models, presets, render, signals, web
from streamdream.cli.flags import Parser
from streamdream.errors import StreamdreamError, UnknownName
from streamdream.system import process_tuning

COMMANDS: dict[str, Callable[[Parser, Sequence[str]], int]] = {
    "render": render.render_command,
    "live": live.live_command,
    "web": web.web_command,
    "cameras": cameras.cameras_command,
    "image": image.image_command,
    "atlas": atlas.atlas_command,
    "presets": presets.presets_command,
    "models": models.models_command,
    "layers": models.layers_command,
    "fetch": models.fetch_command,
    "bench": bench.bench_command,
    "doctor": doctor.doctor_command,
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    signals.finish()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    debug = "--debug" in arguments
    process_tuning.tune_process()
    try:
        return _dispatch([text for text in arguments if text != "--debug"])
    except StreamdreamError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except signals.SignalReceived as received:
        return _fail(str(received), received.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as in `streamdream layers ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if debug:
            raise
        return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where, please report it", 1)


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # the terminal is closed
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
