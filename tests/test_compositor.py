"""What the compositor shows, against the plain computation and against known motion."""
from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from streamdream_bench.synthetic import Scene, Truth, crossing, turning
from streamdream_web.live import browser_io

from streamdream.backends import Backend
from streamdream.dream import reference_images, warp
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.dream.options import DreamOptions
from streamdream.live import compositor
from streamdream.media.compose import compose_image
from streamdream.media.opencv import cv2
from streamdream.models import get
from streamdream.settings import DreamSettings

SETTINGS = DreamSettings()
SPACING_PX = 20


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    coarse = random.integers(60, 196, (height // 12, width // 12, 3), np.uint8)
    result: NDArray[np.uint8] = cv2().resize(coarse, (width, height), interpolation=cv2().INTER_CUBIC)
    return result


def residual_of(height: int, width: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(1).normal(0, 1, (height, width, 3)).astype(np.float32)
    result: NDArray[np.float32] = 0.8 * cv2().GaussianBlur(noise, (0, 0), 2.0)
    return result


@pytest.mark.parametrize("changes", [{}, {"strength": 1.7}, {"strength": 0.0}, {"original_colors": True}])
def test_a_residual_on_its_own_frame_is_added_as_it_is(changes: dict[str, float]) -> None:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    image, residual = texture(240, 320), residual_of(240, 320)
    plain = compose_image(image, warp.to_luma(residual) if settings.original_colors else residual, settings.strength)
    quick = compositor.composite(compositor.prepare_residual(residual, image), image, settings)
    difference = np.abs(quick.astype(int) - plain)
    assert difference.max() <= 2 and difference.mean() < 0.5


def test_a_residual_is_scaled_smoothly_to_a_larger_frame() -> None:
    """Bilinear where the plain way is cubic: little of the dream is lost."""
    image, residual = texture(480, 640), residual_of(240, 320)
    plain = compose_image(image, residual, 1.0).astype(int)
    quick = compositor.composite(compositor.prepare_residual(residual, image), image, SETTINGS)
    assert np.abs(quick - plain).mean() < 0.15 * np.abs(plain - image).mean()


def test_a_mask_says_where_the_dream_is_shown(tmp_path: object) -> None:
    path = f"{tmp_path}/mask.png"
    Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 80)[None].repeat(96, 0)).save(path)
    image, residual = texture(96, 160), residual_of(96, 160)
    published = compositor.prepare_residual(residual, image, reference_images.read(replace(SETTINGS, mask=path)))
    shown = compositor.composite(published, image, SETTINGS).astype(int)
    assert (shown[:, :72] == image[:, :72]).all() and np.abs(shown - image)[:, 88:].mean() > 5


def test_a_frame_of_another_size_is_shown_without_flow() -> None:
    published = compositor.prepare_residual(residual_of(96, 160), texture(96, 160))
    for height, width in ((240, 320), (40, 40), (333, 111)):
        assert compositor.composite(published, texture(height, width), SETTINGS).shape == (height, width, 3)


def test_before_there_is_a_dream_the_frame_is_shown() -> None:
    assert np.array_equal(compositor.composite(None, texture(96, 160), SETTINGS), texture(96, 160))


@pytest.mark.parametrize("changes", [{}, {"strength": 1.7}, {"original_colors": True}])
def test_residual_halves_added_to_the_frame_are_what_is_shown(changes: dict[str, float]) -> None:
    """As the page puts it together: what is above nought is added, the other taken away, each bilinear and saturating.
    """
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    image, published = texture(480, 640), compositor.prepare_residual(residual_of(240, 320), texture(480, 640))
    halves = browser_io.split_residual(published, image, settings)
    assert halves.shape == (480, 320, 3) and not np.minimum(halves[:240], halves[240:]).any()
    more, less = (cv2().resize(half, (640, 480)) for half in np.split(halves, 2))
    together = cv2().add(cv2().subtract(image, less), more)
    off = np.abs(together.astype(int) - compositor.composite(published, image, settings))
    assert off.mean() < 0.3 and np.percentile(off, 99) <= 2
    assert not browser_io.split_residual(None, image, settings).any()


def test_residual_halves_are_zero_outside_the_mask(tmp_path: object) -> None:
    path = f"{tmp_path}/mask.png"
    Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 80)[None].repeat(96, 0)).save(path)
    image, residual = texture(96, 160), residual_of(96, 160)
    published = compositor.prepare_residual(residual, image, reference_images.read(replace(SETTINGS, mask=path)))
    more, less = np.split(browser_io.split_residual(published, image, SETTINGS), 2)
    assert not (more + less)[:, :72].any() and (more + less)[:, 88:].mean() > 5


def calm(truth: Truth) -> NDArray[np.uint8]:
    """Its contrast halved, so that what is added is never cut off."""
    halved: NDArray[np.uint8] = truth.image // 2 + 64
    return halved


@pytest.mark.parametrize(("make", "frames"), [(crossing, 5), (turning, 3), *(
    pytest.param(make, frames, marks=pytest.mark.soak)
    for make, frames in ((crossing, 1), (crossing, 3), (turning, 1), (turning, 5)))])
def test_the_residual_follows_motion_between_two_dreams(make: object, frames: int) -> None:
    """A residual of dots, shown so many frames later: 95 of 100 are within 2 px of where the true motion has them."""
    scene: Scene = make(seed=0)  # type: ignore[operator]
    truths = list(scene.clip(frames + 1, first=3))
    dots, centres = dotted(*truths[0].image.shape[:2])
    expected, visible = dots, np.ones(dots.shape, np.float32)
    for truth in truths[1:]:
        expected = warp.warp(expected, truth.flow)
        visible = warp.warp(visible, truth.flow) * truth.visible
    residual = np.repeat(dots[..., None], 3, axis=2) * np.float32(50 / 127.5)
    now = calm(truths[-1])
    shown = (
        compositor.composite(compositor.prepare_residual(residual, calm(truths[0])), now, SETTINGS).astype(np.float32)
        - now
    )
    there, here = places(expected, visible, centres), places(shown[..., 0] / np.float32(50), visible, centres)
    errors = np.linalg.norm(there - here, axis=1)
    errors = errors[~np.isnan(errors)]
    assert len(errors) > 60 and np.percentile(errors, 95) <= 2, np.percentile(errors, [50, 95, 100])
    unmoved = np.linalg.norm(there - places(dots, visible, centres), axis=1)
    assert np.nanpercentile(unmoved, 95) > 1.2 * frames  # without flow it would not stick


def dotted(height: int, width: int) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.zeros((height, width), np.float32)
    centres = [(row, column) for row in range(SPACING_PX, height - SPACING_PX, SPACING_PX)
               for column in range(SPACING_PX, width - SPACING_PX, SPACING_PX)]
    for row, column in centres:
        picture += np.exp(-((y - row)**2 + (x - column)**2) / (2 * 1.5**2))
    return picture, centres


def places(picture: NDArray[np.float32], visible: NDArray[np.float32], centres: list[tuple[int, int]]
           ) -> NDArray[np.float64]:
    """(row, column) of the dot near each centre; not a number where it left its cell or was covered."""
    half = SPACING_PX // 2
    found = np.full((len(centres), 2), np.nan)
    for index, (row, column) in enumerate(centres):
        cell = np.s_[row - half:row + half, column - half:column + half]
        weight = np.clip(picture[cell] - 0.2, 0, None)
        rim = max(weight[0].max(), weight[-1].max(), weight[:, 0].max(), weight[:, -1].max())
        if np.max(weight) > 0.25 and np.min(visible[cell]) > 0.9 and rim < 0.1:
            y, x = np.mgrid[:weight.shape[0], :weight.shape[1]]
            found[index] = (weight * y).sum() / weight.sum(), (weight * x).sum() / weight.sum()
    return found


def test_a_change_of_the_field_is_no_visible_jump(eager: Backend) -> None:
    """The picture stands still, and its field goes up and down a rung of the governor's ladder."""
    settings = replace(SETTINGS, warmup_steps=0, octaves=1, trust="photometric")
    dreamer, state, image = Dreamer(get("inception_v3"), eager), DreamState(), texture(192, 320)
    shown: list[NDArray[np.uint8]] = []
    for number in range(60):
        options = DreamOptions(field_height=120 if 30 <= number < 45 else 96)
        state = state.resized(*options.field_size(192, 320))
        state = dreamer.advance(state, image, settings, options=options)
        assert state.residual is not None
        shown.append(compositor.composite(compositor.prepare_residual(state.residual, image), image, settings))
    changes = [float(np.abs(a.astype(int) - b).mean()) for a, b in pairwise(shown)]
    usual = max(changes[20:29] + changes[34:44] + changes[50:])
    assert max(changes[29:31] + changes[44:46]) < 2 * usual, changes
