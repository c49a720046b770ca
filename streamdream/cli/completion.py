"""``--exec``: a command that runs when a render has ended."""
from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import describe_error, log_line
from streamdream.errors import UsageError, error_text

USAGE_ERROR = 2


def add_exec_flag(parser: Parser) -> None:
    parser.advanced.append(parser.add_argument(
        "--exec", default="", metavar="CMD", help="command to run at the end, also after a failure, with the exit code "
                                                  "and the output as its last two arguments"))


def run_and_then(command: str, output: str, work: Callable[[], int]) -> int:
    """Return the exit code of ``work``; before, run the command with it and ``output``, unless ``command`` is "".

    The command does not run after a usage error, nor after Ctrl-C or SIGTERM. No shell takes part. Its own failure is a
    warning. Raises UsageError, before anything is done, when there is no such program, and whatever ``work`` raises.
    """
    words = _parse(command)
    try:
        code = work()
    except Exception as error:
        code = describe_error(error)[1]
        if code != USAGE_ERROR:
            _run(words, code, output)
        raise
    _run(words, code, output)
    return code


def _parse(command: str) -> list[str]:
    try:
        words = shlex.split(command, posix=os.name == "posix")
    except ValueError as error:
        raise UsageError(f"--exec {command}: {error_text(error)}") from None
    if words and shutil.which(words[0]) is None:
        raise UsageError(f"--exec {command}: there is no program {words[0]}")
    return words


def _run(words: list[str], code: int, output: str) -> None:
    if not words:
        return
    sys.stdout.flush()
    try:  # its output goes to stderr: only the report is on stdout
        ended = subprocess.run([*words, str(code), output], stdin=subprocess.DEVNULL, stdout=2, check=False).returncode
    except OSError as error:
        log_line(f"warning: --exec {words[0]} did not run: {error_text(error)}")
        return
    if ended:
        log_line(f"warning: --exec {words[0]} ended with exit code {ended}")
