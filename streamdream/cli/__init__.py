"""Commands and flags; the only package that prints. A file per command or group of commands; a docstring is its help.

Exit codes: 0 done; 1 a failed run; 2 the user's mistake, such as an unknown name, an illegal value, or a file that is
missing or may not be read or written; 130 Ctrl-C; 143 SIGTERM. An error is one line; ``--debug`` shows the traceback.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from streamdream import __version__
from streamdream.cli import (
    atlas,
    bench,
    cameras,
    channels,
    demo,
    doctor,
    export,
    image,
    live,
    models,
    presets,
    recipe,
    render,
    signals,
    web,
)
from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import describe_error, print_error
from streamdream.errors import UnknownName, error_text
from streamdream.system import process_tuning
from streamdream.system.atomic_file import DISK_FULL_ERRORS

COMMANDS: dict[str, Callable[[Parser, Sequence[str]], int]] = {
    "render": render.render_command,
    "live": live.live_command,
    "web": web.web_command,
    "demo": demo.demo_command,
    "cameras": cameras.cameras_command,
    "image": image.image_command,
    "atlas": atlas.atlas_command,
    "channels": channels.channels_command,
    "presets": presets.presets_command,
    "export": export.export_command,
    "recipe": recipe.recipe_command,
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
    """Run a command and return its exit code."""
    debug = "--debug" in arguments
    process_tuning.tune_process()
    try:
        code = _dispatch([text for text in arguments if text != "--debug"])
        sys.stdout.flush()
        return code
    except signals.SignalReceived as received:
        return _fail(str(received), received.exit_code)
    except BrokenPipeError:  # the reader of stdout is gone, as in `streamdream layers ... | head`
        _discard_stdout()
        return 141
    except Exception as error:
        if debug:
            raise
        return _fail(*_describe(error))


def _describe(error: Exception) -> tuple[str, int]:
    """One line and the exit code."""
    if isinstance(error, OSError) and error.filename is None and error.errno in DISK_FULL_ERRORS:
        _discard_stdout()
        return f"stdout cannot be written: {error_text(error)}", 1
    return describe_error(error)


def _discard_stdout() -> None:
    """Let Python's last flush succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    print_error(message)
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
    return command(Parser(name, command.__doc__ or ""), rest)


def overview() -> str:
    """Return the text of ``streamdream --help``."""
    rows = "\n".join(f"  {name:<8} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items())
    return ("Dream a video, steady from frame to frame, with its sound.\n\nusage: streamdream COMMAND ...\n\n"
            f"{rows}\n\nstreamdream COMMAND --help shows its usual options, --help full all of them.\n"
            "To start: streamdream demo, or streamdream render clip.mp4 -o dream.mp4")
