"""What the benchmarks of whole frames count and compare."""
from __future__ import annotations

import pytest
import torch
from streamdream_bench import Options, roofline, run_bench
from streamdream_bench.roofline import GPUS, Operation, record

from streamdream.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_operations_are_counted_with_their_arithmetic_and_their_memory() -> None:
    a, b = torch.ones(8, 16), torch.ones(16, 4)

    def work() -> None:
        (a.view(4, 2, 16).view(8, 16) @ b).relu()
        torch.empty(100)

    product, relu = record(work)
    assert (product.name, product.flop, product.nbytes) == ("aten.mm.default", 2 * 8 * 16 * 4, 4 * (128 + 64 + 32))
    assert (relu.flop, relu.nbytes, relu.half) == (0, 4 * (32 + 32), False)


def test_an_operation_takes_what_binds_it() -> None:
    gpu = GPUS["H200"]
    assert Operation("product", 10**12, 1, half=True).seconds(gpu) == 1e12 / gpu.fp16
    assert Operation("product", 10**12, 1, half=False).seconds(gpu) == 1e12 / gpu.fp32
    assert Operation("sum", 0, 10**9, half=True).seconds(gpu) == 1e9 / gpu.bandwidth


def test_a_wait_for_the_host_is_counted() -> None:
    row = roofline.summarize(record(lambda: torch.ones(3).sum().item()))
    assert row["host_waits"] == 1


def test_a_frame_on_a_device_waits_for_nothing_and_is_mostly_the_step() -> None:
    report = run_bench("roofline", Options(sizes="160x120:96", layers="conv2d_2"))
    match, advance, frame = report.rows
    assert {row["host_waits"] for row in report.rows} == {0}
    assert (frame["frame"], frame["field"], frame["bytes_down"]) == ("160x120", "128x96", 160 * 120 * 3)
    assert frame["operations"] >= match["operations"] + advance["operations"] and advance["gflop"] > 0
    assert frame["H200_with_kernels_ms"] >= round(frame["operations"] * 2e-3, 3) > frame["H200_ms"]


def test_both_paths_of_a_frame_are_compared() -> None:
    report = run_bench("frame-equality", Options(
        footage="animation", height=96, width=128, field_height=0, frames=4, backend="eager", device="cpu",
        precision="fp32", layers="conv2d_2"))
    processor, device = report.rows
    assert (processor["path"], device["path"]) == ("processor", "device")
    assert "gain_change" not in processor and abs(device["gain_change"]) < 0.03
    assert device["first_frame_levels"] <= 2 and abs(device["flicker_change"]) < 0.1


@pytest.mark.parametrize("text", ["320", "320x", "320x240:", "0x240", "320x240 640x480"])
def test_sizes_that_are_not_understood_are_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="--sizes"):
        run_bench("roofline", Options(sizes=text))
