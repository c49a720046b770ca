"""A real Chromium with a camera that plays a file."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
         "--use-fake-device-for-media-stream")


def write_camera(path: Path, images: list[NDArray[np.uint8]]) -> Path:
    """What the camera will show, over and over: JPEG pictures one after the other."""
    with path.open("wb") as file:
        for image in images:
            file.write(cv2().imencode(".jpg", cv2().cvtColor(image, cv2().COLOR_RGB2BGR),
                                      [cv2().IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return path


@contextmanager
def chromium(camera: Path | None = None) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    shown = [f"--use-file-for-fake-video-capture={camera}"] if camera else []
    with sync_playwright() as automation:
        browser = automation.chromium.launch(executable_path=CHROMIUM, headless=True, args=[*FLAGS, *shown])
        try:
            yield browser
        finally:
            browser.close()


def is_error(message: Any) -> bool:
    """Whether a message in the console is an error of the page. Chromium drops a frame of a camera that is stopped just
    then, before the page gets it, and complains; test_web_camera.py sees that the page closes all that it gets.
    """
    return message.type == "error" and not message.text.startswith("A VideoFrame was garbage collected")
