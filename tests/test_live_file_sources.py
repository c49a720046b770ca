"""Files as live sources: their own pace, their end, pictures repeated where they are slow."""
from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.clips import Clip, make, number_of
from support.source_watcher import Watcher
from support.unruly_server import running_server

from streamdream.media.sources.live import open_live
from streamdream.settings import LiveSettings

SIZE = 160, 96


def test_a_file_over_http_is_paced_and_ends(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", Clip(frames=20, size=SIZE))
    with running_server() as server:
        server.files["/a.mp4"] = (tmp_path / "a.mp4").read_bytes()
        begin = time.monotonic()
        with open_live(server.url + "/a.mp4", LiveSettings(loop=False)) as source:
            numbers = [number_of(frame.image) for frame in source]
        assert time.monotonic() - begin > 15 / 30 and numbers[-1] == 19 and len(set(numbers)) > 10
        with open_live(server.url + "/a.mp4") as source:
            looped = [number_of(frame.image) for frame, _ in zip(source, range(50), strict=False)]
        assert any(later < sooner for sooner, later in pairwise(looped))  # the beginning comes again


def test_a_frame_that_cannot_be_decoded_is_skipped(tmp_path: Path) -> None:
    """Bytes in the middle of an mp4 are overwritten: the decoder refuses what it gets there."""
    make(tmp_path / "a.mp4", Clip(frames=30, size=SIZE, options={"g": "1", "crf": "10"}))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    index = content.index(b"moov")  # behind the pictures
    content[index // 3: index // 2] = b"\xff" * (index // 2 - index // 3)
    with running_server() as server:
        server.files["/a.mp4"] = bytes(content)
        with open_live(server.url + "/a.mp4", LiveSettings(loop=False)) as source:
            numbers = [number_of(frame.image) for frame in source]
    assert numbers[-1] == 29 and re.search(r"\d+ damaged packets of .*/a.mp4 were skipped", source.warnings[0])


def test_a_still_picture_is_repeated(tmp_path: Path) -> None:
    """It was "damaged, or not a video"."""
    cv2.imwrite(str(tmp_path / "a.jpg"), cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8), (0, 0), 3))
    with open_live(str(tmp_path / "a.jpg")) as source:
        frames = [frame for frame, _ in zip(source, range(5), strict=False)]
    assert len(frames) == 5 and frames[4].pts > frames[3].pts and frames[0].image is frames[4].image


def test_frames_of_a_slow_file_are_repeated(tmp_path: Path) -> None:
    """One picture a second: what follows it would sleep for so long."""
    make(tmp_path / "a.mp4", Clip(frames=3, size=SIZE, pts=[0, 30, 60]))
    with open_live(str(tmp_path / "a.mp4")) as source:
        seen = [(number_of(frame.image), frame.pts_seconds) for frame, _ in zip(source, range(14), strict=False)]
    assert [number for number, _ in seen].count(0) >= 8 and seen[-1][0] == 1
    times = [seconds for _, seconds in seen]
    assert times == sorted(times) and dict(reversed(seen))[1] == pytest.approx(1, abs=0.01)


def test_close_ends_the_wait_for_the_next_frame(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", Clip(frames=2, size=SIZE, pts=[0, 3000]))
    source = open_live(str(tmp_path / "a.mp4"))
    watcher = Watcher(source)
    watcher.wait_for(lambda: len(watcher.seen) > 2)
    watcher.end()  # fails when the thread goes on
