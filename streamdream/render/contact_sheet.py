"""Draw labelled pictures in rows on one sheet."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.resize import resize

Picture = NDArray[np.uint8]
GAP, LABEL, INK, PAPER = 6, 17, (225, 225, 225), (18, 18, 20)
SHEET_ASPECT = 1.5
"""Width by height that the number of columns aims at."""


def draw_contact_sheet(pictures: Sequence[tuple[str, Picture]], width: int, columns: int = 0) -> Picture:
    """Pictures of the shape of the first one, each ``width`` wide with its name below: uint8 [H, W, 3] RGB."""
    from PIL import Image, ImageDraw

    first = pictures[0][1]
    height = max(1, round(width * first.shape[0] / first.shape[1]))
    columns = columns or _columns(len(pictures), width + GAP, height + LABEL)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + LABEL) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (name, picture) in enumerate(pictures):
        row, column = divmod(number, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + LABEL)
        sheet.paste(Image.fromarray(resize(picture, height, width)), (left, top))
        pen.text((left, top + height + 1), name, INK, _font(pen, name, width))
    return np.asarray(sheet)


def _columns(count: int, width: int, height: int) -> int:
    wanted: float = (count * height / width * SHEET_ASPECT) ** 0.5
    return max(1, min(count, round(wanted)))


def _font(pen: Any, text: str, width: int) -> Any:
    """The largest of a few sizes in which the text fits."""
    from PIL import ImageFont

    fonts = [ImageFont.load_default(size) for size in (12, 11, 10, 9, 8, 7, 6)]
    return next((font for font in fonts if pen.textlength(text, font) <= width), fonts[-1])
