"""``streamdream`` and ``python -m streamdream``: the command line."""
from __future__ import annotations

from streamdream.cli import signals


def main() -> None:
    signals.install()  # before the imports, which take seconds on a busy machine
    from streamdream import cli

    cli.main()


if __name__ == "__main__":
    main()
