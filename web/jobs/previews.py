"""Small pictures of jobs: the newest preview of a running one, and the picture that a finished one is listed with."""
from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SinkError
from streamdream.media.opencv import cv2
from streamdream.media.resize import resize
from streamdream.media.tone_mapping import to_sdr_rgb
from streamdream.system.atomic_file import write_file

from .job import Job
from .job_store import THUMBNAIL

PIXELS, QUALITY = 480 * 270, 80
log = logging.getLogger(__name__)


def encode(picture: NDArray[np.uint8], pixels: int = PIXELS) -> bytes:
    """Return an RGB picture [H, W, 3] as a JPEG of at most so many pixels."""
    scale = min(1.0, math.sqrt(pixels / (picture.shape[0] * picture.shape[1])))
    small = resize(picture, max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
    ok, data = cv2().imencode(".jpg", small[..., ::-1], [cv2().IMWRITE_JPEG_QUALITY, QUALITY])
    return bytes(data.tobytes()) if ok else b""


def current(job: Job) -> bytes:
    """Return the newest preview, or the stored one of a finished job, as a JPEG; b"" if there is none."""
    picture: Any = job.picture
    if picture is not None:
        return encode(to_sdr_rgb(picture))
    try:
        return (job.folder / THUMBNAIL).read_bytes()
    except OSError:
        return b""


def save(job: Job) -> None:
    """Store the newest preview beside the result."""
    picture: Any = job.picture
    if picture is None or job.request is None:
        return
    try:
        write_file(str(job.folder / THUMBNAIL), encode(to_sdr_rgb(picture)), overwrite=True)
    except SinkError as error:
        log.warning("the small picture of a result is not stored: %s", error)
