"""Sequences of pictures: 16 bits, transparency, TIFF."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import Clip, make
from support.picture_copies import HLG, copy_pictures, decoded, half_clear

from streamdream.errors import UnknownName

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def stored(path: Path) -> NDArray[Any]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
def test_pictures_of_more_than_8_bits_are_stored_in_16(tmp_path: Path, suffix: str) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 48, 0).repeat(3, 2)
    path = make(tmp_path / "in.mkv", Clip(2, codec="ffv1", pixels="gbrp10le"), [ramp] * 2)
    copy_pictures(path, tmp_path / f"%d.{suffix}")
    image = stored(tmp_path / f"1.{suffix}")
    assert image.dtype == np.uint16 and image.shape == (48, 64, 3)
    wanted = decoded(path)[0].reformat(format="rgb48le").to_ndarray()
    assert np.abs(image[..., ::-1].astype(int) - wanted).max() <= 64  # one step of 10 bits


@pytest.mark.parametrize("pixels", ["bgra", "yuva420p", "yuva444p10le"])
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_pictures_keep_transparency(tmp_path: Path, pixels: str, suffix: str) -> None:
    assert copy_pictures(half_clear(tmp_path, pixels), tmp_path / f"%d.{suffix}") == []
    image = stored(tmp_path / f"2.{suffix}")
    opaque = np.iinfo(image.dtype).max
    assert image.shape == (48, 64, 4) and image[:, 2:28, 3].max() == 0 and image[:, 36:, 3].min() > 0.98 * opaque


@pytest.mark.parametrize("settings", [{}, {"pixel_format": "rgb24"}])
def test_pictures_without_alpha_are_laid_on_black_with_a_word(tmp_path: Path, settings: dict[str, Any]) -> None:
    suffix = "png" if settings else "jpg"
    warning, = copy_pictures(half_clear(tmp_path, "yuva420p"), tmp_path / f"%d.{suffix}", **settings)
    assert "transparency: it becomes black" in warning
    image = stored(tmp_path / f"1.{suffix}")
    assert image[24, 8].max() <= 8 and image[24, 50, 2] >= 245


def test_hdr_pictures_are_mapped_to_sdr_with_a_word(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mkv", Clip(2, codec="ffv1", pixels="yuv420p10le", color=HLG))
    assert copy_pictures(path, tmp_path / "%d.png") == ["the HDR input is mapped to SDR (BT.709): .png pictures hold "
                                                        "no HDR"]
    assert stored(tmp_path / "1.png").dtype == np.uint8


@pytest.mark.parametrize(("wanted", "dtype", "channels"), [("rgb48", np.uint16, 3), ("rgba", np.uint8, 4),
                                                           ("rgba64le", np.uint16, 4), ("rgb24", np.uint8, 3)])
def test_the_format_of_pictures_can_be_chosen(tmp_path: Path, wanted: str, dtype: type, channels: int) -> None:
    copy_pictures(make(tmp_path / "in.mp4", Clip(2)), tmp_path / "%d.png", pixel_format=wanted)
    image = stored(tmp_path / "1.png")
    assert image.dtype == dtype and image.shape[2] == channels


def test_a_wrong_format_of_pictures_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", Clip(2))
    with pytest.raises(UnknownName, match=r"unknown pixel format of \.jpg pictures 'rgba'"):
        copy_pictures(path, tmp_path / "%d.jpg", pixel_format="rgba")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.mp4"]
