"""What is captured on a GPU, and how it is replayed: on the processor, in place of what touches a GPU."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from support.device_dreams import SETTINGS, device_dreamer
from torch import Tensor

from streamdream.backends import Backend, cuda_graphs
from streamdream.dream.device_program import Layout
from streamdream.dream.options import DreamOptions
from streamdream.system import tensor_cache
from streamdream.system.tensor_cache import CACHE_SIZE, cached_tensor

CPU = torch.device("cpu")
capturing = threading.local()


class Graph:
    """Replays what ``replay`` is set to."""

    def __init__(self) -> None:
        self.replay: Callable[[], object] = lambda: None

    def capture_begin(self, **options: object) -> None:
        capturing.on = True

    def capture_end(self) -> None:
        capturing.on = False


class Pool:
    pool = None

    def __init__(self) -> None:
        self.replaying = threading.Lock()

    @staticmethod
    def capturing() -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(cuda_graphs.CapturePool, "on", lambda device: pool)


@pytest.mark.usefixtures("gpu")
def test_no_replay_comes_between_another_and_the_copy_of_its_outputs() -> None:
    """The intermediate values of one graph may be where the outputs of another are; a render matches in a thread."""
    memory = torch.zeros(4)
    wrong: list[float] = []

    def replay(value: float) -> None:
        memory.fill_(value)
        time.sleep(0.001)

    def graph_of(value: float) -> cuda_graphs.CapturedGraph:
        graph = cuda_graphs.CapturedGraph(lambda x: memory, (torch.ones(1),))
        graph._graph.replay = lambda: replay(value)
        return graph

    def use(value: float) -> None:
        graph = graph_of(value)
        for _ in range(30):
            result = graph((torch.ones(1),))
            assert isinstance(result, Tensor)
            wrong.extend(item for item in result.tolist() if item != value)

    threads = [threading.Thread(target=use, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.usefixtures("gpu")
def test_no_constant_is_made_during_a_capture() -> None:
    """It would be in the cache without having its values. A graph that was evicted is captured long after the calls
    that made its constants.
    """
    made: list[bool] = []

    @cached_tensor
    def constant(number: int) -> Tensor:
        made.append(getattr(capturing, "on", False))
        return torch.full((1,), float(number))

    def work(x: Tensor) -> Tensor:
        numbers = range(CACHE_SIZE + 1)  # more than the cache holds
        return x + sum(constant(number) for number in numbers)

    graph = cuda_graphs.CapturedGraph(work, (torch.ones(1),))
    assert len(made) == CACHE_SIZE + 1 and not any(made)
    assert len(graph._constants) == CACHE_SIZE + 1
    assert tensor_cache._used.get() is None


def test_a_function_is_captured_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph has constant shapes, but pictures of several sizes have the same field."""
    made: list[int] = []

    def graphed(work: Any, device: torch.device) -> Any:
        made.append(len(made))
        return work

    monkeypatch.setattr(cuda_graphs, "GraphedCallable", graphed)
    twice = cuda_graphs.capture_function(lambda x: 2 * x, CPU)
    for size in (3, 4, 3, 4):
        assert twice(torch.ones(size)).tolist() == [2.0] * size
    assert len(made) == 2


def test_pictures_of_many_sizes_keep_their_functions(eager: Backend) -> None:
    """Many sessions share a program: the same field, of pictures of as many sizes."""
    dreamer = device_dreamer(eager)
    assert dreamer._device is not None
    program = dreamer._device.program(SETTINGS, (64, 96), DreamOptions(64), 0)
    parts = [((0, torch.uint8, (1, 64 * scale, 96 * scale, 3)),) for scale in range(1, 9)]
    first = [program.whole_packed(Layout(0), part) for part in parts]
    assert [program.whole_packed(Layout(0), part) for part in parts] == first
