"""Renders of HDR: what stays bit for bit, what an encoder keeps, and what becomes SDR with a word."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.commands import here
from support.hdr_clips import HLG, METADATA, PQ, hdr_picture, scene, write_clip

from streamdream.media.hdr_metadata import static_metadata
from streamdream.media.planes import component_views
from streamdream.media.tone_mapping import tone_mapped_rgb

CHEAP = ("--backend", "eager", "--precision", "fp32", "--field-height", 48, "--octaves", 1, "--steps", 1, "--layers",
         "conv2d_2")


def clip(folder: Path, trc: int) -> str:
    parameters = METADATA.x265_params() if trc == PQ else ""
    return write_clip(folder / "in.mov", [hdr_picture(scene(trc, 96, 128), trc) for _ in range(3)], parameters, trc)


def decoded(path: Path | str) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def tags(picture: Any) -> list[int]:
    return [picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range]


@pytest.mark.parametrize("trc", [PQ, HLG])
def test_hdr_goes_through_ffv1_bit_for_bit(trc: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path, trc)
    run = here(capsys, "render", path, "-o", tmp_path / "out.mkv", "--strength", 0, "-c:v", "ffv1", *CHEAP)
    assert run.returncode == 0, run.stderr
    for old, new in zip(decoded(path), decoded(tmp_path / "out.mkv"), strict=True):
        assert old.format.name == new.format.name and tags(old) == tags(new)
        for before, after in zip(component_views(old), component_views(new), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("trc", [PQ, HLG])
def test_hdr_stays_hdr_by_default(trc: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path, trc)
    run = here(capsys, "render", path, "-o", tmp_path / "out.mp4", "--strength", 0, "--crf", 10, *CHEAP)
    assert run.returncode == 0, run.stderr
    before, after = decoded(path), decoded(tmp_path / "out.mp4")
    assert after[0].format.name == "yuv420p10le" and tags(before[0]) == tags(after[0])
    assert static_metadata(before[0]) == static_metadata(after[0])
    errors = [np.square(component_views(old)[0].astype(float) - component_views(new)[0]).mean()
              for old, new in zip(before, after, strict=True)]
    assert 10 * np.log10(1023**2 / np.mean(errors)) >= 45


def test_a_dream_is_in_the_hdr_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path, PQ)
    run = here(capsys, "render", path, "-o", tmp_path / "out.mkv", "-c:v", "ffv1", *CHEAP)
    assert run.returncode == 0, run.stderr
    before, after = decoded(path)[-1], decoded(tmp_path / "out.mkv")[-1]
    assert tags(before) == tags(after)
    change = tone_mapped_rgb(after, 128, 96).astype(int) - tone_mapped_rgb(before, 128, 96)
    assert np.abs(change).mean() > 0.5


@pytest.mark.parametrize("flags", [("--sdr",), ("-c:v", "libx264")])
def test_sdr_is_made_with_a_word(flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path, HLG)
    run = here(capsys, "render", path, "-o", tmp_path / "out.mp4", "--strength", 0, "--crf", 8, *flags, *CHEAP)
    assert run.returncode == 0 and "SDR (BT.709)" in run.stderr, run.stderr
    before, after = decoded(path)[0], decoded(tmp_path / "out.mp4")[0]
    assert after.format.name == "yuv420p" and tags(after) == [1, 1, 1, 1]
    shown = after.to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown - tone_mapped_rgb(before, 128, 96)).mean() < 5
