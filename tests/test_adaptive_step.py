"""A dream that motion, a cut or another look has cleared grows back faster, and only there."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamdream.automation.automation import Automation
from streamdream.automation.controls import Controls
from streamdream.automation.forgetting import REMAINDER, Forgetting
from streamdream.dream import step_gain
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.settings import DreamSettings, read_preset

SETTINGS = DreamSettings(layers="conv2d_4", octaves=1, warmup_steps=30, flow="none")
Picture = NDArray[np.uint8]


def dream(dreamer: Dreamer, state: DreamState, picture: Picture, count: int, **settings: Any) -> DreamState:
    for _ in range(count):
        state = dreamer.advance(state, picture, replace(SETTINGS, **settings))
    return state


def cleared(state: DreamState) -> DreamState:
    """The state without the left half of its dream, as trust clears it."""
    assert state.residual is not None and state.maturity is not None
    residual, maturity = state.residual.copy(), state.maturity.copy()
    residual[:, :residual.shape[1] // 2], maturity[:, :maturity.shape[1] // 2] = 0, 0
    return replace(state, residual=residual, maturity=maturity)


def strengths(state: DreamState) -> tuple[float, float]:
    """RMS of the left and of the right part of the residual, without what lies between."""
    assert state.residual is not None
    quarter = state.residual.shape[1] // 4
    left, right = state.residual[:, :quarter], state.residual[:, -quarter:]
    return float(np.sqrt(np.square(left).mean())), float(np.sqrt(np.square(right).mean()))


def test_a_cleared_place_grows_back_faster_and_the_rest_stays(dreamer: Dreamer, lion: Picture) -> None:
    picture = np.ascontiguousarray(lion[60:180, :160])
    before = cleared(dream(dreamer, DreamState(), picture, 2))
    usual = strengths(dream(dreamer, before, picture, 4, regrowth=1))
    faster = strengths(dream(dreamer, before, picture, 4, regrowth=3))
    assert faster[0] > 1.5 * usual[0] and faster[1] == pytest.approx(usual[1], rel=0.1)


def test_a_place_that_has_grown_back_grows_no_further(dreamer: Dreamer, lion: Picture) -> None:
    picture = np.ascontiguousarray(lion[60:180, :160])
    grown = dream(dreamer, cleared(dream(dreamer, DreamState(), picture, 2)), picture, 30)
    left, right = strengths(grown)
    usual = strengths(dream(dreamer, DreamState(), picture, 60, regrowth=1))
    assert left / right < 1.25 * usual[0] / usual[1]


def test_a_dream_that_nothing_cleared_is_the_same_bit_for_bit(dreamer: Dreamer, lion: Picture) -> None:
    picture = np.ascontiguousarray(lion[60:180, :160])
    before = dream(dreamer, DreamState(), picture, 2)
    with_gain, without = (dream(dreamer, before, picture, 3, regrowth=gain) for gain in (16, 1))
    assert with_gain.residual is not None and without.residual is not None
    assert np.array_equal(with_gain.residual, without.residual)


def test_the_first_frame_and_frames_that_carry_nothing_take_usual_steps(dreamer: Dreamer, lion: Picture) -> None:
    picture = np.ascontiguousarray(lion[60:180, :160])
    for settings in ({"warmup_steps": 0}, {"keep": 0.0}):
        first, other = (dream(dreamer, DreamState(), picture, 1 + ("keep" in settings), regrowth=gain, **settings)
                        for gain in (16, 1))
        assert first.residual is not None and other.residual is not None
        assert np.array_equal(first.residual, other.residual)


def test_the_maturity_moves_with_the_picture() -> None:
    maturity = np.zeros((8, 16), np.float32)
    maturity[:, :4] = 1
    flow = np.zeros((8, 16, 2), np.float32)
    flow[..., 0] = -4  # each pixel was four to the left
    carried = step_gain.carry(maturity, flow, np.full((8, 16), 0.5, np.float32), 0.9)
    assert np.allclose(carried[:, 4:8], 0.45) and np.allclose(carried[:, 9:], 0)


def test_a_state_of_an_earlier_version_is_mature(dreamer: Dreamer, lion: Picture) -> None:
    picture = np.ascontiguousarray(lion[60:180, :160])
    old = replace(dream(dreamer, DreamState(), picture, 1, warmup_steps=3), maturity=None)
    with_gain, without = (dream(dreamer, old, picture, 1, regrowth=gain) for gain in (16, 1))
    assert with_gain.residual is not None and without.residual is not None
    assert np.array_equal(with_gain.residual, without.residual)


@pytest.mark.parametrize("name", ["google-2015", "deepdream-video", "deepdreamanim", "neural-dream", "places-2015"])
def test_presets_of_other_programs_step_as_those_do(name: str) -> None:
    assert read_preset(name)["regrowth"] == 1


@pytest.mark.parametrize("rate", [12, 60])
@pytest.mark.parametrize("fade", [0.0, 1.0, 3.0])
def test_another_look_takes_the_place_of_the_dream_by_the_end_of_the_fade(rate: int, fade: float) -> None:
    controls = Controls(SETTINGS)
    automation, kept = Automation(controls, fade=fade), []
    for number in range(8 * rate):
        if number == rate:
            controls.change({"layers": "mixed0"})
        if number == 6 * rate:
            controls.change({"strength": 0.5})  # no other content
        kept.append(automation.dream_request_at(number / rate).kept)
    forgetting = Forgetting(fade)
    end = rate + round(forgetting.duration * rate)
    assert np.prod(kept[rate:end + 2]) == pytest.approx(forgetting.remainder, rel=1e-3)
    assert set(kept[:rate + 1]) == {1.0} == set(kept[end + 2:])


def test_a_slow_fade_forgets_less() -> None:
    assert Forgetting(0.0).remainder == Forgetting(1.0).remainder == REMAINDER < 0.1
    assert 0.4 < Forgetting(4.0).remainder < 0.7 and Forgetting(60.0).remainder > 0.8


def test_a_faded_state_is_weaker_and_younger(dreamer: Dreamer, lion: Picture) -> None:
    state = dream(dreamer, DreamState(), np.ascontiguousarray(lion[60:180, :160]), 1)
    faded = state.faded(0.5)
    assert state.residual is not None and faded.residual is not None
    assert np.array_equal(faded.residual, 0.5 * state.residual)
    assert state.maturity is not None and faded.maturity is not None
    assert np.array_equal(faded.maturity, 0.5 * state.maturity)
    assert DreamState().faded(0.5) == DreamState()
