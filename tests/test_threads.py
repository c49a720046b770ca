"""How many threads a live dream takes: which number is found for which machine."""
from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from streamdream.live.thread_tuner import REPROBE_AFTER, ThreadTuner
from streamdream.system.torch_threads import default_threads, use_threads


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
def test_the_fewest_are_taken_that_are_about_as_fast(seconds: Callable[[int], float], expected: int) -> None:
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
