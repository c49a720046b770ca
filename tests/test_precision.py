"""``--precision auto``: the same choice in every run, whatever else the machine does meanwhile."""
from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from streamdream import backends, models
from streamdream.backends import precision
from streamdream.backends.precision import choose_precision, has_bf16

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16 instructions")


@pytest.fixture()
def busy() -> Iterator[None]:
    """Two processes that spin."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for process in spinning:
        process.kill()
        process.wait()


@pytest.fixture()
def unknown_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its instructions leave a doubt, as oneDNN was told to leave some out."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    choose_precision.cache_clear()
    yield
    choose_precision.cache_clear()


def choose() -> tuple[str, str]:
    """As a new process does."""
    choose_precision.cache_clear()
    return choose_precision(CPU)


def test_a_busy_machine_always_chooses_the_same_precision(kept: Path, busy: None) -> None:
    assert len({choose() for _ in range(100)}) == 1


@needs_bf16
def test_a_busy_machine_always_measures_the_same_precision(kept: Path, busy: None, unknown_processor: None) -> None:
    """Each without the result that the one before it stored."""
    chosen = []
    for _ in range(10):
        shutil.rmtree(kept.parent, ignore_errors=True)
        chosen.append(choose()[0])
    assert set(chosen) == {"bf16"}


def measurements(monkeypatch: pytest.MonkeyPatch, *found: tuple[float, bool]) -> list[float]:
    """Replaces the next measurements by these ratios, certain or not; the list loses those that were asked for."""
    left, waiting = [ratio for ratio, _ in found], list(found)

    def measure(device: torch.device, precisions: tuple[str, ...]) -> tuple[dict[str, float], bool]:
        ratio, repeated = waiting.pop(0)
        left.pop(0)
        return {precisions[0]: ratio, precisions[1]: 1.0}, repeated

    monkeypatch.setattr(precision, "_time_convolutions", measure)
    return left


@needs_bf16
def test_a_clear_measurement_is_not_repeated(kept: Path, unknown_processor: None, monkeypatch: pytest.MonkeyPatch
                                             ) -> None:
    left = measurements(monkeypatch, (0.5, True), (3.0, True))
    assert choose() == choose() == ("fp32", "bf16 measured 0.5x the speed of fp32 here") and left == [3.0]


@needs_bf16
@pytest.mark.parametrize("doubtful", [(1.05, True), (0.5, False)])
def test_a_doubtful_measurement_is_repeated_by_the_next_run(kept: Path, unknown_processor: None,
                                                            doubtful: tuple[float, bool],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not begin a run in fp32, and does not change the choice of an earlier run."""
    left = measurements(monkeypatch, doubtful, doubtful, (0.5, True))
    assert [choose()[0] for _ in range(4)] == ["bf16", "bf16", "fp32", "fp32"] and left == []


@needs_bf16
def test_doubtful_measurements_are_repeated_a_few_times_only(kept: Path, unknown_processor: None,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    left = measurements(monkeypatch, *[(1.1, True)] * 20)
    assert {choose()[0] for _ in range(20)} == {"bf16"} and len(left) == 20 - precision.MAX_MEASUREMENTS


@needs_bf16
def test_another_version_of_pytorch_is_measured_anew(kept: Path, unknown_processor: None,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    left = measurements(monkeypatch, (0.5, True), (3.0, True))
    assert choose()[0] == "fp32"
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert choose()[0] == "bf16" and left == []


@needs_bf16
@pytest.mark.parametrize("damage", [b"", b"[1]", b'{"made_of": {}, "figures": {}}', b"\xff\xfe"])
def test_a_damaged_measurement_is_made_anew(kept: Path, unknown_processor: None, damage: bytes,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    left = measurements(monkeypatch, (0.5, True), (3.0, True))
    choose()
    stored, = (kept.parent / "measurements").glob("*.json")
    stored.write_bytes(damage)
    assert choose()[0] == "bf16" and left == []


@needs_bf16
def test_a_cache_folder_that_cannot_be_written_is_no_error(tmp_path: Path, unknown_processor: None,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "file"))
    assert choose()[0] == "bf16"


def test_the_report_has_the_reason(kept: Path) -> None:
    backend = backends.create("eager", models.get("inception_v3"), "cpu", "auto")
    assert (backend.precision, backend.reason) == choose() and backend.reason != "asked for"
