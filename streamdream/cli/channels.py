"""The command ``channels``."""
from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream import settings
from streamdream.cli import path_conflicts, signals
from streamdream.cli.argument_parser import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.output import log_line, print_table
from streamdream.errors import UnknownName, UsageError
from streamdream.settings import Run, StreamSettings

if TYPE_CHECKING:
    from streamdream.models import Model
    from streamdream.models.channel_sheets import Sheet

ALL = "all"
"""Stands for every block."""
CELL, COLUMNS = 96, 24
"""Of an annotated sheet."""
SHEET_QUALITY = 85
WITHOUT = ("field_height", "backend", "tile_memory", "memory", "seed")
"""Settings that change no sheet."""


def channels_command(parser: Parser, argv: Sequence[str]) -> int:
    """show what each channel of a layer dreams, and find channels by name

    streamdream channels                         the layers that have sheets, and the names in use
    streamdream channels mixed5                  the named channels of a layer, and where its sheet is
    streamdream channels mixed5 -o mixed5.png    its sheet, with numbers
    streamdream channels feathers                channels by name; -o feathers.png shows them
    streamdream channels inception_4c/output --model bvlc_googlenet    made at first use; all for every block
    """
    parser.add_argument("names", nargs="*", metavar="LAYER or WORD", help="a layer, words of a name, or both")
    parser.add_argument("-o", "--output", help="a picture of them with their numbers, .png, .jpg or .webp")
    add_run_flags(parser)
    add_settings(parser, StreamSettings, without=WITHOUT)
    args = parser.parse(argv)
    run = resolve(args)
    if args.print_config:
        print(settings.to_toml((run.stream,)), end="")
        return 0
    from streamdream import models
    from streamdream.media import images

    path_conflicts.check(args, run)
    if args.output:
        images.check_output(args.output, args.overwrite)
    model = models.get(run.stream.model)
    if args.names[:1] == [ALL]:
        return _make_all(args, run, model)
    tap = _find_tap(model, args.names[0]) if args.names else ""
    words = " ".join(args.names[1:] if tap else args.names)
    if words:
        return _search(args, run, model, tap, words)
    if tap:
        return _show_layer(args, run, model, tap)
    if args.output:
        raise UsageError(f"-o {args.output}: the layer is missing: {', '.join(model.blocks())}")
    return _list_layers(args, model)


def _find_tap(model: Model, name: str) -> str:
    """The tap of that name, or ""."""
    try:
        return model.resolve_tap(name)
    except UnknownName:
        return ""


def _list_layers(args: argparse.Namespace, model: Model) -> int:
    from streamdream.models import channel_sheets

    taps, names = model.taps(), channel_sheets.names(model.name)
    made = [tap for tap in taps if channel_sheets.sheet(model.name, tap)]
    rows = [{"layer": tap, "channels": taps[tap].channels, "named": sum(named == tap for named, _ in names),
             "sheet": "yes" if tap in made else "not made yet"}
            for tap in taps if tap in made or tap in model.blocks()]
    words = sorted(set(names.values()))
    if args.json:
        print(json.dumps({"model": model.name, "layers": rows, "names": words}))
        return 0
    print_table(rows)
    if words:
        print("\n" + textwrap.fill(f"names: {', '.join(words)}", 110))
    return 0


def _show_layer(args: argparse.Namespace, run: Run, model: Model, tap: str) -> int:
    from streamdream.models import channel_sheets

    sheet = _require_sheet(args, run, model, tap)
    names = {channel: words for (named, channel), words in channel_sheets.names(model.name).items() if named == tap}
    if args.output:
        _draw(args, [(f"{number} {names.get(number, '')}", sheet, number) for number in range(sheet.count)])
    if args.json:
        print(json.dumps({"model": model.name, "layer": tap, "channels": sheet.count, "sheet": str(sheet.path),
                          "columns": sheet.columns, "cell": sheet.cell, "names": names, "output": args.output}))
        return 0
    for number, words in names.items():
        print(_line(tap, number, words))
    print(f"{tap}: {sheet.count} channels, {args.output or sheet.path}")
    return 0


def _search(args: argparse.Namespace, run: Run, model: Model, tap: str, text: str) -> int:
    from streamdream.models import channel_sheets

    names = channel_sheets.names(model.name)
    if not names:
        wrong = "" if tap else f"{text!r} is no layer, and "
        raise UsageError(f"{wrong}the channels of {model.name} have no names; its layers: {', '.join(model.blocks())}")
    found = [row for row in channel_sheets.search(model.name, text) if tap in ("", row[0])]
    if not found:
        listed = [*names.values()] if tap else [*model.blocks(), *dict.fromkeys(names.values())]
        raise UnknownName("name" if tap else "layer or name", text, listed, "streamdream channels")
    if args.output:
        _draw(args, [(_line(layer, number, words), _require_sheet(args, run, model, layer), number)
                     for layer, number, words in found])
    if args.json:
        print(json.dumps({"model": model.name, "output": args.output, "channels": [
            {"layer": layer, "channel": number, "name": words} for layer, number, words in found]}))
        return 0
    for row in found:
        print(_line(*row))
    return 0


def _make_all(args: argparse.Namespace, run: Run, model: Model) -> int:
    if args.names[1:] or args.output:
        raise UsageError(f"{ALL} makes the sheets of every block; it takes no words and no -o")
    sheets = {tap: _require_sheet(args, run, model, tap) for tap in model.blocks()}
    if args.json:
        print(json.dumps({"model": model.name, "sheets": {tap: str(sheet.path) for tap, sheet in sheets.items()}}))
    else:
        print_table([{"layer": tap, "channels": sheet.count, "sheet": sheet.path} for tap, sheet in sheets.items()])
    return 0


def _line(tap: str, channel: int, words: str) -> str:
    return f"{tap}[{channel}]  {words}"


def _require_sheet(args: argparse.Namespace, run: Run, model: Model, tap: str) -> Sheet:
    """The sheet of that layer, which is made now where there is none."""
    from streamdream.models import channel_sheets

    found = channel_sheets.sheet(model.name, tap)
    if found is None:
        _make(args, run, model, tap, channel_sheets.made_path(model.name, tap))
        found = channel_sheets.sheet(model.name, tap)
        assert found is not None
    return found


def _make(args: argparse.Namespace, run: Run, model: Model, tap: str, path: Path) -> None:
    from streamdream.cli.progress import Progress
    from streamdream.dream.channel_atlas import ChannelDreamer, make_sheet
    from streamdream.system import torch_threads

    torch_threads.set_process_threads(run.stream.threads)
    dreamer = ChannelDreamer(model, tap, run.stream.device, run.stream.precision, on_step=signals.check)
    done = 0

    def update(number: int) -> None:
        nonlocal done
        done = number
        progress.update(number)

    with signals.describe_with(lambda: f"{done} of {dreamer.count} channels of {tap} are kept; the same command "
                               "continues from there"), \
            Progress(f"{model.name} {tap}", dreamer.count, "channels", args.json) as progress:
        make_sheet(dreamer, path, update)
    if not args.json:
        log_line(f"{tap}: {path}")


def _draw(args: argparse.Namespace, cells: Sequence[tuple[str, Sheet, int]]) -> None:
    """Write the picture of those cells, each with its text below."""
    from streamdream.media import images
    from streamdream.render.contact_sheet import draw_contact_sheet

    sheets = {sheet.path: images.read_image(str(sheet.path)) for sheet in dict.fromkeys(sheet for _, sheet, _ in cells)}
    pictures = []
    for text, sheet, number in cells:
        left, top = sheet.position(number)
        pictures.append((text, sheets[sheet.path][top:top + sheet.cell, left:left + sheet.cell]))
    images.write_image(args.output, draw_contact_sheet(pictures, CELL, min(len(cells), COLUMNS)), SHEET_QUALITY,
                       args.overwrite)
