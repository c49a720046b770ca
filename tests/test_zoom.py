"""An endless zoom from one picture."""
from __future__ import annotations

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import ENVIRONMENT, fails, here
from support.waiting import until

from streamdream.media.images import write_image
from streamdream.render.zoom import ZoomTransform
from streamdream.settings import ZoomSettings

QUICK = ("--steps", 1, "--octaves", 1, "--warmup-steps", 1, "--field-height", 96)


@pytest.fixture()
def photo(lion: NDArray[np.uint8], tmp_path: Path) -> Path:
    write_image(str(tmp_path / "photo.png"), np.ascontiguousarray(lion[:181, :243]))  # odd
    return tmp_path / "photo.png"


def frames(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def test_a_zoom_magnifies_the_last_frame(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "image", photo, "-o", tmp_path / "zoom.mp4", "--zoom", 1.1, "--fps", 25, "-t", 0.4, *QUICK)
    assert result.returncode == 0, result.stderr
    found = frames(tmp_path / "zoom.mp4")
    assert len(found) == 10 and found[0].shape[:2] == (182, 244)  # even for this codec
    with av.open(str(tmp_path / "zoom.mp4")) as container:
        assert container.streams.video[0].average_rate == 25
    move = ZoomTransform(ZoomSettings(zoom=1.1))
    for before, after in pairwise(found):
        followed = np.abs(move(before)[20:-20, 20:-20].astype(int) - after[20:-20, 20:-20]).mean()
        stayed = np.abs(before[20:-20, 20:-20].astype(int) - after[20:-20, 20:-20]).mean()
        assert followed < 0.75 * stayed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "zoom.mp4"]


def test_zoom_transform_shifts_rotates_and_magnifies() -> None:
    image = np.zeros((41, 61, 3), np.uint8)
    image[20, 30] = 255
    assert ZoomTransform(ZoomSettings(zoom=1, shift="5,-3"))(image)[17, 35].max() > 250
    image[20, 40] = 200
    assert ZoomTransform(ZoomSettings(zoom=1, rotate=90))(image)[10, 30].max() > 190  # counter-clockwise
    assert ZoomTransform(ZoomSettings(zoom=2))(image)[20, 50].max() > 190
    assert (ZoomTransform(ZoomSettings(zoom=0.5, shift="9,9"))(np.maximum(image, 40)) > 20).all()  # no black comes in


@pytest.mark.parametrize(("arguments", "part"), [
    (("--shift", "5"), "--shift is '5'"), (("--shift", "a,b"), "'2,-1'"), (("--zoom", "9"), "0.5..2"),
    (("--fps", "0"), "--fps is 0"), (("--mask", "none.png"), "--mask none.png"),
])
def test_image_refuses_invalid_zoom_arguments(arguments: tuple[str, ...], part: str, photo: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "image", photo, "-o", tmp_path / "zoom.mp4", *arguments), 2, part)
    assert not (tmp_path / "zoom.mp4").exists()


def test_zoom_needs_a_video_output(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "image", photo, "-o", tmp_path / "a.png", "--zoom", "1.1"), 2, "--zoom is for videos", ".mp4")
    (tmp_path / "zoom.mp4").write_text("mine")
    fails(here(capsys, "image", photo, "-o", tmp_path / "zoom.mp4"), 2, "exists; -y overwrites it")


def test_an_interrupted_zoom_leaves_nothing(photo: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "streamdream", "image", photo, "-o", tmp_path / "zoom.mp4"],
                               stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    until(lambda: process.poll() is not None or any(path.stat().st_size for path in tmp_path.glob(".*")), 60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
