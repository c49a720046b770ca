"""The command that lists the presets."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence

from streamdream import settings
from streamdream.cli.flags import Parser


def presets_command(parser: Parser, argv: Sequence[str]) -> int:
    """list the presets, and what each stands for"""
    parser.parse(argv)
    for name in settings.preset_names():
        print(name)
        print(textwrap.indent(textwrap.fill(settings.about_preset(name), 100), "    "))
    return 0
