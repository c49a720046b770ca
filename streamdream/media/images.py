"""Pictures from and to files."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, SourceError, UsageError
from streamdream.media.frame import check_picture
from streamdream.media.opencv import cv2
from streamdream.system.atomic_file import write_file

WRITABLE = (".png", ".jpg", ".jpeg")


READABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


def is_image_file(path: str) -> bool:
    """By its name; what else there is, is a video."""
    return Path(path).suffix.lower() in READABLE


def read_image(path: str) -> NDArray[np.uint8]:
    """Upright RGB uint8 [H, W, 3]; 16-bit and grey pictures are converted, transparency is dropped.

    Raises UsageError when there is no such file, SourceError when it is not a picture.
    """
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder, not a picture")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not data:
        raise SourceError(f"{path} is empty")
    image = cv2().imdecode(np.frombuffer(data, np.uint8), cv2().IMREAD_COLOR_RGB)
    if image is None:
        raise SourceError(f"{path} is not a picture that can be read")
    result: NDArray[np.uint8] = image
    return result


def check_output(path: str, overwrite: bool, input_path: str = "") -> None:
    """Raises UsageError for what can be known before any work is done."""
    target = Path(path)
    if target.suffix.lower() not in WRITABLE:
        raise UsageError(f"{path}: the picture's name must end in {', '.join(WRITABLE)}")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {target.parent}")
    if input_path and target.exists() and target.samefile(input_path):
        raise UsageError(f"{path} is the input; name another output")
    if target.exists() and not overwrite:
        raise UsageError(f"{path} exists; -y overwrites it")


def write_image(path: str, image: NDArray[np.uint8], jpeg_quality: int = 95, overwrite: bool = False) -> None:
    """RGB uint8 [H, W, 3] -> a file that appears whole or not at all.

    Raises SinkError; see ``atomic_file.AtomicFile`` for a name that is taken.
    """
    check_picture(image)
    suffix = Path(path).suffix.lower()
    options = [] if suffix == ".png" else [cv2().IMWRITE_JPEG_QUALITY, jpeg_quality]
    done, data = cv2().imencode(suffix, image[..., ::-1], options)
    if not done:
        raise SinkError(f"{path}: the picture could not be encoded")
    write_file(path, data.tobytes(), overwrite)
