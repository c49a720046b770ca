"""The simulation of a render by many workers, against cases worked out by hand; and the benchmark, small."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from streamdream_bench.scaling_simulation import Costs, alone, film_scan, plan_of, shot_frames, simulate
from support.commands import here

from streamdream.render.parallel_scan import MAX_PROCESSES

SECOND = Costs(frame=1.0)


def seconds(shots: tuple[int, ...], slots: int, costs: Costs = SECOND, seams: str = "exact", chunk_frames: int = 1000
            ) -> float:
    plan = plan_of(film_scan(shots, chunk_frames), chunk_frames, slots, seams)
    found: float = simulate(plan, slots, costs, 1).seconds
    return found


@pytest.mark.parametrize(("shots", "slots", "expected"), [
    ((30, 20), 2, 30), ((30, 20), 1, 50), ((30, 20), 9, 30),
    ((10, 20, 30, 40), 2, 50),  # 40 + 10, 30 + 20: the longest first
    ((50, 40, 30, 30, 30), 2, 100),  # 50 + 30, 40 + 30 + 30: not the best, which is 90
])
def test_whole_shots_longest_first(shots: tuple[int, ...], slots: int, expected: float) -> None:
    assert seconds(shots, slots) == expected


def test_chunks_of_a_shot_follow_each_other() -> None:
    """However many slots there are."""
    assert seconds((1000,), 8, chunk_frames=250) == 1000
    assert seconds((1000,), 8, Costs(frame=1.0, chunk=2.0), chunk_frames=250) == 1006


def test_a_long_shot_with_warm_up() -> None:
    """Parts of 220 frames: one of them is 40 of warm-up that the other shows and 180; then 24 of the seam."""
    plan = plan_of(film_scan((400,), 1000), 1000, 2, "warm-up")
    outcome = simulate(plan, 2, SECOND, 1)
    assert (outcome.seconds, outcome.seams) == (244, 1)
    assert outcome.warm_up_ratio == pytest.approx(64 / 488)
    assert outcome.idle_ratio == pytest.approx(24 / 488)  # one slot, while the other renders the seam


def test_what_a_worker_does_besides_frames() -> None:
    costs = Costs(load=5.0, frame=1.0, cut=3.0, start=10.0, open=2.0, join_chunk=0.5, join_frame=0.1)
    # 10 + (2 + 3 + 30) on the longer, then 2 chunks and 50 frames are joined
    assert seconds((30, 20), 2, costs) == pytest.approx(5 + 45 + 1 + 5)
    assert alone(plan_of(film_scan((30, 20), 1000), 1000, 1, "exact"), costs) == pytest.approx(5 + 50 + 6 + 1 + 5)


def test_the_driver_keeps_one_chunk_after_the_other() -> None:
    """Both are done at 10; each is kept for 3 s and 5 ms for each of two in the plan."""
    assert seconds((10, 10), 2, Costs(frame=1.0, keep=3.0, keep_planned=0.005)) == pytest.approx(16.02)
    plan = plan_of(film_scan((1,) * 50, 1000), 1000, 50, "exact")
    assert simulate(plan, 50, Costs(frame=1.0, keep=3.0), 1).limit == "driver keeps chunks"


def test_a_large_plan_is_written_for_a_tenth_of_the_time() -> None:
    costs = Costs(frame=1.0, keep=9.0, keep_planned=4.0)
    assert seconds((1,) * 500, 500, replace(costs, keep=0.0, keep_planned=0.25)) == 1 + 500 * 125
    assert seconds((1,) * 600, 600, costs) == pytest.approx(1 + 600 * (9 + 1))


def test_the_scan_takes_all_cores_of_the_driver() -> None:
    plan = plan_of(film_scan((100,), 1000), 1000, 4, "exact")
    costs = Costs(frame=0.01, scan_frame=1.0, scan_core_frame=1.5)
    assert [simulate(plan, 4, costs, cores).scan_seconds for cores in (1, 4)] == [150, 37.5]
    assert simulate(plan, 4, costs, 64).scan_seconds == pytest.approx(100 / MAX_PROCESSES)
    assert simulate(plan, 4, costs, 8).limit == "scan"


@pytest.mark.parametrize(("shots", "slots", "limit"), [((300, 10, 10), 3, "longest shot"), ((100,) * 30, 3, "frames")])
def test_what_limits_is_named(shots: tuple[int, ...], slots: int, limit: str) -> None:
    assert simulate(plan_of(film_scan(shots, 1000), 1000, slots, "exact"), slots, SECOND, 1).limit == limit


def test_shots_of_a_film_have_the_mean_and_the_spread_that_were_asked_for() -> None:
    lengths = shot_frames(2_000_000, 96, 1.2, 0)
    assert sum(lengths) == 2_000_000
    assert np.mean(lengths) == pytest.approx(96, rel=0.03)
    assert np.std(lengths) / np.mean(lengths) == pytest.approx(1.2, rel=0.1)


def test_a_machine_without_cores_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "bench", "scaling", "--node-cores", "0")
    assert result.returncode == 2 and "error: --node-cores and --driver-cores are 1 or more" in result.stderr


def test_the_command_predicts_and_measures_a_render_and_simulates_a_film(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "bench", "scaling", "--seconds", "0.2", "--height", "96", "--width", "128", "--frame-ms", "7",
                  "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["conditions"]["frame_ms"] == pytest.approx(7) and report["conditions"]["driver_cores"] == 16
    checks = [row for row in report["rows"] if row["render"] == "check"]
    assert [row["workers"] for row in checks] == [1, 2]
    assert all(row["predicted_s"] > 0 and row["measured_s"] > 0 for row in checks)
    film = [row for row in report["rows"] if row["render"] == "film"]
    assert {row["split"] for row in film} == {"exact", "warm-up"} and max(row["gpus"] for row in film) == 1000
    assert all(0 < row["efficiency_ratio"] <= 1 and row["limit"] for row in film)
