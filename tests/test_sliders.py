"""Legibility and consistency: at 0 they change nothing; up to 1 the picture is more readable, or the dream steadier."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_bench.metrics import Motion, flicker, residual

from streamdream import models
from streamdream.backends import Backend, StepSpec
from streamdream.dream import consistency, legibility
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.dream.reference_images import Mask, References
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings

Picture = NDArray[np.uint8]
SETTINGS = DreamSettings(layers="conv2d_3", octaves=1, warmup_steps=4, step_size=0.03, regrowth=1.0)
VALUES = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def clip(lion: Picture) -> list[Picture]:
    """A camera that pans over the photograph, a pixel a frame, beside a plain wall: 48x80."""
    small = cv2().resize(lion, (128, 128), interpolation=cv2().INTER_AREA)
    frames = [np.ascontiguousarray(small[40:88, n:n + 80]) for n in range(16)]
    for frame in frames:
        frame[:, 40:] = 150
    return frames


@pytest.fixture()
def small_dreamer(eager: Backend) -> Dreamer:
    return Dreamer(models.get("inception_v3"), eager, 0)


def dream(dreamer: Dreamer, frames: list[Picture], settings: DreamSettings, state: DreamState | None = None
          ) -> tuple[DreamState, list[Picture]]:
    state, dreams = state or DreamState(), []
    for frame in frames:
        state, shown = dreamer(state, frame, settings)
        dreams.append(shown)
    return state, dreams


def ssim(first: Picture, second: Picture) -> float:
    """Of luma, with a Gaussian window of 11x11 (Wang et al. 2004)."""
    def window(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred: NDArray[np.float32] = cv2().GaussianBlur(plane, (11, 11), 1.5)
        return blurred

    a, b = (cv2().cvtColor(item, cv2().COLOR_RGB2GRAY).astype(np.float32) for item in (first, second))
    mean_a, mean_b = window(a), window(b)
    variances = window(a * a) - mean_a**2 + window(b * b) - mean_b**2
    covariance = window(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 6.5) / (mean_a**2 + mean_b**2 + 6.5)
    return float((luminance * (2 * covariance + 58.5) / (variances + 58.5)).mean())


def strength(dreams: list[Picture], frames: list[Picture]) -> float:
    return float(np.mean([np.abs(residual(*pair)).mean() for pair in zip(dreams[6:], frames[6:], strict=True)]))


def test_legibility_makes_the_picture_readable_step_by_step(small_dreamer: Dreamer, clip: list[Picture]) -> None:
    readable = []
    for value in VALUES:
        dreams = dream(small_dreamer, clip[:10], replace(SETTINGS, legibility=value))[1]
        readable.append(ssim(dreams[-1], clip[9]))
    assert readable[0] < readable[1] < readable[2] and readable[2] > readable[0] + 0.15


def test_legibility_moves_the_dream_from_a_plain_wall_to_a_busy_place(small_dreamer: Dreamer, clip: list[Picture]
                                                                      ) -> None:
    def sides(value: float) -> tuple[float, float]:
        dreams = dream(small_dreamer, clip[:8], replace(SETTINGS, legibility=value))[1]
        size = np.abs(residual(dreams[-1], clip[7]))
        return float(size[:, 4:36].mean()), float(size[:, 48:].mean())

    (busy, plain), (busy_legible, plain_legible) = sides(0), sides(1)
    assert busy_legible > busy and plain_legible < 0.6 * plain


def test_consistency_takes_flicker_away_step_by_step_but_not_the_dream(small_dreamer: Dreamer, clip: list[Picture]
                                                                        ) -> None:
    motions = Motion.of(clip)
    flickers, strengths = [], []
    for value in VALUES:
        dreams = dream(small_dreamer, clip, replace(SETTINGS, consistency=value))[1]
        flickers.append(flicker(dreams, clip, motions, 6))
        strengths.append(strength(dreams, clip))
    assert flickers[0] > flickers[1] > flickers[2] and flickers[2] < 0.8 * flickers[0]
    assert min(strengths) > 0.7 * strengths[0]


def test_at_full_consistency_a_new_dream_comes_at_once(small_dreamer: Dreamer, clip: list[Picture]) -> None:
    """At the start, and after a cut."""
    other = np.ascontiguousarray(clip[0][::-1, ::-1] ^ 255)
    state, dreams = dream(small_dreamer, [clip[0]] * 12 + [other] * 12, replace(SETTINGS, consistency=1))
    assert state.cuts == 1
    sizes = [float(np.abs(residual(shown, clip[0])).mean()) for shown in dreams[:12]]
    sizes_after = [float(np.abs(residual(shown, other)).mean()) for shown in dreams[12:]]
    assert sizes[0] > 0.6 * sizes[-1] and sizes_after[0] > 0.6 * sizes_after[-1]


def test_at_zero_nothing_is_touched(lion: Picture) -> None:
    """Not even a copy is made: the bits are those of a dream without sliders."""
    picture = lion.astype(np.float32) / 127.5 - 1
    assert legibility.shape_steps(picture, picture, picture, 0.0) is picture
    assert consistency.with_memory(SETTINGS) is SETTINGS
    assert consistency.with_step(SETTINGS, consistency.first_gain(SETTINGS)) is SETTINGS


def test_a_dream_with_sliders_goes_on_from_any_state(small_dreamer: Dreamer, clip: list[Picture], eager: Backend
                                                     ) -> None:
    settings = replace(SETTINGS, legibility=0.7, consistency=0.6)
    state, _ = dream(small_dreamer, clip[:3], settings)
    end, whole = dream(small_dreamer, clip[3:6], settings, state)
    again, resumed = dream(Dreamer(models.get("inception_v3"), eager, 0), clip[3:6], settings, state)
    assert all(np.array_equal(*pair) for pair in zip(whole, resumed, strict=True))
    assert end.residual is not None and again.residual is not None
    assert np.array_equal(end.residual, again.residual)


def test_a_slider_that_moves_compiles_nothing(eager: Backend, clip: list[Picture], monkeypatch: pytest.MonkeyPatch
                                              ) -> None:
    compiled, compile_step = [], eager.compile

    def count(spec: StepSpec) -> Any:
        compiled.append(spec)
        return compile_step(spec)

    monkeypatch.setattr(eager, "compile", count)
    dreamer, state = Dreamer(models.get("inception_v3"), eager, 0), DreamState()
    for number, frame in enumerate(clip[:4]):
        settings = replace(SETTINGS, legibility=number / 3, consistency=1 - number / 3)
        state, _ = dreamer(state, frame, settings)
    assert len(compiled) == 1


def test_what_a_mask_keeps_stays_as_it_is(small_dreamer: Dreamer, clip: list[Picture]) -> None:
    mask = np.zeros((48, 80), np.uint8)
    mask[:, :20] = 255
    state = DreamState()
    for frame in clip[:3]:
        state, shown = small_dreamer(state, frame, replace(SETTINGS, legibility=1, consistency=1),
                                     References(mask=Mask(mask)))
    assert np.array_equal(shown[:, 40:], clip[2][:, 40:]) and not np.array_equal(shown[:, :10], clip[2][:, :10])


@pytest.mark.parametrize("values", [{"keep": 0.999}, {"keep": 0.0, "step_size": 0.5}, {"step_size": 0.0001}])
def test_consistency_of_extreme_settings_stays_legal(values: dict[str, float]) -> None:
    settings = DreamSettings(consistency=1, **values)  # type: ignore[arg-type]
    assert 0 <= consistency.with_memory(settings).keep <= 0.999
    for passes in (1, 13):
        assert 0.0001 <= consistency.with_step(settings, passes).step_size <= 0.5
