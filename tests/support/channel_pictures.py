"""Sheets of channels and their names, made up, in the place of those of the package."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from streamdream import models
from streamdream.media.opencv import cv2
from streamdream.models import channel_sheets

MODEL = "inception_v3"
NAMES = """[mixed4]
7 = "white feathers"
[mixed5]
12 = "eyes"
33 = "feathers"
220 = "roses"
"""


def write_sheets(folder: Path, missing: str = "") -> Path:
    """Write into ``folder`` the sheets of all blocks but one, each cell with a level of its own; return ``folder``."""
    (folder / MODEL).mkdir(parents=True)
    (folder / MODEL / channel_sheets.NAMES_FILE).write_text(NAMES, encoding="utf-8")
    model = models.get(MODEL)
    for tap in model.blocks():
        rows = -(-model.taps()[tap].channels // channel_sheets.COLUMNS)
        levels = np.arange(rows * channel_sheets.COLUMNS, dtype=np.uint8).reshape(rows, -1)
        sheet = np.kron(levels, np.ones((channel_sheets.CELL,) * 2, np.uint8))
        if tap != missing:
            cv2().imwrite(str(folder / MODEL / channel_sheets.file_name(tap)), cv2().merge([sheet] * 3),
                          [cv2().IMWRITE_WEBP_QUALITY, 50])
    return folder
