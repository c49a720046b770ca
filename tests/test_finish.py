"""What a dream looks like at full size: crisp without ringing, no contours at 8 bits, dreamed up to the borders."""
from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamdream.backends import Backend
from streamdream.dream import optical_flow
from streamdream.dream import trust as trusts
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.media.compose import compose_image, compose_picture
from streamdream.media.planes import component_views
from streamdream.media.upscale import dither, upscale
from streamdream.models import get
from streamdream.settings import DreamSettings

Pixels = NDArray[np.float32]
LEVEL = 1 / 127.5


def disc(height: int = 60, width: int = 80) -> Pixels:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    levels: Pixels = np.clip(15 - np.hypot(y - 30, x - 40), -1, 1) * np.float32(20)
    return levels


def grey_picture(pixel_format: str) -> Any:
    picture: Any = av.VideoFrame(160, 120, pixel_format)
    picture.colorspace = picture.color_range = 1
    for view in component_views(picture):
        view[:] = 100
    return picture


def slope(levels: NDArray[Any]) -> float:
    return float(np.percentile(np.hypot(*np.gradient(levels)), 99))


@pytest.mark.parametrize("size", [(120, 160), (180, 240), (270, 360), (131, 217)])
def test_contours_are_steeper_than_by_cubic_interpolation_and_have_no_ring(size: tuple[int, int]) -> None:
    cubic = cv2.resize(disc(), size[::-1], interpolation=cv2.INTER_CUBIC)
    crisp = upscale(disc(), *size)
    assert crisp.shape == size and slope(crisp) > 1.15 * slope(cubic)
    assert crisp.min() >= -20.001 and crisp.max() <= 20.001
    assert np.abs(cv2.resize(crisp, (80, 60), interpolation=cv2.INTER_AREA) - disc()).mean() < 1


def test_colours_are_scaled_as_one_is() -> None:
    three = np.dstack([disc(), -disc(), disc() / 2])
    np.testing.assert_allclose(upscale(three, 120, 160)[..., 1], upscale(-disc(), 120, 160), atol=1e-4)


def test_a_dream_of_the_size_of_the_picture_or_larger_is_not_sharpened() -> None:
    assert np.array_equal(upscale(disc(), 60, 80), disc())
    assert np.array_equal(upscale(disc(), 30, 40), cv2.resize(disc(), (40, 30), interpolation=cv2.INTER_AREA))
    nearly = upscale(disc(), 63, 84) - cv2.resize(disc(), (84, 63), interpolation=cv2.INTER_CUBIC)
    assert np.abs(nearly).max() < 2


@pytest.mark.parametrize("levels", [-1.7, 0.3, 0.5, 2.05])
def test_parts_of_a_level_are_right_on_average(levels: float) -> None:
    image = np.full((120, 160, 3), 100, np.uint8)
    shown = compose_image(image, np.full((40, 54, 3), levels * LEVEL, np.float32)).astype(int) - 100
    assert set(np.unique(shown)) == {int(np.floor(levels)), int(np.ceil(levels))}
    assert np.abs(shown.mean((0, 1)) - levels).max() < 0.01
    blocks = shown[:120, :160].reshape(15, 8, 20, 8, 3).mean((1, 3))
    assert np.abs(blocks - levels).max() < 0.12  # everywhere, not in patches
    assert (shown[..., 0] != shown[..., 1]).any()  # no grey noise


@pytest.mark.parametrize("of_picture", [False, True])
def test_a_faint_smooth_dream_has_no_contours(of_picture: bool) -> None:
    wanted = 3 * np.sin(np.arange(54, dtype=np.float32) / 17)[None, :, None].repeat(40, 0).repeat(3, 2)
    if of_picture:
        picture = grey_picture("gbrp")
        shown = component_views(compose_picture(picture, wanted * np.float32(LEVEL)))[0].astype(np.float32) - 100
    else:
        image = np.full((120, 160, 3), 100, np.uint8)
        shown = compose_image(image, wanted * np.float32(LEVEL))[..., 0].astype(np.float32) - 100
    exact = upscale(wanted[..., 0], 120, 160)
    rounded, dithered = (cv2.GaussianBlur(each - exact, (0, 0), 3)[8:-8, 8:-8].std()
                         for each in (np.rint(exact), shown))
    assert dithered < rounded / 4


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gbrp"])
def test_samples_that_no_dream_reaches_stay(pixel_format: str) -> None:
    residual = np.zeros((40, 54, 3), np.float32)
    residual[:, :20] = 0.3 * LEVEL
    picture = grey_picture(pixel_format)
    dreamed = compose_picture(picture, residual)
    for old, new in zip(component_views(picture), component_views(dreamed), strict=True):
        start = old.shape[1] * 24 // 54
        assert np.array_equal(old[:, start:], new[:, start:])
    assert not np.array_equal(component_views(picture)[0], component_views(dreamed)[0])
    for view in component_views(picture):
        view[:] = np.arange(view.size).reshape(view.shape) % 251
    for unchanged in (compose_picture(picture, residual * 0), compose_picture(picture, residual, 0.0)):
        for old, new in zip(component_views(picture), component_views(unchanged), strict=True):
            assert np.array_equal(old, new)


def test_every_frame_is_dithered_alike() -> None:
    """So that a resumed render, or one by several workers, gives the same picture; and still ones stay still."""
    first, second = (dither(np.zeros((50, 70), np.float32), 1) for _ in range(2))
    assert np.array_equal(first, second) and not np.array_equal(first, dither(np.zeros((50, 70), np.float32), 2))
    assert first.min() > -0.5 and first.max() < 0.5 and len(np.unique(first)) == first.size


def test_ten_bits_are_rounded() -> None:
    dreamed = compose_picture(grey_picture("yuv444p10le"), np.full((40, 54, 3), 0.3 * LEVEL, np.float32))
    assert all(len(np.unique(view)) == 1 for view in component_views(dreamed))


# -- borders --


@pytest.mark.parametrize("name", ["full", "photometric"])
def test_the_outermost_pixels_keep_their_dream_when_the_flow_is_a_little_off(name: str) -> None:
    grey = np.full((48, 64), 90, np.uint8)
    for offset, kept in ((-0.2, True), (0.2, True), (-0.5, False)):
        flow = np.full((48, 64, 2), offset, np.float32)
        trust = trusts.trust(name, grey, grey, flow, optical_flow.get("none"))
        assert bool(trust[0, 0] > 0.5 and trust[-1, -1] > 0.5) == kept


def test_the_dream_reaches_the_borders(eager: Backend) -> None:
    """Near a border the network has no gradient, so that a short random shift left a frame of 16 pixels undreamed."""
    image: Any = np.random.default_rng(0).integers(90, 166, (12, 16, 3)).astype(np.uint8)
    image = cv2.resize(image, (192, 144), interpolation=cv2.INTER_CUBIC)
    settings = DreamSettings(layers="mixed3", octaves=1, steps=24, warmup_steps=0)
    residual = Dreamer(get("inception_v3"), eager).advance(DreamState(), image, settings).residual
    assert residual is not None
    border = np.ones((144, 192), bool)
    border[6:-6, 6:-6] = False
    assert residual[border].std() > 0.55 * residual[40:-40, 40:-40].std()
