"""Pictures of every look: ``bench look-sheets --sheets FOLDER`` writes a sheet of each look on each kind of footage.

``python -m streamdream_bench.look_sheets`` makes docs/looks.md with its two sheets, and the thumbnails of the page that
are missing; with names of looks, also the thumbnails of these. Run it from the repository root.
"""
from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from streamdream import settings
from streamdream.dream.build import build_dreamer
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.errors import UsageError
from streamdream.media.images import read_image, write_image
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings, StreamSettings

from . import Options, Progress, Report, clips, conditions
from .footage import all_footage
from .metrics import Picture

DEFAULT_SIZE = (240, 320)
DEFAULT_FRAMES = 6
LOOKS_ON_SHEET = 8
LABEL = 16
"""Lines above a picture for its name."""
DOCS, THUMBNAILS = Path("docs"), Path("web/assets/looks")
PHOTO = Path("web/assets/layers/cat.png")
DOCS_KIND = "animation"
"""Footage of the second sheet in docs/looks.md: flat, and computed, so that it may be shipped."""
DOCS_SIZE, DOCS_COLUMNS, DOCS_BYTES = (120, 160), 6, 250_000
THUMBNAIL_SIZE, THUMBNAIL_QUALITY, MAX_BYTES = (130, 200), 70, 8000
FINER = 1.25
"""Small pictures are dreamed at so many times their size: most channels dream things of 30 to 90 pixels."""
HEAD = """# Looks

<!-- made by `python -m streamdream_bench.look_sheets` from streamdream/presets/look-*.toml: edit those -->

A look is a preset: layers with channels, octaves, colours. `streamdream render VIDEO --preset look-roses`, the same
with `live` and `image`; on the page each has its picture. Mix your own with `--layers` (see [models.md](models.md)),
and keep what `--print-config` prints as a `.toml` file.
"""


def run(options: Options, progress: Progress) -> Report:
    """Dream all kinds of footage with every look; write sheets of LOOKS_ON_SHEET looks; a row tells what is on each."""
    if not options.sheets:
        raise UsageError("--sheets names the folder for the sheets")
    folder = Path(options.sheets)
    folder.mkdir(parents=True, exist_ok=True)
    height, width = options.height or DEFAULT_SIZE[0], options.width or DEFAULT_SIZE[1]
    frames = options.frames or DEFAULT_FRAMES
    kinds = all_footage(options.clips)
    footage = {name: kind(frames, height, width) for name, kind in kinds.items()}
    names = [name.strip() for name in options.presets.split(",") if name.strip()] or settings.look_names()
    dreamer = build_dreamer(StreamSettings(field_height=options.field_height, seed=options.seed, device=options.device,
                                           backend=options.backend, precision=options.precision))
    rows = []
    for first in range(0, len(names), LOOKS_ON_SHEET):
        cells: dict[str, Picture] = {}
        for name in names[first:first + LOOKS_ON_SHEET]:
            progress(name)
            cells |= {f"{name}: {kind}": dream_clip(dreamer, pictures, settings.resolve({}, {}, name).dream)
                      for kind, pictures in footage.items()}
        path = folder / f"looks-{first // LOOKS_ON_SHEET + 1}.png"
        write_image(str(path), draw(cells, len(footage)), overwrite=True)
        rows += [{"look": name, "sheet": str(path)} for name in names[first:first + LOOKS_ON_SHEET]]
    return Report("look-sheets", conditions(clips=", ".join(footage), size=f"{width}x{height}", frames=frames,
                                            seed=options.seed), rows)


def dream_clip(dreamer: Dreamer, pictures: Sequence[Picture], dream: DreamSettings) -> Picture:
    """Return the dream of the last picture of a clip."""
    state, result = DreamState(), pictures[0]
    for picture in pictures:
        state, result = dreamer(state, picture, dream)
    return result


def draw(cells: Mapping[str, Picture], columns: int) -> Picture:
    """Arrange pictures of one size, each with its name above, in rows."""
    from PIL import Image, ImageDraw

    height, width = next(iter(cells.values())).shape[:2]
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + 4), rows * (height + LABEL + 4)), "white")
    for number, (name, picture) in enumerate(cells.items()):
        left, top = number % columns * (width + 4), number // columns * (height + LABEL + 4)
        ImageDraw.Draw(sheet).text((left + 2, top + 1), name, "black")
        sheet.paste(Image.fromarray(picture), (left, top + LABEL))
    return np.asarray(sheet)


def still(dreamer: Dreamer, picture: Picture, height: int, width: int, look: str) -> Picture:
    """Dream one picture at FINER times the size that is asked for, and return it at that size."""
    tall, wide = round(height * FINER), round(width * FINER)
    large = cv2().resize(clips.crop_to(picture, tall, wide), (wide, tall), interpolation=cv2().INTER_CUBIC)
    dream = settings.resolve({}, {}, look).dream
    # what the first frame of a clip shows, and a third of a second more
    _, dreamed = dreamer(DreamState(), large, replace(dream, warmup_steps=dream.warmup_steps + 4))
    result: Picture = cv2().resize(dreamed, (width, height), interpolation=cv2().INTER_AREA)
    return result


def write_thumbnail(dreamer: Dreamer, look: str) -> None:
    """Write the picture of a look for the page, at the best quality that takes MAX_BYTES."""
    picture = still(dreamer, read_image(str(PHOTO)), *THUMBNAIL_SIZE, look)
    path = THUMBNAILS / f"{look}.webp"
    path.parent.mkdir(exist_ok=True)
    for quality in range(THUMBNAIL_QUALITY, 20, -6):
        write_image(str(path), picture, quality, overwrite=True)
        if path.stat().st_size <= MAX_BYTES:
            return


def write_docs_sheets(dreamer: Dreamer, names: Sequence[str]) -> None:
    """Write the sheet of all thumbnails, and that of all looks on DOCS_KIND."""
    height, width = (round(side * FINER) for side in DOCS_SIZE)
    frame = all_footage()[DOCS_KIND](3, height, width)[-1]
    sheets = {"photo": {name: read_image(str(THUMBNAILS / f"{name}.webp")) for name in names},
              DOCS_KIND: {name: still(dreamer, frame, *DOCS_SIZE, name) for name in names}}
    for kind, cells in sheets.items():
        sheet = draw({name.removeprefix(settings.LOOK_PREFIX): cell for name, cell in cells.items()}, DOCS_COLUMNS)
        for quality in range(THUMBNAIL_QUALITY, 20, -6):
            write_image(str(DOCS / f"looks-{kind}.webp"), sheet, quality, overwrite=True)
            if (DOCS / f"looks-{kind}.webp").stat().st_size <= DOCS_BYTES:
                break


def page(names: Sequence[str]) -> str:
    """The text of docs/looks.md."""
    families = sorted({settings.preset_family(name) for name in names})
    lines = [HEAD]
    for family in families:
        lines += [f"## {family.capitalize()}", "", "| look | what one sees |", "|---|---|",
                  *(f"| `{name}` | {settings.about_preset(name)} |" for name in names
                    if settings.preset_family(name) == family), ""]
    lines += ["## Sheets", "", *(f"![All looks on {what}](looks-{kind}.webp)\n" for kind, what in (
        ("photo", "a photograph"), (DOCS_KIND, "flat shapes and text")))]
    return "\n".join(lines)


def main(again: Sequence[str]) -> None:
    """Make the page, and the thumbnails that are missing or named."""
    names = settings.look_names()
    dreamer = build_dreamer(StreamSettings(field_height=0, backend="eager"))
    for name in names:
        if name in again or not (THUMBNAILS / f"{name}.webp").exists():
            write_thumbnail(dreamer, name)
    write_docs_sheets(dreamer, names)
    (DOCS / "looks.md").write_text(page(names), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
