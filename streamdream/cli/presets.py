"""The command ``presets``."""
from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from streamdream import settings
from streamdream.cli.argument_parser import Parser


def presets_command(parser: Parser, argv: Sequence[str]) -> int:
    """list the presets, or print one as TOML

    streamdream presets
    streamdream presets google-2015 > mine.toml
    """
    parser.add_argument("name", nargs="?", help="preset to print")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse(argv)
    names = [args.name] if args.name else settings.preset_names()
    if args.json:
        print(json.dumps({"presets": [{"name": name, "about": settings.about_preset(name),
                                       "settings": settings.read_preset(name)} for name in names]}))
    elif args.name:
        print(settings.preset_text(args.name), end="")
    else:
        for name in names:
            print(name)
            print(textwrap.indent(textwrap.fill(settings.about_preset(name), 100), "    "))
    return 0
