"""``streamdream`` and ``python -m streamdream``: the command line, which signals end cleanly from the first moment."""
from __future__ import annotations

from streamdream.cli import signals


def main() -> None:
    signals.exit_on_signal()
    from streamdream import cli

    cli.main()


if __name__ == "__main__":
    main()
