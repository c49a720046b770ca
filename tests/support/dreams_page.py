"""The tab Video in a real Chromium: a dream that runs, and its card."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from support.waiting import until

PATIENCE_MS = 60_000
CARD = "#video-dreams .sw-dream"
PROGRESS = re.compile(r"(\d+) of (\d+) frames")


def begin(page: Any, url: str, video: Path, seconds: tuple[float, float]) -> None:
    """Start the dream of that span of a video, and wait for its first frames."""
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#video-drop input[type=file]", video)
    page.wait_for_selector("#video-drop .sw-drop-trim:not([hidden])")
    for handle, value in zip(("last", "first"), seconds[::-1], strict=True):
        page.eval_on_selector(f"#video-drop .sw-drop-{handle}", f"(it) => {{ it.value = {value}; "
                                                                "it.dispatchEvent(new Event('input')); }")
    page.click("#video-start")
    until(lambda: frames(page) > 2, 60)


def frames(page: Any) -> int:
    """Frames of the card that are done; those of a whole dream when it is done."""
    text = page.locator(f"{CARD} .sw-dream-status").first.inner_text() if page.locator(CARD).count() else ""
    found = PROGRESS.search(text)
    return int(found[1]) if found else 10**6 if text == "Done" else 0
