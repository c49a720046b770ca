"""Write docs/settings.md from the fields of settings.py: ``python -m streamdream.cli.settings_page``.

Run it from the repository root; ``make docs`` does. A test fails when the page is not up to date.
"""
from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamdream import settings_fields
from streamdream.cli import COMMANDS
from streamdream.cli.argument_parser import Parser
from streamdream.settings import ENVIRONMENT_PREFIX, GROUPS, Group

PAGE = Path("docs/settings.md")
HEAD = """# Settings

<!-- made by `make docs` from streamdream/settings.py: edit that file, not this one -->

Every option, by group. A value comes from, in this order: the flag, the environment variable, the preset (`--preset`),
the default. A preset is a `.toml` file with names as in the first column; `--print-config` prints one with the settings
of a run. A switch has an opposite, as `--no-loop`. Times are `90`, `1:30` or `0:01:30.5`.
"""
ROW = "| {name} | {flag} | {variable} | {range} | {default} | {help} |"


def page() -> str:
    """The whole page."""
    commands = settings_of_commands()
    return "\n".join([HEAD, *(_section(group, commands) for group in GROUPS)])


def settings_of_commands() -> dict[str, set[str]]:
    """Command -> the names of the settings that it takes, for commands that take presets."""
    names = {}
    for name, command in COMMANDS.items():
        try:
            command(_Collector(name), [])
        except _Collected as collected:
            if collected.takes_presets:
                names[name] = collected.names
    return names


class _Collected(Exception):
    def __init__(self, parser: Parser) -> None:
        super().__init__()
        actions = parser._actions
        self.takes_presets = any(action.dest == "preset" for action in actions)
        # flags of settings have no default of their own, unlike one that only has the name of another command's setting
        self.names = {action.dest for action in actions if action.default is argparse.SUPPRESS}


class _Collector(Parser):
    """Raises the names of all flags instead of parsing, so that the command never runs."""

    def parse(self, argv: Sequence[str]) -> Any:
        raise _Collected(self)


def _section(group: Group, commands: dict[str, set[str]]) -> str:
    items = dataclasses.fields(group)
    users = [name for name, taken in commands.items() if any(item.name in taken for item in items)]
    title = group.__name__.removesuffix("Settings")
    about = (group.__doc__ or "").splitlines()[0]
    lines = [f"## {title}", "", f"{about} For {', '.join(f'`{name}`' for name in users)}.", "",
             ROW.format(name="name", flag="flag", variable="environment", range="range", default="default",
                        help="what it does"),
             "|---" * 6 + "|"]
    return "\n".join([*lines, *(_row(item, [name for name in users if item.name not in commands[name]])
                                for item in items), ""])


def _row(item: dataclasses.Field[Any], missing: list[str]) -> str:
    legal = " ".join(part for part in (settings_fields.describe_range(item), item.metadata["unit"]) if part)
    is_switch = isinstance(item.default, bool)
    default = ("on" if item.default else "off") if is_switch else f"`{item.default}`".replace("`inf`", "no limit")
    exceptions = f" (not for {', '.join(f'`{name}`' for name in missing)})" if missing else ""
    return ROW.format(name=f"`{item.name}`", flag=f"`{settings_fields.flag(item)}`",
                      variable=f"`{ENVIRONMENT_PREFIX}{item.name.upper()}`",
                      range=legal or ("switch" if is_switch else ""),
                      default=default if item.default != "" else "",
                      help=(item.metadata["help"] + exceptions).replace("|", "\\|"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
