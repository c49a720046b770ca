"""The screen as a source."""
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.display_server import display

from streamdream.errors import SourceError, UsageError
from streamdream.media.sources.live import open_live
from streamdream.settings import LiveSettings

pytestmark = [pytest.mark.alone, pytest.mark.browser]


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """A display in memory."""
    with display("640x480") as name:
        yield name


def test_the_screen_is_a_source(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    with open_live("screen:320x200+10+20", LiveSettings(capture_rate=20)) as source:
        begin = time.perf_counter()
        frames = [frame for frame, _ in zip(source, range(10), strict=False)]
        assert frames[0].image.shape == (200, 320, 3) and time.perf_counter() - begin > 0.3
    with pytest.raises(UsageError, match="is not on the screen, which is 640x480"):
        open_live("screen:600x400+100+100")


def test_no_screen_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(SourceError, match="there is no display here"):
        open_live("screen:")
