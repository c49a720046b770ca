"""Settings as flags, and a parser whose errors are one line."""
from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from streamdream import settings
from streamdream.errors import UsageError
from streamdream.settings import Group, Run


class Parser(argparse.ArgumentParser):
    """argparse, with errors as exceptions and no abbreviations (``--st`` would change meaning with the next flag)."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """As parse_args, but an unknown flag names the close ones."""
        args, unknown = self.parse_known_args(argv)
        flags = [text for action in self._actions for text in action.option_strings]
        for text in unknown:
            close = difflib.get_close_matches(text.partition("=")[0], flags, n=3) if text.startswith("-") else []
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            self.error(f"unexpected {text!r}{hint}")
        return args


def add_settings(parser: Parser, *groups: Group, without: Collection[str] = ()) -> None:
    """A flag for every field; its text is parsed by settings.resolve, so presets and environment go the same way."""
    for group in groups:
        section = parser.add_argument_group((group.__doc__ or "").splitlines()[0].rstrip("."))
        for item in dataclasses.fields(group):
            if item.name in without:
                continue
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


def resolve(args: argparse.Namespace, preset: str = "") -> Run:
    """The settings of a run from its flags, the environment and the preset."""
    names = {item.name for group in settings.GROUPS for item in dataclasses.fields(group)}
    flags = {name: text for name, text in vars(args).items() if name in names}
    return settings.resolve(flags, os.environ, args.preset or preset)


def add_run_flags(parser: Parser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("-y", dest="overwrite", action="store_true", help="overwrite the output if it exists")
    either.add_argument("-n", dest="overwrite", action="store_false", help="never overwrite it (the default)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout when done")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(overwrite=False)
