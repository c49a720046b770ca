"""Devices other than the processor. What needs one is skipped where there is none; that nothing is mixed up between two
is seen everywhere: PyTorch's "meta" is one that knows shapes only, and refuses to be mixed with the processor's.
"""
from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from streamdream_bench.live import Numbered, Reader

from streamdream import backends, models
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.ascent.objectives import from_settings
from streamdream.automation.controls import Controls
from streamdream.backends import Backend, StepSpec, cuda_graphs
from streamdream.backends.cuda_graphs import GraphedCallable
from streamdream.backends.eager import Eager
from streamdream.backends.tiled import Tiled
from streamdream.dream import dreamer as dreamer_module
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.media import images
from streamdream.media.frame import to_array, to_signed_unit, to_tensor
from streamdream.settings import DreamSettings
from streamdream.system import memory
from streamdream.system.memory import Budget
from streamdream.system.tensor_cache import CACHE_SIZE, record_uses

MODEL = models.get("inception_v3")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
WISHES: dict[str, dict[str, Any]] = {
    "plain": {}, "octaves": {"octaves": 3}, "channels": {"channel": "3,17"}, "guide": {"guide": "picture"},
    "style": {"style": "picture", "style_weight": 1.0, "style_layers": "conv2d_4"}, "mask": {"mask": "picture"},
    "terms": {"tv": 0.1, "l2": 0.1}, "original colours": {"original_colors": True}}


def settings(kind: str, folder: Path, picture: NDArray[np.uint8]) -> DreamSettings:
    path = folder / "picture.png"
    images.write_image(str(path), picture)
    given: dict[str, Any] = {name: str(path) if value == "picture" else value for name, value in WISHES[kind].items()}
    return DreamSettings(layers="mixed0", warmup_steps=1, **given)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("kind", WISHES)
def test_nothing_is_mixed_between_devices(kind: str, in_turn: bool, tmp_path: Path, lion: NDArray[np.uint8],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def bring_back(picture: torch.Tensor) -> NDArray[np.float32]:
        seen.append(picture.device.type)
        return to_array(torch.zeros(picture.shape))

    monkeypatch.setattr(dreamer_module, "to_array", bring_back)
    dreamer = Dreamer(MODEL, Eager(MODEL, torch.device("meta"), "fp16"), 120)
    options = replace(dreamer.options, cycle_octaves=in_turn)
    request, state = settings(kind, tmp_path, lion), DreamState()
    for _ in range(3):
        state, _ = dreamer(state, lion[:120, :160], request, options=options)
    assert seen == 3 * ["meta"]


def test_tiles_are_not_mixed_between_devices() -> None:
    spec = StepSpec(from_settings(DreamSettings(layers="conv2d_2"), MODEL), 400, 480, GradientShape(1.0, 0.4))
    step = Tiled(Eager(MODEL, torch.device("meta"), "fp32"), budget_mb=40).compile(spec)
    assert step(torch.zeros(1, 3, 400, 480), 0.02).device.type == "meta"


def test_what_a_recording_reads_is_noticed() -> None:
    """The tensors that a step makes once, the first time and every other."""
    objective = from_settings(DreamSettings(layers="conv2d_2", channel="3,17"), MODEL)
    spec = StepSpec(objective, 96, 96, GradientShape(1.0, 0.4))
    step = backends.create("eager", MODEL, "cpu", "fp32").compile(spec)
    for _ in range(2):
        with record_uses() as used:
            step(torch.zeros(1, 3, 96, 96), 0.02)
        assert len(used) == 3  # a blur's kernels, the numbers of channels, the network
    step(torch.zeros(1, 3, 96, 96), 0.02)
    assert len(used) == 3


def test_an_evicted_recording_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what cannot be recorded is tried once, and runs as it is."""
    class Recorded:
        nbytes = 100

        def __init__(self, work: Any, given: tuple[torch.Tensor, ...]) -> None:
            made.append(fails)
            if fails:
                raise RuntimeError("not while a graph is captured")
            self._work = work

        def __call__(self, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
            replays.append(1)
            return torch.as_tensor(self._work(*given))

    made: list[bool] = []
    replays: list[int] = []
    budget = Budget(1e9)
    monkeypatch.setattr(cuda_graphs, "CapturedGraph", Recorded)
    monkeypatch.setitem(memory._budgets, "cpu", budget)
    for fails in (False, True):
        made.clear()
        work = GraphedCallable(lambda x: 2 * x, torch.device("cpu"))
        for _ in range(3):
            for _ in range(4):
                assert work(torch.ones(1)).item() == 2
            budget.evict(all_unused=True)
        assert made == ([True] if fails else [False] * 3)
    assert len(replays) == 12 - cuda_graphs.WARMUP_CALLS


@pytest.mark.parametrize("kind", ["plain", "channels", "guide", "style"])
def test_a_step_in_one_call_is_given_all_that_it_is_made_of(kind: str, tmp_path: Path, lion: NDArray[np.uint8],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever replays it; for each shape of picture and targets another."""
    made = []

    def as_it_is(work: Any, device: torch.device) -> Any:
        made.append(work)
        return work

    monkeypatch.setattr(cuda_graphs, "GraphedCallable", as_it_is)
    backend, request = backends.create("eager", MODEL, "cpu", "fp32"), settings(kind, tmp_path, lion)
    spec = StepSpec(from_settings(request, MODEL), 96, 128, GradientShape(1.0, 0.4))
    photo = to_tensor(to_signed_unit(lion[:96, :128]) * 0.8)
    seen = {role: photo.flip(3) for role in ("guide", "style")}
    targets, plain = backend.targets(spec.objective, seen), backend.compile(spec)
    whole = cuda_graphs.capture_step(plain, torch.device("cpu"), spec)
    for size in (0.02, 0.01):
        torch.testing.assert_close(whole(photo, size, targets), plain(photo, size, targets), atol=1e-6, rtol=1e-5)
    whole(torch.cat([photo, photo]), 0.02, targets)
    assert len(made) == 2
    assert cuda_graphs.capture_step(plain, torch.device("cpu"), replace(spec, height=2000, width=2000)) is plain


# --- a GPU ------------------------------------------------------------------------------------------------------------

def on_gpu(name: str, precision: str = "auto") -> Backend:
    runs, reason = backends.available(name)
    if not runs:
        pytest.skip(f"{name}: {reason}")
    return backends.create(name, MODEL, "cuda", precision)


def test_the_clone_of_an_output_is_not_the_output() -> None:
    outputs = (torch.tensor([float("nan"), -0.0, 3.5]), torch.tensor([7, 255], dtype=torch.uint8),
               torch.rand(1, 3, 4, 5).contiguous(memory_format=torch.channels_last))
    clones = cuda_graphs.clone_all(outputs)
    for output, clone in zip(outputs, clones, strict=True):
        assert clone.dtype == output.dtype and clone.stride() == output.stride()
        assert clone.numpy().tobytes() == output.numpy().tobytes() and clone.data_ptr() != output.data_ptr()


@GPU
@pytest.mark.parametrize("kind", WISHES)
def test_a_gpu_dreams_what_the_processor_dreams(kind: str, tmp_path: Path, lion: NDArray[np.uint8]) -> None:
    """Six frames of it: the first run as they are, the others replayed. A rounding that flips a pool here or there is
    in every frame after it, so the longer, the less alike: measured 0.94 at least after the sixth.
    """
    request = settings(kind, tmp_path, lion)
    dreamers = [Dreamer(MODEL, backend, 120)
                for backend in (backends.create("eager", MODEL, "cpu", "fp32"), on_gpu("eager", "fp32"))]
    states = [DreamState(), DreamState()]
    for shift in range(6):
        states = [dreamer.advance(state, lion[:120, shift:160 + shift], request)
                  for dreamer, state in zip(dreamers, states, strict=True)]
        here, there = (state.residual for state in states)
        assert here is not None and there is not None
        likeness = float(np.vdot(here, there) / np.linalg.norm(here) / np.linalg.norm(there))
        assert likeness > (0.98 if shift == 0 else 0.9)


@GPU
def test_a_replayed_step_is_the_step(lion: NDArray[np.uint8]) -> None:
    """With whatever picture and step size, and after everything that was made for it once has been forgotten."""
    backend = on_gpu("eager", "fp32")
    spec = StepSpec(from_settings(DreamSettings(layers="mixed0"), MODEL), 160, 200, GradientShape(1.0, 0.4))
    step, photo = backend.compile(spec), to_tensor(to_signed_unit(lion[:160, :200]) * 0.8)
    fresh = [step(photo, size).cpu() for size in (0.02, 0.01)]
    for _ in range(3):
        step(photo.flip(3), 0.05)
    for smooth in range(CACHE_SIZE + 1):
        backend.compile(replace(spec, shape=GradientShape(1.0 + smooth / 100, 0.4)))(photo, 0.05)
    torch.cuda.empty_cache()
    rubbish = torch.full((64, 1 << 20), float("nan"), device="cuda")
    for expected, size in zip(fresh, (0.02, 0.01), strict=True):
        torch.testing.assert_close(step(photo, size).cpu() - photo, expected - photo, atol=1e-4, rtol=1e-3)
    del rubbish


@GPU
def test_evicted_recordings_give_the_gpu_its_memory_back(lion: NDArray[np.uint8]) -> None:
    """And the step goes on, with weights and a recording that are made again."""
    backend, photo = on_gpu("eager", "fp32"), to_tensor(to_signed_unit(lion[:160, :200]) * 0.8)
    shape = GradientShape(1.0, 0.4)
    steps = [backend.compile(StepSpec(from_settings(DreamSettings(layers=layers), MODEL), 160, 200, shape))
             for layers in ("mixed3", "mixed5")]
    first = [[step(photo, 0.02).cpu() for _ in range(4)][-1] for step in steps]
    budget, before = memory.budget_of(backend.device), torch.cuda.memory_allocated()
    held = budget.held_bytes
    budget.evict(all_unused=True)
    assert budget.held_bytes == 0 and before - torch.cuda.memory_allocated() > 0.5 * held > 1e7
    for _ in range(4):
        for step, expected in zip(steps, first, strict=True):
            torch.testing.assert_close(step(photo, 0.02).cpu() - photo, expected - photo, atol=1e-4, rtol=1e-3)


@GPU
def test_a_recording_is_used_by_many_threads(lion: NDArray[np.uint8]) -> None:
    weight = torch.rand(64, 64, device="cuda")
    work = GraphedCallable(lambda x: (x @ weight) @ weight.T, torch.device("cuda"))
    given = [torch.rand(64, 64) for _ in range(4)]
    expected = [(x.cuda() @ weight) @ weight.T for x in given]
    wrong: list[int] = []

    def use(number: int) -> None:
        x = given[number].cuda()  # as every thread of ours begins: cuBLAS warns in one that has used nothing else
        for _ in range(200):
            if not torch.allclose(work(x), expected[number], rtol=1e-3):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@GPU
def test_what_cannot_be_recorded_runs_as_it_is() -> None:
    work = GraphedCallable(lambda x: x * float(x.sum().item()), torch.device("cuda"))  # waits for the GPU
    x = torch.ones(4, device="cuda")
    for _ in range(5):
        assert work(x).tolist() == [4.0] * 4
    assert torch.ones(3, device="cuda").sum().item() == 3


@GPU
@pytest.mark.parametrize("name", ["eager", "auto"])
def test_live_on_a_gpu(name: str, lion: NDArray[np.uint8]) -> None:
    images = [np.ascontiguousarray(np.roll(lion, 2 * number, 1)[:180]) for number in range(30)]
    source, sink = Numbered(images, 30, 6.0), Reader()
    dreamer = Dreamer(MODEL, on_gpu(name), 144)
    report = Live(
        source, sink, dreamer, ResolutionController(144, 12.0, True), Controls(DreamSettings(layers="mixed0"))
    ).run()
    assert report.dreams > 20 and report.device.startswith("cuda")
    assert len(sink.seen) > 100
