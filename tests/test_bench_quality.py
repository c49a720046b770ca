"""The footage of the quality benchmark is what it says, and its metrics tell good from bad."""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_bench import Options, equal_gain, footage, metrics, quality, residual_metrics, run_bench, variety
from streamdream_bench import temporal_metrics as temporal
from streamdream_bench.baselines import METHODS
from streamdream_bench.synthetic import Plane, Scene

from streamdream.dream.build import build_dreamer
from streamdream.errors import UnknownName
from streamdream.settings import DreamSettings, StreamSettings

pytestmark = pytest.mark.usefixtures("one_thread")

Picture = NDArray[np.uint8]
TINY = Options(height=48, width=64, field_height=0, frames=3, drift_frames=6, drift_height=48, layers="conv2d_2",
               footage="face", backend="eager", device="cpu", precision="fp32")


@pytest.mark.parametrize("name", [name for name in footage.FOOTAGE if name not in footage.CLIPS])
def test_footage_has_the_size_asked_for_moves_and_repeats(name: str) -> None:
    pictures = footage.FOOTAGE[name](4, 48, 64)
    assert [(picture.shape, picture.dtype) for picture in pictures] == [((48, 64, 3), np.uint8)] * 4
    assert all((a != b).any() for a, b in pairwise(pictures))
    assert pictures[0].std() > 20
    assert all((a == b).all() for a, b in zip(pictures, footage.FOOTAGE[name](3, 48, 64), strict=False))


def test_clips_that_are_missing_are_left_out(world: Path, tmp_path: Path) -> None:
    assert len(footage.all_footage(str(tmp_path))) == 6
    (tmp_path / "clouds.mp4").write_bytes(world.read_bytes())
    kinds = footage.all_footage(str(tmp_path))
    assert len(kinds) == 7 and len(kinds["clouds"](3, 48, 64)) == 3


# -- metrics of a residual --


def noise(seed: int = 0, shape: tuple[int, ...] = (96, 128, 3)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 10, shape).astype(np.float32)


def wave(length_px: float, degrees: float = 0, color: Sequence[float] = (1, 1, 1)) -> NDArray[np.float32]:
    """A wave that runs in the direction of an angle, from x toward y."""
    y, x = np.mgrid[:96, :128]
    along = np.cos(np.radians(degrees)) * x + np.sin(np.radians(degrees)) * y
    result: NDArray[np.float32] = (20 * np.sin(2 * np.pi / length_px * along)[..., None] * np.array(color)).astype("f4")
    return result


def test_the_palette_finds_each_axis_of_natural_colors() -> None:
    for axis, name in enumerate(residual_metrics.NATURAL_AXES):
        shares = residual_metrics.palette(wave(9, color=residual_metrics.natural_axes()[:, axis]))
        assert shares[name] == pytest.approx(1) and sum(shares.values()) == pytest.approx(1)
    assert residual_metrics.palette(wave(9))["grey"] > 0.98
    assert residual_metrics.palette(wave(9, color=(-1, 2, -1)))["green_magenta"] > 0.9
    assert sum(residual_metrics.palette(np.zeros((8, 8, 3), np.float32)).values()) == 0


def test_chroma_share_is_nothing_for_grey_and_all_for_pure_chroma() -> None:
    assert residual_metrics.chroma_share(wave(9)) == pytest.approx(0, abs=1e-6)
    red_difference = np.linalg.inv(metrics.YCBCR) @ np.array([0, 0, 1])
    assert residual_metrics.chroma_share(wave(9, color=red_difference)) == pytest.approx(1)


def test_the_slope_of_a_spectrum_is_that_of_the_noise_it_is_made_of() -> None:
    assert residual_metrics.spectrum_slope(noise(shape=(240, 320, 3))) == pytest.approx(0, abs=0.1)
    frequency = np.hypot(np.fft.fftfreq(240)[:, None], np.fft.fftfreq(320)[None])
    frequency[0, 0] = 1
    pink = np.fft.ifft2(np.fft.fft2(noise(shape=(240, 320))) / frequency).real  # amplitude 1/f, power 1/f^2
    assert residual_metrics.spectrum_slope(np.dstack([pink] * 3).astype(np.float32)) == pytest.approx(-2, abs=0.15)


def test_similarity_falls_with_noise_and_is_one_for_the_same_picture(lion: Picture) -> None:
    assert residual_metrics.similarity(lion, lion) == pytest.approx(1)
    little, much = (np.clip(lion + size * noise(shape=lion.shape), 0, 255).astype(np.uint8) for size in (0.5, 3))
    assert 1 > residual_metrics.similarity(little, lion) > residual_metrics.similarity(much, lion) + 0.2
    brighter = np.clip(lion.astype(int) + 20, 0, 255).astype(np.uint8)
    assert residual_metrics.similarity(brighter, lion) > 0.8


# -- metrics of time --


@pytest.fixture(scope="module")
def moving() -> list[Picture]:
    return [truth.image // 2 + 64 for truth in Scene(96, 128, (Plane(1, velocity=3 + 1j),)).clip(4)]


def test_e_warp_is_small_for_what_moves_with_the_scene_and_the_squared_difference_for_noise(moving: list[Picture]
                                                                                            ) -> None:
    motions = temporal.forward_motions(moving)
    still = temporal.warping_error(moving, motions)
    noisy = [(frame + noise(index)).astype(np.uint8) for index, frame in enumerate(moving)]
    assert still < 1e-4
    assert temporal.warping_error(noisy, motions) == pytest.approx(2 * (10 / 255) ** 2, rel=0.25)
    assert temporal.warping_error([moving[0]] * 4, motions) > 10 * still


def test_t_of_is_the_motion_that_is_missing(moving: list[Picture]) -> None:
    assert temporal.flow_difference(moving, moving) == 0
    assert temporal.flow_difference([moving[0]] * 4, moving) == pytest.approx(10**0.5, rel=0.15)


# -- equal gain --


@pytest.mark.parametrize("power", [0.7, 2.0, 4.0])
@pytest.mark.parametrize(("target", "start"), [(3.0, 0.012), (1.3, 0.2), (5.0, 0.004)])
def test_the_step_size_of_a_gain_is_found(target: float, start: float, power: float) -> None:
    def gain_at(size: float) -> float:
        return 1 + 5 * math.pow(1 - math.exp(-size / 0.01), power)

    found = equal_gain.find_step_size(gain_at, target, start)
    assert found.gain == pytest.approx(target, rel=equal_gain.TOLERANCE)
    assert found.own_gain == gain_at(start)


def test_a_gain_out_of_reach_gives_the_nearest() -> None:
    tried: list[float] = []

    def gain_at(size: float) -> float:
        tried.append(size)
        return min(2.0, 1 + 40 * size)

    assert equal_gain.find_step_size(gain_at, 5.0, 0.012).gain == 2
    assert len(tried) <= equal_gain.MAX_TRIALS


def test_methods_are_compared_at_equal_gain() -> None:
    settings = DreamSettings(layers="conv2d_2", octaves=1, warmup_steps=2)
    dreamer = build_dreamer(StreamSettings(backend="eager", device="cpu", precision="fp32", field_height=0))
    clip = equal_gain.Clip.of("face", footage.face(6, 48, 64), dreamer, settings)
    rows = quality.compare_methods(clip, dreamer, settings, 0, lambda line: None)
    first, ours, *others = rows
    assert [row["method"] for row in rows] == ["input", *METHODS] and first["e_warp"] < ours["e_warp"]
    assert ours["step_size"] == settings.step_size and ours["gain"] == ours["own_gain"] > 1
    assert all(row["gain"] == pytest.approx(ours["gain"], rel=0.06) for row in others), rows
    alone = next(row for row in others if row["method"] == "alone")
    assert alone["flicker"] > 1.3 * ours["flicker"] and alone["e_warp"] > ours["e_warp"]
    both = equal_gain.compare(clip, dreamer, {"one": settings, "other": DreamSettings(layers="conv2d_2", color=0)})
    assert both["other"]["gain"] == pytest.approx(both["one"]["gain"], rel=0.02)
    assert both["other"]["chroma"] < both["one"]["chroma"]


def test_recovery_counts_the_frames_until_the_gain_is_steady() -> None:
    assert quality.recovery_frames([1.0, 2.0, 3.5, 3.7, 4.0, 4.0, 4.0, 4.0]) == 4
    assert quality.recovery_frames([4.0] * 8) == 1


def test_bench_quality_reports_drift_and_cuts_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_gain, "MAX_TRIALS", 1)
    told: list[str] = []
    report = run_bench("quality", TINY, told.append)
    first, ours, *_ = report.rows
    assert report.conditions["flow"] == "Farneback" and first["clip"] == ours["clip"] == "face"
    assert ours["drift"] >= 0 and ours["drift_span"] == "2..6 by 2" and ours["cuts_found"] == "2 of 2"
    assert 1 <= ours["cut_recovery_frames"] <= 3 and told
    json.dumps(report.to_json())


def test_an_unknown_kind_of_footage_is_named() -> None:
    with pytest.raises(UnknownName, match="handheld"):
        run_bench("quality", Options(footage="handhold", backend="eager", device="cpu", precision="fp32"))


# -- variety --


def test_a_description_finds_band_orientation_color_and_strength() -> None:
    coarse, fine = (variety.describe([wave(length)]) for length in (40, 3))
    assert coarse[:5].argmax() == 0 and fine[:5].argmax() == 4
    for index, degrees in enumerate((0, 22.5, 45, 67.5, 90, 112.5, 135, 157.5)):
        assert variety.describe([wave(8, degrees)])[5:13].argmax() == index
    assert variety.describe([wave(8, color=residual_metrics.natural_axes()[:, 2])])[13:16] == pytest.approx([0, 0, 1])
    assert variety.describe([2 * wave(8)])[16] == pytest.approx(2 * variety.describe([wave(8)])[16])


def test_variety_is_nothing_between_the_same_looks_and_names_the_nearest() -> None:
    same = variety.variety({"one": [wave(8)], "other": [wave(8)]})
    assert same.mean == same.minimum == 0
    found = variety.variety({"waves": [wave(10)], "more waves": [wave(11)], "noise": [noise(1, (96, 128, 3))]})
    assert found.nearest["waves"][0] == "more waves" and found.minimum < 0.5 * found.mean


def test_bench_looks_leaves_out_what_cannot_be_dreamed_here(tmp_path: Path) -> None:
    told: list[str] = []
    for name, more in (("one", ""), ("grey", "original_colors = true\n"), ("gone", 'model = "bvlc_googlenet"\n')):
        (tmp_path / f"{name}.toml").write_text(f'layers = "conv2d_2"\nwarmup_steps = 0\noctaves = 1\n{more}')
    names = [str(tmp_path / f"{name}.toml") for name in ("one", "grey", "gone")]
    options = Options(height=48, width=64, frames=2, presets=",".join(names), backend="eager", device="cpu",
                      precision="fp32")
    report = run_bench("looks", options, told.append)
    assert [row["look"] for row in report.rows] == names[:2]
    assert any(line.startswith(f"{names[2]} is left out") for line in told)
    assert report.rows[0]["nearest"] == names[1] and report.conditions["mean_distance"] > 0
    assert report.rows[1]["colors"] > "0.97" > report.rows[0]["colors"]  # the share of grey comes first
