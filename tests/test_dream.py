from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from streamdream import models
from streamdream.backends import Backend
from streamdream.dream import frame_matching, optical_flow, warp
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.dream.octaves import octave_sizes
from streamdream.media.compose import compose_image
from streamdream.media.opencv import cv2
from streamdream.media.resize import downscale_area
from streamdream.settings import DreamSettings

SETTINGS = DreamSettings(warmup_steps=1)
Picture = NDArray[np.uint8]


def shot(lion: Picture, frames: int = 4) -> list[Picture]:
    """A camera panning over the photograph, two pixels a frame, 120x160."""
    return [np.ascontiguousarray(lion[60:180, 2 * n: 160 + 2 * n]) for n in range(frames)]


def test_state_in_state_out(dreamer: Dreamer, lion: Picture) -> None:
    """The same state and frame give the same dream, whatever was dreamed between: nothing is kept elsewhere."""
    first, second, third, _ = shot(lion)
    state, _ = dreamer(DreamState(), first, SETTINGS)
    after, dream = dreamer(state, second, SETTINGS)
    dreamer(after, third, SETTINGS)
    again, same = dreamer(state, second, SETTINGS)
    assert np.array_equal(dream, same)
    assert again.index == after.index == 2
    assert again.residual is not None and after.residual is not None
    assert np.array_equal(again.residual, after.residual)


def test_seed_fixes_the_dream(eager: Backend, lion: Picture) -> None:
    frame = shot(lion)[0]

    def dream(seed: int) -> Picture:
        return Dreamer(models.get("inception_v3"), eager, 96, seed)(DreamState(), frame, SETTINGS)[1]

    assert np.array_equal(dream(1), dream(1))
    assert not np.array_equal(dream(1), dream(2))


def test_the_dream_is_carried_along_a_moving_shot(dreamer: Dreamer, lion: Picture) -> None:
    state, cuts = DreamState(), 0
    residuals = []
    for frame in shot(lion):
        state, _ = dreamer(state, frame, SETTINGS)
        assert state.residual is not None
        residuals.append(state.residual)
        cuts = state.cuts
    assert cuts == 0
    shift = round(2 * 96 / 120)  # two pixels of the frame, on the field
    moved, still = residuals[-1][:, :-shift], residuals[-1]
    followed = np.corrcoef(moved.ravel(), residuals[-2][:, shift:].ravel())[0, 1]
    stayed = np.corrcoef(still.ravel(), residuals[-2].ravel())[0, 1]
    assert followed > 0.8
    assert followed > stayed + 0.1


def test_a_cut_starts_anew(dreamer: Dreamer, lion: Picture) -> None:
    state, _ = dreamer(DreamState(), shot(lion)[0], SETTINGS)
    other = np.ascontiguousarray(lion[60:180, 90:250][::-1, ::-1] ^ 255)
    cut, after_cut = dreamer(state, other, SETTINGS)
    _, fresh = dreamer(DreamState(index=1), other, SETTINGS)
    assert cut.cuts == 1
    assert np.array_equal(after_cut, fresh)
    never = replace(SETTINGS, cut=0)
    assert dreamer(state, other, never)[0].cuts == 0


def test_onset_makes_the_first_frame_a_dream(dreamer: Dreamer, lion: Picture) -> None:
    def strength(warmup_steps: int) -> float:
        state, _ = dreamer(DreamState(), lion, replace(SETTINGS, warmup_steps=warmup_steps))
        assert state.residual is not None
        return float(np.abs(state.residual).mean())

    assert strength(6) > 2 * strength(0)


def test_strength_zero_shows_the_input_and_twice_shows_twice(dreamer: Dreamer, lion: Picture) -> None:
    frame = lion // 4 + 96  # away from the ends, so that nothing saturates
    shown = {s: dreamer(DreamState(), frame, replace(SETTINGS, strength=s))[1].astype(int) - frame for s in (0, 0.5, 1)}
    assert not shown[0].any()
    assert np.abs(shown[1] - 2 * shown[0.5]).max() <= 3  # rounding, of the cubic scaling too


def test_a_change_of_size_or_settings_in_the_middle_dreams_on(dreamer: Dreamer, lion: Picture) -> None:
    state, _ = dreamer(DreamState(), lion, SETTINGS)
    state, dream = dreamer(state, lion[:, :200], SETTINGS)
    assert dream.shape == (256, 200, 3)
    state, _ = dreamer(state, lion[:, :200], replace(SETTINGS, layers="mixed4:1,mixed2:0.1", octaves=1, flow="none"))
    assert state.index == 3


def test_field_is_never_larger_than_the_frame(eager: Backend) -> None:
    options = Dreamer(models.get("inception_v3"), eager, field_height=240).options
    assert options.field_size(480, 640) == (240, 320)
    assert options.field_size(270, 480) == (240, 426)
    assert options.field_size(101, 77) == (101, 77)


def test_octaves_are_coarse_to_fine_and_end_at_the_picture() -> None:
    assert octave_sizes(240, 320, 3, 2.0) == [(60, 80), (128, 160), (240, 320)]
    assert octave_sizes(241, 321, 1, 1.4) == [(241, 321)]


def test_pictures_of_nearly_the_same_size_share_their_coarse_octaves() -> None:
    """So one set of engines serves them; no octave is larger than the picture."""
    assert octave_sizes(240, 426, 2, 1.4)[0] == octave_sizes(242, 430, 2, 1.4)[0] == (176, 304)
    for height, width in ((100, 140), (97, 97), (240, 426), (1080, 1920)):
        for down, across in octave_sizes(height, width, 5, 1.05):
            assert down <= height and across <= width


@pytest.mark.parametrize(("height", "width"), [(240, 320), (100, 150), (44, 60)])
def test_a_field_is_the_mean_of_what_it_covers(lion: Picture, height: int, width: int) -> None:
    """In stages: as good as at once, and exact where whole pixels make one."""
    image = np.tile(lion, (2, 3, 1))[:480, :640]
    found = downscale_area(image, height, width).astype(int)
    at_once = cv2().resize(image, (width, height), interpolation=cv2().INTER_AREA)
    assert np.abs(found - at_once).mean() < 2.5 and found.shape == (height, width, 3)
    if (height, width) == (240, 320):
        assert np.abs(found - image.reshape(240, 2, 320, 2, 3).mean((1, 3))).max() <= 0.5
    grey = downscale_area(np.full((300, 400), 77, np.uint8), height, width)
    assert grey.shape == (height, width) and (grey == 77).all()


def test_what_is_carried_decays_by_keep_and_trust() -> None:
    residual = np.ones((8, 8, 3), np.float32)
    trust = np.full((8, 8), 0.5, np.float32)
    assert np.allclose(warp.warp_residual(residual, np.zeros((8, 8, 2), np.float32), trust, 0.9), 0.45)


@pytest.mark.parametrize(("value", "step", "expected"), [(250, 0.5, 255), (5, -0.5, 0), (100, 0.1, 113)])
def test_compose_clips_to_0_and_255(value: int, step: float, expected: int) -> None:
    image = np.full((6, 6, 3), value, np.uint8)
    for size in (6, 3):
        shown = compose_image(image, np.full((size, size, 3), step, np.float32), 1.0).astype(int)
        assert np.abs(shown - expected).max() <= 1 and (expected == 113 or (shown == expected).all())  # dithered


@pytest.mark.parametrize("noise", [2, 4, 8])
def test_a_noisy_plain_wall_is_not_a_cut_on_every_frame(noise: int) -> None:
    """What a webcam shows of a wall: a slow shade, and other noise in each frame."""
    random = np.random.default_rng(noise)
    down, across = np.mgrid[:240, :320]
    wall = 100 + 5 * np.sin(across / 100 + down / 70)
    first, second = (np.clip(wall + random.normal(0, noise, wall.shape), 0, 255).astype(np.uint8) for _ in range(2))
    assert frame_matching.frame_similarity(second, first, optical_flow.get("dis")(second, first)) > DreamSettings().cut


def test_stillness_is_1_without_motion_and_less_with_it() -> None:
    flow = np.zeros((8, 8, 2), np.float32)
    flow[:, 4:] = 3, 4
    stillness = warp.stillness_mask(flow, 5.0)
    assert (stillness[:, :4] == 1).all() and stillness[:, 4:] == pytest.approx(np.exp(-1))


def test_with_stillness_a_moving_half_is_dreamed_less(eager: Backend) -> None:
    """The right half of a textured picture slides."""
    random = np.random.default_rng(0)
    texture = np.kron(random.integers(0, 255, (24, 80, 3), np.uint8), np.ones((4, 4, 1), np.uint8))

    def halves(stillness: float) -> tuple[float, float]:
        """Return the mean residual of the still half and the moving one."""
        settings = replace(SETTINGS, stillness=stillness, octaves=1, trust="full", cut=0.0)
        dreamer, state = Dreamer(models.get("inception_v3"), eager, 0), DreamState()
        for number in range(12):
            image = texture[:, :160].copy()
            image[:, 80:] = texture[:, 80 + 3 * number:160 + 3 * number]
            state = dreamer.advance(state, image, settings)
        assert state.residual is not None
        size = np.abs(state.residual)
        return float(size[:, 8:64].mean()), float(size[:, 100:150].mean())

    (still_off, moving_off), (still_on, moving_on) = halves(0), halves(1.0)
    assert still_on == pytest.approx(still_off, rel=0.15)
    assert moving_on < 0.5 * moving_off
