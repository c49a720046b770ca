"""``streamdream`` and ``python -m streamdream``: the command line, which signals end cleanly from the first moment."""
from __future__ import annotations

from streamdream import process


def main() -> None:
    process.end_by_signals()
    from streamdream import cli

    cli.main()


if __name__ == "__main__":
    main()
