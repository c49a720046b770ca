"""The screen as a source."""
from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from streamdream.capture import open_live
from streamdream.errors import SourceError, UsageError
from streamdream.settings import LiveSettings

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """A display in memory."""
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb is not here: apt-get install xvfb")
    reading, writing = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(writing), "-noreset", "-screen", "0", "640x480x24"],
                              pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as answer:
        name = ":" + answer.readline().strip()
    yield name
    server.terminate()
    server.wait()


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
