"""The size of a live field, and how a dream begins in little time."""
from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from streamdream.backends import engine_cache
from streamdream.live.field_times import FieldTimes
from streamdream.live.resolution import HEIGHTS, START_HEIGHT, ResolutionController


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    return tmp_path


def test_the_field_shrinks_until_it_is_fast_enough() -> None:
    """A machine on which 240 lines take 0.15 s, once others want it too, and any other size as its area."""
    resolution = ResolutionController(240, 12)
    heights = []
    for number in range(1, 500):
        heights.append(resolution.field_height)
        resolution.observe((0.02 if number < 100 else 0.15) * (resolution.field_height / 240) ** 2, number)
    assert heights[0] == START_HEIGHT and heights[99] == 240
    assert heights[-1] == 176  # 0.081 s; 208 would take 0.113, more than 1/12
    assert len(set(heights[200:])) == 1  # and it stays there
    assert {HEIGHTS.index(a) - HEIGHTS.index(b) for a, b in pairwise(heights)} == {-1, 0, 1}


def test_a_field_that_is_far_too_large_shrinks_at_once() -> None:
    """A machine on which 720 lines take 3 s when four visitors come; 120 are 0.083 s. Three dreams are enough."""
    resolution = ResolutionController(720, 12)
    for number in range(1, 200):
        resolution.observe(0.001, number)
    assert resolution.field_height == 720
    for number in range(200, 203):
        resolution.observe(3.0, number)
    assert resolution.field_height == 120
    for number in range(203, 400):
        resolution.observe(3.0 * (resolution.field_height / 720) ** 2, number)
    assert resolution.field_height == 120


def test_a_dream_begins_with_as_many_passes_as_there_is_time_for() -> None:
    resolution = ResolutionController(240, 12)
    assert resolution.warmup_steps(8, 3) == 0  # nothing is known yet
    for number in range(1, 8):
        resolution.observe(0.008, number)
    assert (
        resolution.warmup_steps(8, 3) == 2 and resolution.warmup_steps(1, 3) == 1
    )  # three passes of three octaves are 72 ms
    for number in range(9, 16):
        resolution.observe(0.05, number)
    assert resolution.warmup_steps(8, 3) == 0


def test_the_field_grows_again_when_there_is_time() -> None:
    resolution = ResolutionController(240, 12)
    for number in range(1, 200):
        resolution.observe(0.3, number)
    low = resolution.field_height
    for number in range(200, 5000):
        resolution.observe(0.001, number)
    assert low == HEIGHTS[0] and resolution.field_height == 240


def test_what_a_picture_of_fewer_lines_takes_says_nothing_of_more() -> None:
    """A page goes on with few for a moment, after more were wanted; a camera may have no more."""
    resolution = ResolutionController(240, 12)
    for number in range(1, 200):
        resolution.observe(0.001, number, lines=START_HEIGHT - 24)
    assert resolution.field_height == START_HEIGHT
    for number in range(200, 300):
        resolution.observe(0.3, number, lines=START_HEIGHT - 24)
    assert resolution.field_height == HEIGHTS[0]
    for number in range(300, 5000):
        resolution.observe(0.001, number, lines=resolution.field_height)
    assert resolution.field_height == 240


def test_with_time_at_the_largest_field_all_octaves_are_dreamed_at_once() -> None:
    """A machine on which an octave of 240 lines takes 20 ms: three of them fit into 1/12 s, six do not."""
    for octaves, in_turn in ((3, False), (6, True)):
        resolution, seen = ResolutionController(240, 12), []
        for number in range(1, 400):
            seen.append(resolution.cycle_octaves)
            resolution.observe(0.02 * (1 if resolution.cycle_octaves else octaves), number, octaves)
        assert seen[0] and seen[-1] is in_turn and resolution.field_height == 240
        assert sum(a != b for a, b in pairwise(seen)) <= 1


def test_octaves_that_do_not_fit_any_more_are_taken_in_turn_again() -> None:
    resolution = ResolutionController(240, 12)
    for number in range(1, 100):
        resolution.observe(0.01, number, 2)
    assert not resolution.cycle_octaves
    for number in range(100, 200):
        resolution.observe(0.07 if resolution.cycle_octaves else 0.14, number, 2)
    assert resolution.cycle_octaves and resolution.field_height == 240


def test_a_pinned_field_stays() -> None:
    resolution = ResolutionController(230, 12, fixed=True)
    for number in range(1, 50):
        resolution.observe(5.0, number)
    assert resolution.field_height == 230


def run_once(resolution: ResolutionController, times: FieldTimes, seconds_of_240: float, dreams: int = 60) -> list[int]:
    """Dream on a machine that takes that long for 240 lines; return the heights."""
    heights = []
    for number in range(1, dreams + 1):
        seconds = seconds_of_240 * (resolution.field_height / 240) ** 2
        heights.append(resolution.field_height)
        times.observe(resolution.level, seconds)
        resolution.observe(seconds, number, 3)
    return heights


def test_the_next_run_begins_with_the_field_that_this_one_found(cache: Path) -> None:
    first, key = ResolutionController(240, 12), {"device": "this one"}
    times = FieldTimes(key)
    first.start_from(times.stored)
    assert run_once(first, times, 0.08)[0] == START_HEIGHT and first.field_height == 208
    times.save()
    again = ResolutionController(240, 12)
    again.start_from(FieldTimes(key).stored)
    assert again.field_height == 208 and again.cycle_octaves
    assert again.warmup_steps(12, 1) == 0 and again.warmup_steps(12, 1, first=True) == 3  # 0.06 s each in 0.25 s
    faster = ResolutionController(240, 6)
    faster.start_from(FieldTimes(key).stored)
    assert faster.field_height == 208
    another = ResolutionController(240, 12)
    another.start_from(FieldTimes({"device": "another"}).stored)
    assert another.field_height == START_HEIGHT


def test_stored_times_that_are_wrong_now_cost_a_moment(cache: Path) -> None:
    """They say 720 lines; now 240 take 0.3 s."""
    resolution = ResolutionController(720, 12)
    resolution.start_from({"720": 0.05, "144": 0.01})
    heights = run_once(resolution, FieldTimes({}), 0.3)
    assert heights[0] == 720 and heights[3] == 120


def test_damaged_stored_times_are_as_none(cache: Path) -> None:
    key = {"device": "this one"}
    for figures in ({"240": "fast"}, {"240": -1}, {"240": float("nan")}, {"nonsense": 0.01}, {"": None}):
        engine_cache.store_measurement(key, figures)
        resolution = ResolutionController(240, 12)
        resolution.start_from(FieldTimes(key).stored)
        assert resolution.field_height == START_HEIGHT
    for path in cache.rglob("*.json"):
        path.write_text("{")
    assert FieldTimes(key).stored == {}


def test_a_pinned_field_stays_whatever_was_stored() -> None:
    resolution = ResolutionController(230, 12, fixed=True)
    resolution.start_from({"96": 0.001, "230 all octaves": 0.001})
    assert resolution.field_height == 230 and resolution.cycle_octaves
