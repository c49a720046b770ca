"""Tiles: what they give is what one step on the whole picture gives, and they take less memory."""
from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamdream import backends, models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import Backend, StepSpec
from streamdream.backends.tiled import Axis, Tiled, bytes_per_pixel, overlap_of
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.media.frame import to_signed_unit, to_tensor
from streamdream.models import Model
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

MODEL = models.get("inception_v3")


@pytest.fixture(scope="module")
def photo(lion: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An odd size, three tiles wide and two high."""
    return np.ascontiguousarray(cv2.resize(lion, (933, 517), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize(("length", "longest", "overlap", "stride"), [
    (1000, 400, 64, 16), (1001, 400, 64, 16), (517, 100, 128, 16), (4096, 900, 256, 32), (700, 699, 8, 8),
])
def test_tiles_cover_every_pixel_once(length: int, longest: int, overlap: int, stride: int) -> None:
    axis, written = Axis.of(length, longest, overlap, stride), np.zeros(length, int)
    for tile in axis.tiles():
        assert tile.read.stop <= length and tile.read.start % stride == 0
        assert tile.read.stop - tile.read.start == axis.tile
        assert tile.write.stop - tile.write.start == tile.used.stop - tile.used.start
        assert tile.write.start - tile.read.start == tile.used.start
        assert tile.write.start == 0 or tile.used.start >= overlap
        assert tile.write.stop == length or axis.tile - tile.used.stop >= overlap
        written[tile.write] += 1
    assert (written == 1).all()


def one_step(backend: Backend, settings: DreamSettings, photo: NDArray[np.uint8]) -> torch.Tensor:
    objective = objectives.from_settings(settings, backend.model)
    picture = to_tensor(to_signed_unit(photo))
    height, width, _ = photo.shape
    step = backend.compile(StepSpec(objective, height, width, GradientShape.of(settings)))
    return step(picture, settings.step_size) - picture


@pytest.mark.parametrize(("layers", "tv"), [("mixed3", 0.0), pytest.param("mixed1:-1", 0.5, marks=pytest.mark.soak)])
def test_one_step_in_tiles_is_the_step_on_the_whole(layers: str, tv: float, eager: Backend, photo: NDArray[np.uint8]
                                                    ) -> None:
    settings = DreamSettings(layers=layers, tv=tv)
    whole, tiled = one_step(eager, settings, photo), one_step(Tiled(eager, 50), settings, photo)
    assert float((tiled - whole).norm() / whole.norm()) < 0.01


def with_random_weights(name: str) -> Model:
    model = models.get(name)
    stored = random_weights(model.nodes())
    return replace(model, load_weights=lambda: stored)


def test_half_precision_needs_more_than_half_the_memory() -> None:
    """As what is largest, the beginning, is float32 all the same."""
    objective = objectives.from_settings(DreamSettings(), MODEL)
    half, whole = (bytes_per_pixel(MODEL, objective, size) for size in (2, 4))
    assert 0.6 * whole < half < whole
    first = objectives.from_settings(DreamSettings(layers="conv2d_2"), MODEL)
    assert bytes_per_pixel(MODEL, first, 2) == bytes_per_pixel(MODEL, first, 4)



@pytest.mark.parametrize(("name", "layers"), [
    ("bvlc_googlenet", "inception_4c/output"),
    *(pytest.param(*case, marks=pytest.mark.soak) for case in (
        ("inception5h", "mixed3b"), ("torchvision_googlenet", "inception3b"))),
])
def test_tiles_lie_on_the_grid_of_every_architecture(name: str, layers: str, photo: NDArray[np.uint8]) -> None:
    backend = backends.create("eager", with_random_weights(name), "cpu", "fp32")
    settings = DreamSettings(layers=layers)
    whole, tiled = one_step(backend, settings, photo), one_step(Tiled(backend, 50), settings, photo)
    assert float((tiled - whole).norm() / whole.norm()) < 0.01


@pytest.mark.soak
def test_no_edge_shows_after_some_steps(eager: Backend, photo: NDArray[np.uint8]) -> None:
    """A dream is chaotic: the last bit of one step is another picture ten steps on, tiled or not. What must not be is
    a line where tiles meet: the change across such a line is as the change across any other."""
    settings = DreamSettings(steps=2, octaves=1, warmup_steps=0, step_size=0.02)
    tiled = Tiled(eager, 50)
    state, _ = Dreamer(MODEL, tiled)(DreamState(), photo, settings)
    residual = state.residual
    assert residual is not None
    change = np.abs(np.diff(residual, axis=1)).mean((0, 2))
    stride, overlap = overlap_of(MODEL, objectives.from_settings(settings, MODEL))
    side = int((50e6 / bytes_per_pixel(MODEL, objectives.from_settings(settings, MODEL), 4)) ** 0.5)
    seams = [tile.write.start - 1 for tile in Axis.of(933, side, overlap, stride).tiles()][1:]
    assert len(seams) >= 2
    assert np.max(change[seams]) < np.quantile(change, 0.99)


def test_small_pictures_are_not_cut(eager: Backend) -> None:
    spec = StepSpec(objectives.from_settings(DreamSettings(), MODEL), 240, 320, GradientShape(1.5, 0.4))
    calls = []

    class Spy:
        def __getattr__(self, name: str) -> object:
            return getattr(eager, name)

        def compile(self, spec: StepSpec) -> object:
            calls.append(spec)
            return eager.compile(spec)

    Tiled(Spy(), 600).compile(spec)  # type: ignore[arg-type]
    Tiled(Spy(), 50).compile(replace(spec, height=2000, width=2000))  # type: ignore[arg-type]
    assert calls == [spec]


@pytest.mark.soak
def test_a_large_picture_takes_less_memory_in_tiles(lion: NDArray[np.uint8], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(lion, (1300, 1300)))

    def peak_mb(budget: int) -> float:
        result = subprocess.run([sys.executable, "-m", "streamdream", "image", tmp_path / "large.png", "-o",
                                 tmp_path / "out.png", "-y", "--layers", "mixed0", "--octaves", "1", "--steps", "1",
                                 "--precision", "fp32",
                                 "--tile-memory", str(budget), "--json"], capture_output=True, text=True, check=True)
        return float(json.loads(result.stdout)["peak_rss_mb"])

    assert peak_mb(200) < peak_mb(100_000) - 300
