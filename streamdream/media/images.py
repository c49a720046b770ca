"""Read and write picture files."""
from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError, SourceError, UsageError
from streamdream.media.frame import check_picture
from streamdream.media.metadata import to_exif
from streamdream.media.opencv import cv2
from streamdream.system.atomic_file import write_file

WRITABLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
READABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
DEFAULT_QUALITY = 95
DECODER_NOISE = ("libpng", "Corrupt JPEG data", "Premature end of JPEG", "Invalid SOS", "Unsupported marker",
                 "TIFFReadDirectory", "Warning: ")
"""How the lines begin that image libraries print to the process's stderr."""
_stderr_lock = threading.Lock()
log = logging.getLogger(__name__)


def is_image_file(path: str) -> bool:
    """Whether the name has a picture's suffix; any other file is taken for a video."""
    return Path(path).suffix.lower() in READABLE


def read_image(path: str) -> NDArray[np.uint8]:
    """Upright RGB uint8 [H, W, 3]; 16-bit and grey pictures are converted, transparency is dropped.

    A picture that is partly damaged causes a warning. Raises UsageError when there is no such file, SourceError when
    it is not a picture.
    """
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder, not a picture")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not data:
        raise SourceError(f"{path} is empty")
    cv = cv2()
    with capture_decoder_noise() as noise:
        image = cv.imdecode(np.frombuffer(data, np.uint8), cv.IMREAD_COLOR_RGB)
    if image is None:
        raise SourceError(f"{path} is not a picture that can be read")
    if noise:
        log.warning("%s is damaged (%s); it is used as far as it can be read", path, noise[0].lower())
    result: NDArray[np.uint8] = image
    return result


@contextlib.contextmanager
def capture_decoder_noise() -> Iterator[list[str]]:
    """Keep what libpng and libjpeg print off the terminal; the list holds their lines after the ``with`` block.

    They write to file descriptor 2, which belongs to the whole process; lines of others are printed afterwards.
    """
    lines: list[str] = []
    with _stderr_lock, contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
        except OSError:  # stderr is closed
            yield lines
            return
        stack.callback(os.close, saved)
        captured = stack.enter_context(tempfile.TemporaryFile())
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(captured.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            captured.seek(0)
            for line in captured.read().splitlines(keepends=True):
                if line.decode(errors="replace").startswith(DECODER_NOISE):
                    lines.append(line.decode(errors="replace").strip())
                else:
                    with contextlib.suppress(OSError):
                        os.write(2, line)


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


def write_image(path: str, image: NDArray[np.uint8], quality: int = DEFAULT_QUALITY, overwrite: bool = False,
                recipe: str = "") -> None:
    """RGB uint8 [H, W, 3] -> a file that appears whole or not at all, with ``recipe`` in its metadata.

    Raises SinkError; see ``atomic_file.AtomicFile`` for a name that is taken.
    """
    check_picture(image)
    write_file(path, encode_image(image[..., ::-1], Path(path).suffix, path, quality, recipe), overwrite)


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
