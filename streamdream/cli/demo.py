"""The command ``demo``."""
from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from streamdream.cli.argument_parser import Parser
from streamdream.cli.render import render_command
from streamdream.media.sample_files import EXAMPLE_CLIP

LOOK = "--preset", "look-rainbow-arches", "--strength", "0.7"
NEXT = """
The dream is in {path}. Next:
  {program} render YOUR.mp4 -o dream.mp4                         a video of yours
  {program} render YOUR.mp4 -o dream.mp4 --preset look-roses     another look
  {program} presets                                              all looks
  {program} web                                                  your camera, live in the browser"""


def demo_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream a sample clip, into demo.mp4

    streamdream demo
    streamdream demo -o other.mp4
    """
    parser.add_argument("-o", "--output", default="demo.mp4", help="the dreamed video (demo.mp4)")
    args = parser.parse(argv)
    overwrite = ["-y"] if args.output == parser.get_default("output") else []
    code = render_command(Parser("render"), [str(EXAMPLE_CLIP), "-o", args.output, *LOOK, *overwrite])
    program = Path(sys.argv[0])
    name = "streamdream" if program.name == "__main__.py" else os.path.relpath(program)
    print(NEXT.format(path=Path(args.output).absolute(), program=name if len(name) < len(str(program)) else program))
    return code
