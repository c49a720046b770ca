"""Read and write picture files."""
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, UsageError
from streamdream.media.frame import check_picture
from streamdream.media.metadata import to_exif
from streamdream.media.opencv import cv2
from streamdream.media.picture_decoder import Picture, read_picture
from streamdream.system.atomic_file import write_file

WRITABLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
READABLE = (".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".webp", ".avif", ".heic", ".heif", ".hif", ".bmp", ".tif",
            ".tiff", ".ppm", ".pgm", ".pnm", ".jp2")
WITH_ALPHA = (".png", ".webp")
"""Files that hold transparency."""
DEFAULT_QUALITY = 95
log = logging.getLogger(__name__)


def is_image_file(path: str) -> bool:
    """Whether the name has a picture's suffix; any other file is taken for a video."""
    return Path(path).suffix.lower() in READABLE


def read_image(path: str) -> NDArray[np.uint8]:
    """Upright RGB uint8 [H, W, 3] in sRGB; transparent parts are black. What was changed, or is damaged, is logged.

    Raises as ``picture_decoder.read_picture``.
    """
    picture = read_picture(path)
    log_notes(path, picture)
    if picture.alpha is not None:
        log.info("%s: what is transparent becomes black", path)
    return picture.flattened


def log_notes(path: str, picture: Picture) -> None:
    for note in picture.notes:
        log.warning("%s %s", path, note)


def check_output(path: str, overwrite: bool, input_path: str = "") -> None:
    """Raises UsageError for what can be known before any work is done."""
    target = Path(path)
    if target.suffix.lower() not in WRITABLE:
        raise UsageError(f"{path}: the picture's name must end in {', '.join(WRITABLE)}")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {target.parent}")
    if input_path and target.exists() and Path(input_path).exists() and target.samefile(input_path):
        raise UsageError(f"{path} is the input; name another output")
    if target.exists() and not overwrite:
        raise UsageError(f"{path} exists; -y overwrites it")


def write_image(path: str, image: NDArray[np.uint8], quality: int = DEFAULT_QUALITY, overwrite: bool = False,
                recipe: str = "", alpha: NDArray[np.uint8] | None = None) -> None:
    """RGB uint8 [H, W, 3] -> a file that appears whole or not at all, with ``recipe`` in its metadata.

    ``alpha`` [H, W] is for a file that is ``WITH_ALPHA``. Raises SinkError; see ``atomic_file.AtomicFile`` for a name
    that is taken.
    """
    check_picture(image)
    bgr = image[..., ::-1] if alpha is None else np.dstack([image[..., ::-1], alpha])
    write_file(path, encode_image(bgr, Path(path).suffix, path, quality, recipe), overwrite)


def encode_image(bgr: NDArray[Any], suffix: str, name: str, quality: int = DEFAULT_QUALITY, recipe: str = ""
                 ) -> bytes:
    """[H, W, 3 or 4], BGR or BGRA -> the bytes of a picture file, with ``recipe`` in the metadata of all but TIFF.

    The samples are uint8; uint16, too, for PNG and TIFF.

    ``quality`` is of JPEG and WebP, 1..100. Raises SinkError, which names the output ``name``.
    """
    cv, suffix = cv2(), suffix.lower()
    flag = {".webp": cv.IMWRITE_WEBP_QUALITY, ".jpg": cv.IMWRITE_JPEG_QUALITY,
            ".jpeg": cv.IMWRITE_JPEG_QUALITY}.get(suffix)
    options = [] if flag is None else [flag, quality]
    has_exif = recipe and suffix not in (".tif", ".tiff")
    kinds, blocks = ([cv.IMAGE_METADATA_EXIF], [to_exif(recipe)]) if has_exif else ([], [])
    ok, data = cv.imencodeWithMetadata(suffix, bgr, kinds, blocks, options)
    if not ok:
        raise SinkError(f"{name}: the picture could not be encoded")
    return bytes(data)
