"""The tab Live in a real Chromium before a camera that plays a file."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2
from support.browser import is_error, write_camera
from support.waiting import until
from support.web_client import Running

SIZE = 640, 480
LIVE = ".sd[data-state=live]"
HINTED = "localStorage.setItem('streamdream-hinted', 'true')"
"""A script of a visitor who has seen the hint of the first dream."""
PAGE = "document.querySelector('.sd').page"


def moving_lion(folder: Path, lion: NDArray[np.uint8]) -> Path:
    """A camera: a lion that goes up, over and over."""
    large = cv2().resize(lion, (720, 540))
    images = [np.ascontiguousarray(large[row:row + SIZE[1], row:row + SIZE[0]]) for row in range(0, 60, 2)]
    return write_camera(folder / "lion.mjpeg", images)


@contextmanager
def opened(browser: Any, web: Running, **context: Any) -> Iterator[Any]:
    """The page, loaded; a console error, a failed request or a word to another server fails the test."""
    until(lambda: not web.waiting_room.sessions)
    visitor = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, "accept_downloads": True,
                                     "reduced_motion": "reduce", **context})  # no click meets what still moves
    visitor.grant_permissions(["clipboard-read", "clipboard-write"], origin=web.url)
    page, problems = visitor.new_page(), []
    page.on("console", lambda message: problems.append(message.text) if is_error(message) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((web.url, "data:", "blob:", "ws://127.0.0.1"))
            else problems.append(request.url))
    load(page, web)
    yield page
    visitor.close()
    assert not problems, problems


def load(page: Any, web: Running) -> None:
    page.goto(web.url)
    page.wait_for_function("document.querySelector('.sd')?.page", timeout=60_000)


def begin(page: Any, button: str = ".sd-start") -> None:
    page.click(button)
    page.wait_for_selector(LIVE, timeout=20_000)
    shown(page, 3)


def shown(page: Any, more: int = 2) -> None:
    """So many pictures more were shown."""
    now = page.evaluate(f"{PAGE}.lastShown")
    page.wait_for_function(f"{PAGE}.lastShown >= {now + more}", timeout=20_000)


def says(page: Any, words: str) -> None:
    """A message over the picture has these words, sooner or later."""
    page.wait_for_function("words => document.querySelector('.sd-toast').textContent.includes(words)", arg=words,
                           timeout=20_000)


def saved(page: Any, key: str, folder: Path) -> Path:
    """The file that is downloaded after a key."""
    with page.expect_download() as download:
        page.keyboard.press(key)
    path: Path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def packets(path: Path) -> dict[str, int]:
    """How many of each kind of stream a file has."""
    with av.open(str(path)) as file:
        count: dict[str, int] = {stream.type: 0 for stream in file.streams}
        for packet in file.demux():
            count[packet.stream.type] += packet.size > 0
    return count
