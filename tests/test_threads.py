"""On how many threads a dream is computed: as many as ``--threads`` says; in live the number that is the fastest."""
from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.commands import here
from support.live_runs import Ends, live

from streamdream import backends
from streamdream.backends import Backend
from streamdream.backends.engine_cache import list_engines
from streamdream.dream.build import build_dreamer
from streamdream.dream.dreamer import DreamState
from streamdream.live.thread_tuner import REPROBE_AFTER, ThreadTuner
from streamdream.media.images import write_image
from streamdream.media.sinks.base import NullSink
from streamdream.settings import DreamSettings, StreamSettings
from streamdream.system.torch_threads import default_threads, effective_threads, set_process_threads, use_threads


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    """What a test sets for the process is set back."""
    yield
    set_process_threads(0)


def dream(threads: ThreadTuner, number: int, seconds: Callable[[int], float], field_height: int = 144) -> Counter[int]:
    """So many dreams; how many of them were computed on which number of threads."""
    used: Counter[int] = Counter()
    for _ in range(number):
        used[threads.number] += 1
        threads.observe(seconds(threads.number), field_height, 3)
    return used


@pytest.mark.parametrize(("seconds", "expected"), [
    (lambda threads: 0.04 / threads, 8),  # alone on the machine
    (lambda threads: 0.04 * threads, 1),  # others want it too
    (lambda threads: 0.04 if threads < 8 else 0.039, 1),  # as good as the same: the rest is for others
    (lambda threads: {1: 0.04, 4: 0.02, 8: 0.03}[threads], 4)])
def test_the_fewest_threads_of_about_the_same_speed_are_used(seconds: Callable[[int], float], expected: int) -> None:
    threads = ThreadTuner(8)
    dream(threads, 50, seconds)
    assert threads.number == expected and not threads.probing


def test_a_busy_machine_is_noticed_and_trials_are_few() -> None:
    threads = ThreadTuner(2)
    used = dream(threads, 4 * REPROBE_AFTER, lambda number: 0.04 / number)
    assert threads.number == 2 and used[1] < 0.05 * used[2]
    used = dream(threads, 4 * REPROBE_AFTER, lambda number: 0.04 * number)
    assert threads.number == 1 and used[2] < 1.5 * REPROBE_AFTER


def test_another_field_is_tried_soon() -> None:
    threads = ThreadTuner(2)
    dream(threads, 50, lambda number: 0.02)
    assert threads.number == 1
    dream(threads, 60, lambda number: 0.2 / number, field_height=480)
    assert threads.number == 2


def test_one_thread_is_never_tried() -> None:
    threads = ThreadTuner(1)
    assert dream(threads, 1000, lambda number: 0.02) == {1: 1000} and not threads.probing


def test_a_thread_count_holds_for_the_thread_that_dreams_only() -> None:
    before = default_threads()
    threads, seen = ThreadTuner(before + 1), []

    def work() -> None:
        with threads.applied():
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [before + 1, before] and torch.get_num_threads() == before


def test_what_there_is_at_most_is_known_before_anything_changes_it() -> None:
    """Pictures of layers on one thread, the first thing that a server does, leave it all of them."""
    before = default_threads()
    default_threads.cache_clear()
    with use_threads(before + 1):
        pass
    assert default_threads() == before


@pytest.mark.parametrize("backend", ["eager", pytest.param("openvino", marks=pytest.mark.soak)])
def test_a_number_of_threads_gives_the_same_dream_again(backend: str, kept: Path, lion: NDArray[np.uint8]) -> None:
    if not backends.available(backend)[0]:
        pytest.skip(f"{backend} cannot run here")

    def dream(threads: int) -> bytes:
        dreamer = build_dreamer(StreamSettings(backend=backend, precision="fp32", field_height=96, threads=threads))
        assert torch.get_num_threads() == threads
        residual = dreamer(DreamState(), lion, DreamSettings(warmup_steps=0))[0].residual
        assert residual is not None
        return residual.tobytes()

    one, two = dream(1), dream(2)
    assert dream(1) == one and dream(2) == two  # from the stored engines, where there are some
    assert len({engine.build_key["device"] for engine in list_engines()}) == (2 if backend == "openvino" else 0)


def test_a_command_computes_on_as_many_threads_as_it_is_told(tmp_path: Path, lion: NDArray[np.uint8],
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    write_image(str(tmp_path / "a.png"), lion[:100, :100])
    wanted = default_threads() + 1
    result = here(capsys, "image", tmp_path / "a.png", "-o", tmp_path / "b.png", "--backend", "eager", "--octaves", 1,
                  "--steps", 1, "--warmup-steps", 0, "--threads", wanted)
    assert result.returncode == 0 and torch.get_num_threads() == wanted


def test_a_run_without_a_number_computes_on_the_default(eager: Backend) -> None:
    assert effective_threads(StreamSettings()) == default_threads()
    assert effective_threads(StreamSettings(threads=3)) == 3
    build_dreamer(StreamSettings(backend="eager", threads=default_threads() + 1))
    build_dreamer(StreamSettings(backend="eager"))
    assert torch.get_num_threads() == default_threads() == effective_threads(StreamSettings())


def test_a_number_that_the_program_has_set_stays() -> None:
    torch.set_num_threads(default_threads() + 1)
    build_dreamer(StreamSettings(backend="eager", precision="fp32"))
    assert torch.get_num_threads() == default_threads() + 1
    torch.set_num_threads(default_threads())


@pytest.mark.parametrize("more", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_a_live_run_tries_no_more_threads_than_it_may(more: int, eager: Backend,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    highest, used = 1 + more * default_threads(), set()
    set_process_threads(highest)
    compile_step = eager.compile

    def spied(spec: backends.StepSpec) -> backends.Step:
        step = compile_step(spec)

        def run(picture: torch.Tensor, step_size: float, targets: backends.AllTargets = ()) -> torch.Tensor:
            used.add(torch.get_num_threads())
            return step(picture, step_size, targets)

        return run

    monkeypatch.setattr(eager, "compile", spied)
    live(Ends(400), NullSink(), eager, DreamSettings(warmup_steps=0, octaves=1)).run()
    assert max(used) == highest
