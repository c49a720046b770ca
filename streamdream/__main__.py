"""``streamdream`` and ``python -m streamdream``: the command line."""
from __future__ import annotations

import os
import sys

from streamdream.cli import signals


def main() -> None:
    signals.install()  # before the imports, which take seconds on a busy machine
    open_standard_streams()
    from streamdream import cli

    cli.main()


def open_standard_streams() -> None:
    """Open the null device for standard streams that the parent has closed, as ``2>&-`` does.

    Otherwise an output file would get their number, and libraries would write messages into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
