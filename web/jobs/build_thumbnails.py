"""Make the thumbnails that are shipped: ``python -m streamdream_web.jobs.build_thumbnails``, some minutes on a CPU.

A layer whose file exists is skipped, so an interrupted build can be continued; delete the files to make them again.
"""
from __future__ import annotations

import tempfile
from pathlib import Path

from streamdream import backends, models
from streamdream.errors import SinkError
from streamdream.media import images
from streamdream.media.opencv import cv2
from streamdream.render import atlas
from streamdream.settings import StreamSettings

from . import thumbnails

MODEL = "inception_v3"
WEBP_QUALITY = 75


def build(model_name: str = MODEL) -> None:
    """Write a WebP image for each layer into the package's assets."""
    model, image = models.get(model_name), thumbnails.sample_image()
    backend = backends.create("eager", model, "cpu", "fp32")
    with tempfile.TemporaryDirectory() as temporary:
        cells = atlas.plan(model, list(model.taps()), thumbnails.dream_settings(), image.shape[:2], Path(temporary))
        for cell in cells:
            path = thumbnails.shipped_path(model_name, cell.tap)
            if path.exists():
                continue
            atlas.AtlasRenderer(image, model, backend, StreamSettings(model=model_name), [cell]).run(
                lambda done, seconds_left: None)
            write_webp(path, cell.path)


def write_webp(path: Path, png: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    bgr = cv2().cvtColor(images.read_image(str(png)), cv2().COLOR_RGB2BGR)
    if not cv2().imwrite(str(path), bgr, [cv2().IMWRITE_WEBP_QUALITY, WEBP_QUALITY]):
        raise SinkError(f"{path}: cannot be written")


if __name__ == "__main__":
    build()
