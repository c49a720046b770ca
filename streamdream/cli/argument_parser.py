"""The argument parser of the commands. It makes a flag of each setting; settings.py declares those."""
from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from streamdream import settings, settings_fields
from streamdream.cli.output import log_line
from streamdream.errors import SettingsError, UsageError
from streamdream.settings import Group, Run
from streamdream.settings_parsing import parse_layers

USUAL = {
    "layers", "guide", "strength", "octaves", "steps", "keep", "model", "field_height", "backend",  # of every dream
    "start", "duration", "end", "seconds", "mirror", "zoom", "rotate", "columns", "host", "port", "auth", "token",
}
"""Settings in the short help, in addition to the flags of the command itself."""
RENAMED_FLAGS = {settings_fields.flag_name(prefix + old): settings_fields.flag_name(prefix + new)
                 for old, new in settings.RENAMED_FIELDS.items() for prefix in ("", "no_")}
"""Old flag -> new flag, for the error message."""
FULL_HELP = "full"


class Parser(argparse.ArgumentParser):
    """argparse with errors as exceptions, a short and a full help, and no abbreviations."""

    def __init__(self, command: str, description: str = "") -> None:
        super().__init__(prog=f"streamdream {command}", description=inspect.cleandoc(description), allow_abbrev=False,
                         add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.advanced: list[argparse.Action] = []
        """Options that only the full help shows."""
        self._argv: Sequence[str] = ()
        self.add_argument("-h", "--help", action="store_true", help="show the usual options; --help full shows all")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}{self._file_name_hint()} (see: {self.prog} --help)")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse as parse_args, but name the close flags of an unknown one, and require no argument for ``--help``.

        Raises UsageError, and SystemExit after the help.
        """
        self._argv = argv
        options = argv[:argv.index("--")] if "--" in argv else argv
        for number, text in enumerate(options):
            if text in ("-h", "--help"):
                self._print_help(full=FULL_HELP in options[number + 1:number + 2])
        args, unknown = self.parse_known_args(argv)
        if isinstance(getattr(args, "input", None), list) and not any(text.startswith("-") for text in unknown):
            args.input += unknown  # those after the first option, which argparse does not expect
            unknown = []
        for text in unknown:
            self.error(f"unexpected {text!r}{self._flag_hint(text)}")
        return args

    def require(self, args: argparse.Namespace, **examples: str) -> None:
        """Raise UsageError where one of these arguments is missing; they are optional for ``--print-config`` only."""
        for name, example in examples.items():
            if getattr(args, name) in (None, "", [], [""]):
                self.error(f"the {name} is missing: {example}")

    def _print_help(self, full: bool) -> NoReturn:
        hidden = [] if full else self.advanced
        for action in hidden:
            action.help = argparse.SUPPRESS
        if hidden:
            names = ["INPUT" if action.dest == "input" else action.dest.upper() for action in self._actions
                     if not action.option_strings]
            output = ["-o OUTPUT"] if any(action.dest == "output" for action in self._actions) else []
            self.usage = " ".join([self.prog, *names, *output, "[options]"])
            self.epilog = f"{self.prog} --help full shows {len(hidden)} more options."
        self.print_help()
        self.exit()

    def _flag_hint(self, text: str) -> str:
        name = text.partition("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        if name in RENAMED_FLAGS and RENAMED_FLAGS[name] in flags:
            return f"; its new name is {RENAMED_FLAGS[name]}"
        close = difflib.get_close_matches(name, flags, n=3) if text.startswith("-") and name not in flags else []
        return f"; did you mean {', '.join(close)}?" if close else ""

    def _file_name_hint(self) -> str:
        """For a file whose name begins with a dash, which is taken for a flag."""
        flags = {flag for action in self._actions for flag in action.option_strings}
        for text in self._argv:
            is_name = Path(text).suffix != "" or ("--" in self._argv and text != "--")
            if text.startswith("-") and is_name and "=" not in text and text not in flags:
                return f"; a file name that begins with a dash is written ./{text}"
        return ""


FILE_FIELDS = ("sdr", "audio_codec", "audio_bit_rate", "no_audio", "map", "deinterlace", "input_rate")
"""Settings of renders from file to file only."""


def add_settings(parser: Parser, *groups: Group, without: Collection[str] = ()) -> None:
    """Add a flag for every field. Its text is parsed by settings.resolve, as presets and the environment are."""
    parser.add_argument("--preset", default="", help="preset to start from, such as look-roses, a .toml file, or a "
                                                    "dream, whose recipe is used; streamdream presets lists all")
    for group in groups:
        section = parser.add_argument_group((group.__doc__ or "").splitlines()[0].rstrip("."))
        for item in dataclasses.fields(group):
            if item.name in without:
                continue
            if isinstance(item.default, bool):
                action = section.add_argument(settings_fields.flag(item), dest=item.name, default=argparse.SUPPRESS,
                                              action="store_const", const="true", help=_help(item))
                section.add_argument("--no-" + settings_fields.flag(item).lstrip("-"), dest=item.name,
                                     default=argparse.SUPPRESS, action="store_const", const="false",
                                     help=argparse.SUPPRESS)
            else:
                action = section.add_argument(settings_fields.flag(item), dest=item.name, default=argparse.SUPPRESS,
                                              metavar=item.name.split("_")[-1].upper(), help=_help(item))
            if item.name not in USUAL:
                parser.advanced.append(action)
    parser.advanced.append(parser.add_argument("--print-config", action="store_true",
                                               help="print the settings as a preset file and exit"))


def _help(item: dataclasses.Field[Any]) -> str:
    legal = " ".join(part for part in (settings_fields.describe_range(item), item.metadata["unit"]) if part)
    default = "" if item.default is False or item.default in ("", float("inf")) else f"default {item.default}"
    details = "; ".join(part for part in (legal, default) if part)
    return f"{item.metadata['help']} ({details})".replace(" ()", "").replace("%", "%%")


def resolve(args: argparse.Namespace, preset: str = "") -> Run:
    """Resolve the settings of a run from its flags, the environment and the preset.

    A model other than the default one dreams its own default layers, where none are named.
    """
    flags = {name: text for name, text in vars(args).items() if name in settings.all_fields()}
    values: settings.Preset = args.preset or preset
    for name, close in settings.misspelled_variables(os.environ).items():
        log_line(f"warning: the environment variable {name} is unknown; did you mean {close}?")
    if Path(args.preset).suffix not in ("", ".toml"):
        values = _use_recipe(args, flags)
    run = settings.resolve(flags, os.environ, values)
    if not settings.is_named("layers", flags, os.environ, values):
        from streamdream import models

        layers = models.get(run.stream.model).default_layers
        run = dataclasses.replace(run, dream=dataclasses.replace(run.dream, layers=layers))
    run = _let_flags_win(run, flags)
    if "channel" in flags and all(layer.channels for layer in parse_layers(run.dream.layers)):
        raise SettingsError(f"--channel {flags['channel']}: every layer names its channels ({run.dream.layers}); name "
                            "another one with --layers")
    return run


def _let_flags_win(run: Run, flags: Mapping[str, str]) -> Run:
    """Drop the play list of a preset where a flag says what is dreamed. Raises UsageError for two flags that do."""
    if "journey" in flags and "layers" in flags:
        raise UsageError("--journey goes through the layers of the network; leave out --layers")
    if "playlist" in flags or not flags.keys() & {"layers", "journey"}:
        return run
    return dataclasses.replace(run, automation=dataclasses.replace(run.automation, playlist=""))


def _use_recipe(args: argparse.Namespace, flags: Mapping[str, str]) -> dict[str, Any]:
    """The values of the recipe in the file that --preset names; its settings track becomes the argument's."""
    from streamdream.render import recipe

    found = recipe.read(args.preset)
    replaced = [name for name in (*recipe.FILES, "playlist", "model") if settings.is_named(name, flags, os.environ)]
    if getattr(args, "settings_track", None) != "":  # given, or not of this command
        replaced.append("settings_track")
    for warning in [*recipe.unknown_keys(found), *recipe.check_files(found, replaced)]:
        log_line(f"warning: {warning}")
    if "settings_track" not in replaced:
        args.settings_track = found.settings_track
    return found.values


def add_run_flags(parser: Parser) -> None:
    """Add the flags of every command that writes an output."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("-y", dest="overwrite", action="store_true", help="overwrite an existing output")
    parser.advanced += [
        either.add_argument("-n", dest="overwrite", action="store_false", help="keep an existing output (the default)"),
        parser.add_argument("--json", action="store_true", help="print one JSON object on stdout at the end"),
        parser.add_argument("--debug", action="store_true", help="show tracebacks"),
    ]
    parser.set_defaults(overwrite=False)
