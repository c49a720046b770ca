"""What prepared steps hold in memory: bounded by bytes, evicted while unused, made again, given back to the system."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from support.engines import MODEL, counted, spec, wait_for

from streamdream import backends
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, auto, build_process, engine, trial
from streamdream.backends.auto import Auto
from streamdream.backends.eager import Eager
from streamdream.backends.evictable import EvictableEngine, LoadedEngine
from streamdream.backends.openvino import OpenVino
from streamdream.dream.build import build_dreamer
from streamdream.settings import DreamSettings, StreamSettings, WebSettings
from streamdream.system import memory
from streamdream.system.memory import Budget, CacheEntry

OPENVINO = pytest.mark.skipif(not backends.available("openvino")[0], reason="OpenVINO is not installed")
CPU = torch.device("cpu")


@pytest.fixture()
def budget(monkeypatch: pytest.MonkeyPatch) -> Budget:
    """Of the processor, for this test alone: what other tests prepared is not in it."""
    mine = Budget(1e12)
    monkeypatch.setitem(memory._budgets, "cpu", mine)
    return mine


def loaded(budget: Budget) -> list[CacheEntry[object]]:
    return [entry for entry in budget.entries() if entry.loaded]


def new_entry(budget: Budget) -> CacheEntry[bytes]:
    return CacheEntry(budget, len, idle_seconds=1e9)


def use(*entries: CacheEntry[bytes]) -> None:
    """One after the other; each then holds 100 bytes."""
    for entry in entries:
        with entry.use(lambda: bytes(100)):
            pass


# --- the budget -------------------------------------------------------------------------------------------------------

def test_the_least_recently_used_goes_when_bytes_run_out() -> None:
    budget = Budget(250)
    one, two, three = entries = [new_entry(budget) for _ in range(3)]
    use(one, two, one, three)
    assert [entry.loaded for entry in entries] == [True, False, True] and budget.held_bytes == 200
    use(two)
    assert [entry.loaded for entry in entries] == [False, True, True]


def test_what_is_in_use_is_never_evicted() -> None:
    budget = Budget(50)
    one, two = new_entry(budget), new_entry(budget)
    with one.use(lambda: bytes(100)):
        use(two)
        budget.evict(all_unused=True)
        assert one.loaded and not two.loaded
    budget.evict()
    assert not one.loaded


def test_what_grows_is_counted_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CHECK_SECONDS", 0.0)
    budget = Budget(250)
    grows: CacheEntry[list[bytes]] = CacheEntry(budget, lambda packed: sum(map(len, packed)), 1e9)
    other = new_entry(budget)
    use(other)
    with grows.use(lambda: [bytes(100)]) as packed:
        packed.append(bytes(100))
    assert grows.loaded and not other.loaded


def test_what_nobody_holds_leaves_the_budget() -> None:
    trimmed: list[int] = []
    budget = Budget(1000, lambda: trimmed.append(1))
    entry = new_entry(budget)
    use(entry)
    budget.evict()
    assert budget.held_bytes == 100 and not trimmed
    del entry
    budget.evict()
    assert budget.held_bytes == 0 and budget.entries() == [] and trimmed


def test_a_failed_build_leaves_no_user_of_the_entry() -> None:
    def make() -> bytes:
        raise RuntimeError("no memory")

    entry = new_entry(Budget(1000))
    with pytest.raises(RuntimeError, match="no memory"), entry.use(make):
        pass
    assert entry.users == 0 and not entry.loaded
    use(entry)
    assert entry.users == 0


def test_entries_can_be_added_and_removed_in_parallel() -> None:
    """They are made in threads of their own, and whoever dreams must not stumble over that."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    budget, over = Budget(300), threading.Event()
    held: list[EvictableEngine] = []

    def new() -> EvictableEngine:
        engine = LoadedEngine(lambda: torch.zeros(()), 100, stored=True)
        return EvictableEngine(engine, lambda: engine, budget)

    def arrive() -> None:
        while not over.is_set():
            held[:] = [new() for _ in range(50)]

    thread = threading.Thread(target=arrive)
    thread.start()
    try:
        working = new()
        for _ in range(2000):
            assert working().shape == ()
    finally:
        sys.setswitchinterval(before)
        over.set()
        thread.join()
    budget.evict()
    assert budget.held_bytes <= 300


@pytest.mark.parametrize(("membership", "file", "limit"), [
    ("0::/a/b", "a/memory.max", 2_000_000), ("4:memory:/x", "memory/x/memory.limit_in_bytes", 3_000_000),
    ("0::/a/b", "a/b/memory.max", memory.NO_LIMIT), ("0::/a", "", memory.NO_LIMIT)])
def test_the_limit_of_the_control_group_is_known(membership: str, file: str, limit: int, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").write_text(f"9:cpu:/elsewhere\n{membership}\n")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    if file:
        (tmp_path / "cgroup" / file).parent.mkdir(parents=True)
        (tmp_path / "cgroup" / file).write_text("max\n" if limit == memory.NO_LIMIT else f"{limit}\n")
    assert memory.cgroup_bytes() == limit
    if limit < memory.NO_LIMIT:
        assert memory.auto_bytes(CPU) == limit // 4


# --- networks ---------------------------------------------------------------------------------------------------------

LAYERS = ("mixed3", "mixed5", "mixed2", "mixed3,mixed5")


def test_memory_bounds_what_layers_and_sizes_leave_behind(budget: Budget) -> None:
    """``--memory 64M``, and the pictures are the same as without it."""
    def dream(backend: backends.Backend) -> list[torch.Tensor]:
        found = []
        for layers in LAYERS * 2:
            for width in (96, 128):
                objective = objectives.from_settings(DreamSettings(layers=layers), MODEL)
                at = StepSpec(objective, 96, width, GradientShape(1.5, 0.4))
                picture = engine.natural_noise(torch.Size((1, 3, 96, width)), CPU)
                found.append(backend.compile(at)(picture, 0.02))
                held.append(budget.held_bytes)
        largest.append(max(entry.nbytes for entry in budget.entries()))
        return found

    held: list[int] = []
    largest: list[int] = []
    dreamer = build_dreamer(StreamSettings(backend="eager", precision="fp32", memory="1T"))
    expected, without = dream(dreamer.backend), max(held)
    held.clear()
    dreamer = build_dreamer(StreamSettings(backend="eager", precision="fp32", memory="64M"))
    assert budget.limit_bytes == 64 * 2**20
    for picture, same in zip(dream(dreamer.backend), expected, strict=True):
        assert torch.equal(picture, same)
    assert without > 2 * budget.limit_bytes and max(held) < 64 * 2**20 + max(largest)
    assert all(not entry.users for entry in budget.entries())


def test_a_step_makes_its_evicted_network_again(budget: Budget) -> None:
    step = Eager(MODEL, "cpu", "fp32").compile(spec())
    picture = engine.natural_noise(torch.Size((1, 3, 96, 112)), CPU)
    first = step(picture, 0.02)
    assert len(loaded(budget)) == 1 and budget.held_bytes > 0
    budget.evict(all_unused=True)
    assert budget.held_bytes == 0
    assert torch.equal(step(picture, 0.02), first) and budget.held_bytes > 0


# --- engines ----------------------------------------------------------------------------------------------------------

@pytest.mark.soak
@OPENVINO
def test_idle_engines_are_evicted(kept: Path, budget: Budget,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """And are loaded again when they are wanted, or built when the cache was emptied meanwhile."""
    monkeypatch.setattr(memory, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(memory, "CHECK_SECONDS", 1e9)  # during a build, the network would be evicted again and again
    backend, built = OpenVino(MODEL, "cpu", "fp32"), counted(monkeypatch)
    steps = [backend.compile(spec(width=width)) for width in (112, 128)]
    pictures = [engine.natural_noise(torch.Size((1, 3, 96, width)), CPU) for width in (112, 128)]

    def step_each() -> list[torch.Tensor]:
        found = []
        for step, picture in zip(steps, pictures, strict=True):
            found.append(step(picture, 0.02))
            time.sleep(0.2)
        return found

    first = step_each()
    assert len(built) == 2
    monkeypatch.setattr(memory, "CHECK_SECONDS", 0.0)
    for before, after in zip(first, step_each(), strict=True):
        assert torch.equal(before, after)
    assert len(loaded(budget)) == 1 and len(built) == 2
    budget.evict(all_unused=True)
    for path in kept.iterdir():
        path.unlink()
    monkeypatch.setattr(memory, "CHECK_SECONDS", 1e9)
    for before, after in zip(first, step_each(), strict=True):
        assert torch.equal(before, after)
    assert len(list(kept.glob("*.engine"))) == 2


@OPENVINO
def test_engines_beyond_the_limit_are_evicted_and_loaded_again(kept: Path, budget: Budget,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    backend, built = OpenVino(MODEL, "cpu", "fp32"), counted(monkeypatch)
    steps = {width: backend.compile(spec(width=width)) for width in (112, 128)}
    pictures = {width: engine.natural_noise(torch.Size((1, 3, 96, width)), CPU) for width in steps}
    expected = {width: step(pictures[width], 0.02) for width, step in steps.items()}
    budget.evict(all_unused=True)
    steps[112](pictures[112], 0.02)
    budget.limit_bytes = 1.5 * budget.held_bytes
    for width in (128, 112, 128):
        assert torch.equal(steps[width](pictures[width], 0.02), expected[width])
        assert len(loaded(budget)) == 1 and 0 < budget.held_bytes <= budget.limit_bytes
    assert len(built) == 2


@pytest.mark.soak
@OPENVINO
def test_auto_falls_back_when_an_evicted_engine_cannot_be_built(kept: Path, budget: Budget,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(auto, "BUILD_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(trial, "MAX_TIME_RATIO", 100.0)
    monkeypatch.setattr(build_process, "NICENESS", 0)
    backend, picture = Auto(MODEL, "cpu", "fp32"), engine.natural_noise(torch.Size((1, 3, 96, 112)), CPU)
    step = backend.compile(spec())
    expected = step(picture, 0.02)
    wait_for(backend, step, lambda: backend.name == "openvino")
    budget.evict(all_unused=True)
    for path in kept.iterdir():
        path.unlink()
    monkeypatch.setattr(build_process, "build_in_subprocess", build)
    assert torch.equal(step(picture, 0.02), expected)
    assert backend.name == "eager" and "openvino failed (out of luck)" in backend.reason
    assert torch.equal(step(picture, 0.02), expected)


MEASURED = """
import json, sys
from streamdream.system import memory, process_tuning; process_tuning.tune_process()
import torch
from streamdream import backends, models
from streamdream.ascent import objectives
from streamdream.ascent.gradient_shape import GradientShape
from streamdream.backends import StepSpec, engine
from streamdream.settings import DreamSettings
from streamdream.system.stats import rss_mb

name, layers = sys.argv[1:]
cpu, model = torch.device("cpu"), models.get("inception_v3")
backend, budget, steps = backends.create(name, model, "cpu", "fp32"), memory.budget_of(cpu), []
def dream(layers, height, width):
    shape = GradientShape(1.5, 0.4)
    spec = StepSpec(objectives.from_settings(DreamSettings(layers=layers), model), height, width, shape)
    backend.compile(spec)(engine.natural_noise(torch.Size((1, 3, height, width)), cpu), 0.02)
    steps.append(backend.compile(spec))  # held, as a dreamer does
    steps[-1](engine.natural_noise(torch.Size((1, 3, height, width)), cpu), 0.02)
def settle():
    process_tuning.trim_heap()
    return rss_mb()
dream("conv2d_1", 64, 96)  # what is loaded once
budget.evict(all_unused=True)
before = settle()
for height, width in ((96, 128), (160, 208)):
    dream(layers, height, width)
full, held = settle(), budget.held_bytes / 1e6
budget._released_seconds = 0.0
budget.evict(all_unused=True)
print(json.dumps({"held": held, "grown": full - before, "left": rss_mb() - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize("name", ["eager", pytest.param("openvino", marks=[OPENVINO, pytest.mark.soak])])
def test_the_budget_counts_the_bytes_that_eviction_frees(name: str, kept: Path) -> None:
    """Resident memory of a process of its own, against what the budget counts: estimates are not far off."""
    for _ in range(1 + (name == "openvino")):  # once to build engines, which leaves much else in memory
        done = subprocess.run([sys.executable, "-c", MEASURED, name, "mixed5"], capture_output=True, text=True,
                              check=True, env={**os.environ, "STREAMDREAM_CACHE": str(kept.parent)})
        found = json.loads(done.stdout.splitlines()[-1])
    assert 0.6 < found["held"] / found["grown"] < 1.6, found
    assert found["left"] < 0.35 * found["grown"], found


# --- what operators see -----------------------------------------------------------------------------------------------

def test_metrics_report_the_current_memory(budget: Budget) -> None:
    pytest.importorskip("prometheus_client")
    from streamdream_web.core.state import AppState
    from streamdream_web.live.waiting_room import WaitingRoom
    from streamdream_web.server.metrics import Collector

    entry = CacheEntry(budget, len)
    with entry.use(lambda: bytes(3_000_000)):
        app_state = AppState(WebSettings(), DreamSettings(), StreamSettings())
        found = {
            row.name: row.samples[0].value
            for row in Collector(app_state, WaitingRoom(app_state)).collect()
            if row.samples
        }
        app_state.close()
    assert found["streamdream_prepared_megabytes"] == 3
    assert 50 < found["streamdream_rss_megabytes"] <= found["streamdream_peak_rss_megabytes"]
