"""The benchmarks run, their JSON has its shape, and their metrics tell good from bad."""
from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import streamdream_bench
from numpy.typing import NDArray
from streamdream_bench import Options, Report, clips, equality, metrics, run_bench
from streamdream_bench.baselines import blend_mask
from streamdream_bench.synthetic import Plane, Scene

from streamdream import models
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.objectives import Objective
from streamdream.ascent.terms import Activations
from streamdream.backends import StepSpec
from streamdream.backends.eager import Eager
from streamdream.errors import EngineError, SourceError, UnknownName
from streamdream.settings_parsing import parse_layers

pytestmark = pytest.mark.usefixtures("one_thread")

Picture = NDArray[np.uint8]
TINY = Options(height=96, width=128, field_height=0, frames=6, backend="eager", device="cpu",
               precision="fp32")


# -- what a benchmark gives --


def test_bench_step_reports_each_row_as_json() -> None:
    report = run_bench("step", TINY)
    assert set(report.to_json()) == {"conditions", "rows"}
    (row,) = report.rows
    assert {"backend", "precision", "model", "layers", "size", "ms_p50", "gflop", "matmul_share"} <= set(row)
    assert (row["backend"], row["precision"], row["layers"], row["size"]) == ("eager", "fp32", "mixed3", "128x96")
    assert row["ms_p50"] > 0 and row["matmul_share"] > 0
    assert 0.5 < row["gflop"] < 2
    json.dumps(report.to_json())


def test_step_measures_every_precision_worth_it() -> None:
    from streamdream_bench.step import _chosen

    found = list(_chosen(Options(device="cpu"), models.get("inception_v3")))
    assert ("eager", "fp32") in [(backend.name, backend.precision) for backend in found]
    assert len({(backend.name, backend.precision) for backend in found}) == len(found)


def test_equality_compares_all_that_runs_with_autograd() -> None:
    model = models.get("inception_v3")
    spec = StepSpec(Objective(((Activations(parse_layers("conv2d_4")), 1.0),)), 96, 112, GradientShape(1.0, 0.4))
    rows = list(equality.compare(TINY, model, spec))
    names = [(row["backend"], row["precision"]) for row in rows]
    assert names[:4] == [("graph", "fp32"), ("graph", "fp64"), ("plain autograd", "fp32"), ("eager", "fp32")]
    assert all(0 < row["error"] < 0.1 and row["cosine"] > 0.99 for row in rows[:4]), rows
    wrong = equality.worst(spec, lambda picture, size: picture + size, lambda picture, size: picture - size)
    assert wrong["error"] > 1.9 and wrong["cosine"] < -0.9


def test_equality_goes_on_where_an_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("it is another step")

    monkeypatch.setattr(Eager, "compile", lambda self, spec: refuse)
    spec = StepSpec(Objective(((Activations(parse_layers("conv2d_1")), 1.0),)), 32, 48, GradientShape(1.0, 0.4))
    rows = list(equality.compare(TINY, models.get("inception_v3"), spec))
    refused = [row for row in rows if "refused" in row]
    assert refused and all(row["backend"] == "eager" and row["refused"] == "it is another step" for row in refused)
    assert "it is another step" in Report("equality", {"step_size": 0.02}, rows).table()


def test_bench_render_reports_its_stages_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report = run_bench("render", TINY)
    (row,) = report.rows
    assert (row["clip"], row["size"], row["frames"]) == ("world.mp4", "128x96", 6)
    assert row["fps"] > 0
    assert {"carry", "dream", "compose"} <= set(row["stages"])
    assert not list(tmp_path.iterdir())
    json.dumps(report.to_json())


def test_an_unknown_benchmark_is_named() -> None:
    with pytest.raises(UnknownName, match="step"):
        run_bench("stpe", Options())


def test_a_file_that_is_no_clip_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"broken\.mp4"):
        run_bench("render", Options(clip=str(broken)))
    with pytest.raises(SourceError, match=r"broken\.mp4"):
        run_bench("quality", Options(clip=str(broken)))


def test_every_benchmark_is_there() -> None:
    for place in streamdream_bench.BENCHES.values():
        module, _, name = place.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_the_table_is_aligned() -> None:
    report = Report("x", {"cores": 2, "processor": "it"}, [{"a": 1.23456, "b": None}, {"a": 10, "c": {"p50": 2.0}}])
    assert report.table().splitlines() == ["cores      2", "processor  it", "", "a      b  c", "1.235  -  -",
                                           "10     -  p50 2"]


# -- metrics --


@pytest.fixture(scope="module")
def still_clip() -> list[Picture]:
    picture = Scene(96, 128, (Plane(1),)).truth(0).image // 2 + 64
    return [picture] * 6


def add(frame: Picture, change: NDArray[np.floating]) -> Picture:
    return np.clip(np.rint(frame + change), 0, 255).astype(np.uint8)


def noise(seed: int, shape: tuple[int, ...] = (96, 128, 3)) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 10, shape)


def test_flicker_of_a_constant_residual_on_a_still_picture_is_zero(still_clip: list[Picture]) -> None:
    dreams = [add(frame, noise(0)) for frame in still_clip]
    none = metrics.Motion(np.zeros((96, 128, 2), np.float32), np.ones((96, 128), bool))
    assert metrics.flicker(dreams, still_clip, [none] * 5, 1) == 0
    assert metrics.flicker(dreams, still_clip, metrics.Motion.of(still_clip), 1) < 0.01


def test_flicker_of_independent_noise_is_above_one(still_clip: list[Picture]) -> None:
    dreams = [add(frame, noise(index)) for index, frame in enumerate(still_clip)]
    assert metrics.flicker(dreams, still_clip, metrics.Motion.of(still_clip), 1) == pytest.approx(2**0.5, rel=0.05)


def test_flicker_follows_the_motion() -> None:
    """A dream that moves with the scene is steady; one that stays on the screen is not."""
    world, dream = Scene(96, 128, (Plane(1, velocity=3 + 0j),)), Scene(96, 128, (Plane(7, velocity=3 + 0j),))
    frames = [truth.image // 2 + 64 for truth in world.clip(5)]
    moving = [add(frame, truth.image / 4.0 - 32) for frame, truth in zip(frames, dream.clip(5), strict=True)]
    staying = [add(frame, dream.truth(0).image / 4.0 - 32) for frame in frames]
    motions = metrics.Motion.of(frames)
    assert metrics.flicker(moving, frames, motions, 1) < 0.15
    assert metrics.flicker(staying, frames, motions, 1) > 0.5


def test_gain_of_the_same_picture_is_one_and_of_a_flat_one_less(lion: Picture) -> None:
    objective = Objective(((Activations(parse_layers("mixed0")), 1.0),))
    excitement = metrics.ObjectiveValue(models.get("inception_v3"), objective, (96, 96))
    value = excitement(lion)
    assert metrics.gain([lion] * 3, [value] * 3, excitement, 1) == pytest.approx(1)
    assert metrics.gain([np.full_like(lion, 128)], [value], excitement, 0) < 0.9


def test_drift_measures_brightness_and_hue_but_not_noise() -> None:
    def drift(late: tuple[float, float, float]) -> metrics.Drift:
        shifts = [np.zeros(3)] * 16 + [np.array(late)] * 16
        return metrics.Drift.of(((noise(n) + shift).astype(np.float32) for n, shift in enumerate(shifts)), 4, 8)

    steady = drift((0, 0, 0))
    assert steady.largest < 0.01 and steady.noise < 0.01
    brighter = drift((1, 1, 1))
    assert brighter.luma > 0.08 and brighter.chroma < 0.01
    bluer = drift((0, 0, 1))
    assert bluer.chroma > 0.04 and bluer.largest == bluer.chroma


def test_correlation_of_residuals() -> None:
    one, other = noise(0).astype(np.float32), noise(1).astype(np.float32)
    assert metrics.correlation(one, one) == pytest.approx(1)
    assert metrics.correlation(one, -one) == pytest.approx(-1)
    assert abs(metrics.correlation(one, other)) < 0.02
    assert metrics.correlation(one, np.zeros_like(one)) == 0
    assert metrics.correlation(one, one, np.zeros((96, 128), bool)) == 0


# -- parts --


def test_the_blend_mask_opens_where_the_pictures_agree() -> None:
    frame = np.full((240, 320, 3), 100, np.uint8)
    warped = frame.astype(np.float32)
    warped[:, 160:] += 31
    warped[100, 250] = 100  # like by chance
    mask = blend_mask(frame, warped)
    assert mask.shape == (240, 320) and mask.dtype == np.float32
    assert mask[:, 20:90].min() == 1 and mask[:, 170:].max() == 0
    assert 0 < mask[50, 160] < 1


def test_clips_are_scaled_and_counted(world: Path) -> None:
    pictures = clips.read(str(world), 4, 48, 64)
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 4
    shot = list(clips.other_shot(60, 48, 64))
    assert len(shot) == 60 and shot[0].shape == (48, 64, 3)
    assert all(np.abs(a.astype(int) - b).mean() < 25 for a, b in pairwise(shot))
