"""The command that prints the recipe of a dream."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from streamdream import settings
from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import log_line


def recipe_command(parser: Parser, argv: Sequence[str]) -> int:
    """print the recipe of a dream, as a preset

    streamdream recipe dream.mp4
    streamdream recipe dream.png > mine.toml
    """
    parser.add_argument("file", nargs="?", help="a dreamed video or picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse(argv)
    parser.require(args, file="dream.mp4")
    from streamdream.render import recipe

    found = recipe.read(args.file)
    for warning in recipe.unknown_keys(found):
        log_line(f"warning: {warning}")
    if args.json:
        values = {name: "inf" if value == float("inf") else value for name, value in found.values.items()}
        print(json.dumps({"version": found.version, "settings": values, "weights": found.weights,
                          "settings_track": found.settings_track, "sha256": found.digests}))
        return 0
    print(f"# The recipe of {Path(args.file).name}, made by streamdream {found.version or 'of an unknown version'}.")
    for line in recipe.listed_files(found):
        print(f"# {line}")
    for name, value in found.values.items():
        print(f"{settings.toml_line(name, value)}  # {settings.describe_field(recipe.FIELDS[name])}")
    return 0
