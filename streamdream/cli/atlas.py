"""The command ``atlas``."""
from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream import settings, settings_parsing
from streamdream.cli import path_conflicts, signals
from streamdream.cli.argument_parser import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.output import log_line, show_log
from streamdream.cli.path_conflicts import NamedPath
from streamdream.errors import SettingsError, StreamdreamError, UsageError
from streamdream.settings import AtlasSettings, DreamSettings, Run, StreamSettings

if TYPE_CHECKING:
    from streamdream.models import Model
    from streamdream.render.atlas import Cell

ATLAS_PRESET = "atlas"
"""The preset that applies when none is named."""
SHEET_JPEG_QUALITY = 80


def atlas_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream one picture at every layer of a network, on one sheet

    streamdream atlas photo.jpg -o sheet.png
    streamdream atlas photo.jpg -o sheet.png --model bvlc_googlenet --layers conv2/norm2,inception_4c/output
    streamdream atlas photo.jpg -o folder                a file for each layer, and no sheet
    """
    parser.add_argument("input", nargs="?", help="a PNG or JPEG picture")
    parser.add_argument("-o", "--output", help="the sheet, .png, .jpg or .webp; or a folder for single files")
    add_run_flags(parser)
    add_settings(parser, AtlasSettings, DreamSettings, StreamSettings)
    args = parser.parse(argv)
    run = resolve(args, ATLAS_PRESET)
    if args.print_config:
        print(settings.to_toml((run.atlas, run.dream, run.stream)), end="")
        return 0
    parser.require(args, input="a file", output="-o sheet.png")
    from streamdream import models
    from streamdream.media import images
    from streamdream.render.atlas import remove_if_empty

    target = Path(args.output)
    sheet = bool(target.suffix)
    folder = target.with_name(f".{target.name}.cells") if sheet else target
    path_conflicts.check(args, run, _atlas_files(folder), folder=not sheet)
    if sheet:
        images.check_output(args.output, args.overwrite, args.input)
    elif not target.absolute().parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}")
    model = models.get(run.stream.model)
    chosen = [layer.name for layer in settings_parsing.parse_layers(run.dream.layers)] if "layers" in vars(args) else []
    taps = list(dict.fromkeys(map(model.resolve_tap, chosen))) or list(model.taps())
    try:
        cells, seconds = _dream_atlas(args, run, model, taps, folder, replace=sheet or args.overwrite)
    except StreamdreamError:
        remove_if_empty(folder)
        raise
    if sheet:
        from streamdream.render.atlas import draw_sheet

        images.write_image(args.output, draw_sheet(images.read_image(args.input), cells, run.atlas),
                           SHEET_JPEG_QUALITY, args.overwrite)
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps({"output": args.output, "model": model.name, "seconds": round(seconds, 3),
                          "layers": [cell.tap for cell in cells]}))
    else:
        print(f"{args.output}: {len(cells)} layers of {model.name} in {seconds:.0f} s")
    return 0


def _atlas_files(folder: Path) -> list[NamedPath]:
    """Return the files of an earlier atlas, which may be removed."""
    from streamdream.render import atlas

    return [NamedPath("-o", str(path)) for path in folder.glob("*") if atlas.is_part(path)]


def _dream_atlas(args: argparse.Namespace, run: Run, model: Model, taps: list[str], folder: Path, replace: bool
                 ) -> tuple[list[Cell], float]:
    """Dream the missing cells; return all cells and the seconds. ``replace`` cells of other settings."""
    from streamdream.cli.progress import Progress
    from streamdream.dream import reference_images
    from streamdream.media import images
    from streamdream.render import atlas
    from streamdream.system.durations import describe_seconds

    image = images.read_image(args.input)
    reference_images.read(run.dream)
    show_log(args.json)
    if not model.available()[0]:
        model.load_weights()  # its error says what to fetch
    atlas.prepare_folder(folder, atlas.make_key(image, run.dream, run.stream), replace)
    from streamdream.dream.build import build_dreamer

    dreamer = build_dreamer(run.stream)
    cells = atlas.plan(model, taps, run.dream, dreamer.options.field_size(*image.shape[:2]), folder)
    if not cells:
        raise SettingsError(f"the picture is too small for {', '.join(taps)}; a larger --field-height reaches higher")
    for tap in sorted(set(taps) - {cell.tap for cell in cells}):
        log_line(f"warning: {tap} is left out: the picture is too small for it; a larger --field-height reaches it")
    renderer = atlas.AtlasRenderer(image, model, dreamer.backend, run.stream, cells,
                                   on_step=lambda step: signals.check())
    done = len(cells) - len(renderer.remaining)
    with signals.describe_with(lambda: f"{len(cells) - len(renderer.remaining)} of {len(cells)} layers are kept; the "
                               "same command continues from there"):
        if not args.json:
            log_line(f"{len(renderer.remaining)} layers to dream, about {describe_seconds(renderer.estimate_seconds())}"
                + (f"; {done} are there already" if done else ""))
        with Progress(f"{args.input} → {args.output}", len(cells), "layers", args.json) as progress:
            renderer.run(progress.update)
    return cells, dreamer.options.stats.elapsed_seconds
