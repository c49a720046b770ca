"""Files whose frames are dreamed on a device as a whole: whole after interruptions, the processor's pictures."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import Clip, make
from support.planned_renders import assert_same, job, moving, packet_times, render, render_with_stops

from streamdream.media.images import write_image
from streamdream.media.sources.video import open_source
from streamdream.render import pipeline

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
FRAMES, TEN = 24, Fraction(1, 10)
ON_DEVICE: dict[str, Any] = {"frame_path": "device", "flow": "lucas-kanade"}


@pytest.fixture(scope="module")
def shots(folder: Path) -> str:
    """24 frames at 10/s, a cut before frame 15."""
    clip = Clip(FRAMES, time_base=TEN, rate=1 / TEN, size=(96, 72))
    return make(folder / "shots.mkv", clip, moving(clip.frames, clip.size, cut_at=15))


def images_of(path: Path) -> list[NDArray[np.int16]]:
    with open_source(str(path)) as source:
        return [frame.image.astype(np.int16) for frame in source]


@pytest.mark.parametrize("ahead", [pytest.param(False, marks=pytest.mark.soak), True])
def test_a_render_on_the_device_goes_on_with_another_dream(shots: str, ahead: bool, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "matches_ahead", lambda dreamer: ahead)
    report = render(job(shots, tmp_path / "whole.mkv", codec="ffv1", **ON_DEVICE))
    assert report is not None and report.cuts == 1 and report.frames == FRAMES
    render_with_stops(job(shots, tmp_path / "resumed.mkv", codec="ffv1", **ON_DEVICE), [5, 13, 20])
    assert_same(tmp_path / "whole.mkv", tmp_path / "resumed.mkv")
    assert packet_times(tmp_path / "whole.mkv") == packet_times(tmp_path / "resumed.mkv")


@pytest.mark.parametrize("given", [
    {}, {"mask": "mask.png"}, {"pixel_format": "yuv444p"},
    pytest.param({"original_colors": "true"}, marks=pytest.mark.soak),
    pytest.param({"strength": "0.3"}, marks=pytest.mark.soak)], ids=str)
def test_a_file_dreamed_on_the_device_is_another_file(shots: str, given: dict[str, str], tmp_path: Path) -> None:
    white = np.zeros((72, 96, 3), np.uint8)
    white[:, 40:] = 255
    write_image(str(tmp_path / "mask.png"), white)
    given = given | ({"mask": str(tmp_path / "mask.png")} if "mask" in given else {})
    reports = [render(job(shots, tmp_path / f"{path}.mkv", codec="ffv1", frame_path=path, flow="lucas-kanade", **given))
               for path in ("processor", "device")]
    assert reports[0] is not None and reports[1] is not None and reports[0].cuts == reports[1].cuts == 1
    processor, device, source = (images_of(path) for path in (
        tmp_path / "processor.mkv", tmp_path / "device.mkv", Path(shots)))
    assert len(device) == FRAMES
    for one, other, plain in zip(processor, device, source, strict=True):
        assert np.abs(one - other).mean() < 0.2 * np.abs(one - plain).mean() + 0.05


def test_a_render_without_dream_on_the_device_changes_samples(shots: str, tmp_path: Path) -> None:
    render(job(shots, tmp_path / "same.mkv", codec="ffv1", strength="0", **ON_DEVICE))
    for one, other in zip(images_of(tmp_path / "same.mkv"), images_of(Path(shots)), strict=True):
        assert np.array_equal(one, other)
