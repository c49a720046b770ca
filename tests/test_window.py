"""The window, on a display in memory: keys do what the help says, and closing it ends the run."""
from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from support.commands import ENVIRONMENT, PROGRAM_ENVIRONMENT, streamdream
from support.display_server import display
from support.live_sinks import GRAPH, numbers_in

pytestmark = [pytest.mark.alone, pytest.mark.browser]


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """A display in memory."""
    import cv2

    if not re.search(r"GUI:\s+\w+", cv2.getBuildInformation()) or "GUI:                           NONE" in \
            cv2.getBuildInformation():
        pytest.skip("this OpenCV has no windows")
    with display("800x600", "xdotool") as name:
        yield name


PLAYER = """
import sys, time
import cv2  # before av: see WindowSink
import numpy as np
from support.live_sinks import Camera, live_context
from support.clips import marked
from streamdream.media.sources.base import timestamped_frame
from streamdream.errors import Closed
from streamdream.settings import RenderSettings
from streamdream.media.sinks.registry import open_sink

context, camera = live_context(), Camera()
camera.start_seconds = time.perf_counter()
with open_sink("window", camera, RenderSettings(), show=context) as sink:
    print("open", flush=True)
    try:
        for number in range(3000):
            time.sleep(1 / 60)
            image = marked(number % 256, (160, 96))
            sink.write(image, timestamped_frame(image, time.perf_counter() - camera.start_seconds))
            now = context.controls.current()
            print(now.layers, now.strength, context.controls.frozen, context.controls.resets, sink._help, sink._overlay,
                  sink._full, sink._recording is not None, sep="|", flush=True)
    except Closed:
        print("closed", flush=True)
"""


class Player:
    """A window in a process of its own, and what it says of itself after each picture."""

    def __init__(self, screen: str, folder: Path) -> None:
        self._environment = PROGRAM_ENVIRONMENT | {"DISPLAY": screen}
        self.process = subprocess.Popen([sys.executable, "-c", PLAYER], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, cwd=folder, env=self._environment)
        self.state: list[str] = []
        assert self.process.stdout is not None and self.process.stdout.readline() == "open\n"
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self.wait_for(lambda: len(self.state) > 1)
        self.do("mousemove", "100", "100")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.state = line.strip().split("|")

    def do(self, *arguments: str) -> str:
        return subprocess.run(["xdotool", *arguments], env=self._environment, check=True, capture_output=True,
                              text=True).stdout

    def press(self, key: str, place: int, expected: str) -> None:
        """Until the window says so; the key is pressed once."""
        self.do("key", key)
        self.wait_for(lambda: len(self.state) > place and self.state[place] == expected)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.state
            time.sleep(0.01)

    def end(self) -> tuple[str, str]:
        """What it said last, and what went wrong."""
        self.process.wait(10)
        self._thread.join()
        assert self.process.stderr is not None
        return "|".join(self.state), self.process.stderr.read()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self._thread.join()
        self.process.communicate()


CLOSER = """
import ctypes, sys
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = display = ctypes.c_void_p
display = ctypes.c_void_p(x.XOpenDisplay(None))
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int),
                ("display", ctypes.c_void_p), ("window", ctypes.c_ulong), ("kind", ctypes.c_ulong),
                ("format", ctypes.c_int), ("data", ctypes.c_long * 20)]
window = int(sys.argv[1])
atom = lambda name: x.XInternAtom(display, name, 0)
message = Message(33, 0, 1, display, window, atom(b"WM_PROTOCOLS"), 32, (atom(b"WM_DELETE_WINDOW"), 0))
x.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message))
x.XSync(display, 0)
"""
"""Asks a window to close, as a window manager does when its button is clicked; there is none in Xvfb."""


def test_keys_change_settings(screen: str, tmp_path: Path) -> None:
    """Each key on a real window; q closes it, and what was recorded and kept is whole."""
    layers, strength, frozen, resets, help, words, full, recording = range(8)
    with Player(screen, tmp_path) as player:
        player.press("n", layers, "mixed1")
        player.press("p", layers, "mixed0")
        player.press("Left", layers, "mixed5")
        player.press("plus", strength, "1.25")
        player.press("Down", strength, "1.0")
        player.press("space", frozen, "True")
        player.press("x", resets, "1")
        player.press("r", recording, "True")
        player.press("h", help, "True")
        player.press("o", words, "False")
        player.press("f", full, "True")
        player.press("f", full, "False")
        player.do("key", "s")
        player.wait_for(lambda: len(list(tmp_path.glob("streamdream-*.png"))) == 1)
        player.press("r", recording, "False")
        player.wait_for(lambda: len(list(tmp_path.glob("streamdream-*.mp4"))) == 1)
        player.press("r", recording, "True")
        player.do("key", "q")
        state, errors = player.end()
        assert state == "closed" and errors == "" and player.process.returncode == 0
    films = sorted(tmp_path.glob("*.mp4"))
    assert len(films) == 2 and all(numbers_in(film) for film in films)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_closed_window_ends_the_run(screen: str, tmp_path: Path) -> None:
    """Closed by the window's own button: the client message that a window manager sends for it."""
    with Player(screen, tmp_path) as player:
        window = player.do("search", "--name", "^streamdream$").split()[-1]
        subprocess.run([sys.executable, "-c", CLOSER, window], env=ENVIRONMENT | {"DISPLAY": screen}, check=True)
        assert player.end() == ("closed", "") and player.process.returncode == 0


def test_pyav_before_opencv_is_an_error(screen: str, tmp_path: Path) -> None:
    code = (
        "import av\nfrom streamdream.errors import SinkError\nfrom streamdream.media.sinks.window import WindowSink\n"
        "try:\n    WindowSink()\nexcept SinkError as error:\n    print(error)\nelse:\n    print('opened')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30,
                            env=ENVIRONMENT | {"DISPLAY": screen}, check=True)
    assert result.stdout.strip() == "opened" or "import cv2 before av" in result.stdout


def test_the_command_shows_records_and_streams_at_once(screen: str, tmp_path: Path) -> None:
    """And the dream is in the window: a screenshot is taken by the program's own screen source."""
    result = streamdream("live", "--source", GRAPH, "--sink", "window", "--sink", str(tmp_path / "a.mp4"), "--sink",
                         str(tmp_path / "a.m3u8"), "--seconds", "3", "--field-height", "96", "--json", DISPLAY=screen)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    with av.open(str(tmp_path / "a.mp4")) as film, av.open(str(tmp_path / "a.m3u8")) as stream:
        counts = [sum(1 for _ in file.decode(video=0)) for file in (film, stream)]
    shown, warnings = report["frames"], str(report["warnings"])
    assert shown > 10 and counts[1] > shown / 3
    assert counts[0] == shown or f"a.mp4 was too slow: it holds {counts[0]} of {shown} pictures" in warnings
