"""The flags of live and render that change settings over time."""
from __future__ import annotations

import argparse

from streamdream.automation.opening import AutomationFiles
from streamdream.cli.argument_parser import Parser


def add_automation_flags(parser: Parser) -> None:
    """Add the flags that replay and record settings."""
    parser.advanced += [
        parser.add_argument("--settings-track", default="", metavar="FILE", help="replay the settings of this file"),
        parser.add_argument("--record-settings", default="", metavar="FILE",
                            help="record all settings and their changes to this file"),
    ]


def automation_files(args: argparse.Namespace) -> AutomationFiles:
    return AutomationFiles(args.settings_track, args.record_settings, args.overwrite)
