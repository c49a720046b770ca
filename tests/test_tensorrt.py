"""Every step, and the whole of a frame, becomes one TensorRT engine: converted and built for real, which needs
Torch-TensorRT-RTX but no GPU.
"""
from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
STEP = "bvlc_googlenet;inception_4c/output:1,conv2/norm2:0.5;fp16;dream"
"""Of the network with the most kinds of operations."""
FRAME = "inception_v3;mixed3;fp16;frame network"
"""Its engine takes most of a minute."""
LONG = ["inception_v3;mixed3;fp32;dream", "inception_v3;mixed5;fp16;dream", "inception_v3;mixed0;fp16;guide",
        "bvlc_googlenet;inception_3a/output:1,conv2/norm2:0.5;fp16;guide",
        "bvlc_googlenet;inception_3b/3x3_reduce;fp16;style", "cars_googlenet;inception_4a_output;fp32;dream",
        "inception5h;mixed4b;fp16;dream", "torchvision_googlenet;inception4a;fp32;dream",
        "torchvision_inception_v3;Mixed_6b;fp16;dream", "keras_inception_v3;mixed8;fp16;dream",
        "inception_v3;mixed3;fp16;frame",
        *(f"{network};{precision};frame" for precision in ("fp16", "fp32") for network in (
            "inception_v3;mixed5", "bvlc_googlenet;inception_4c/output", "cars_googlenet;inception_4a_output",
            "inception5h;mixed4b", "torchvision_googlenet;inception4a", "torchvision_inception_v3;Mixed_6b",
            "keras_inception_v3;mixed7"))]
"""Every architecture."""
pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch_tensorrt") is None,
                                reason="torch-tensorrt-rtx is not installed; make test-newest brings it")


def build(*cases: str) -> dict[str, dict[str, Any]]:
    """Return what came of each case."""
    command = [sys.executable, str(HERE / "build_without_gpu.py"), *cases]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
                            check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return {row["case"]: row for row in rows}


def check_conversion(row: dict[str, Any]) -> None:
    assert row["unknown"] == [] and row["convertible"] == row["total"] > 100 and row["errors"] == [], row


def check_one_engine(row: dict[str, Any]) -> None:
    check_conversion(row)
    assert row["bytes"] > 1_000_000, row


@pytest.fixture(scope="module")
def built() -> dict[str, dict[str, Any]]:
    return build(STEP, FRAME, "unknown")


def test_the_whole_step_is_one_engine(built: dict[str, dict[str, Any]]) -> None:
    check_one_engine(built[STEP])


def test_all_operations_of_a_frame_are_converted(built: dict[str, dict[str, Any]]) -> None:
    check_conversion(built[FRAME])


@pytest.mark.soak
@pytest.mark.parametrize("case", LONG)
def test_every_network_becomes_one_engine(case: str) -> None:
    check_one_engine(build(case)[case])


def test_an_operation_that_none_converts_is_seen(built: dict[str, dict[str, Any]]) -> None:
    assert built["unknown"]["unknown"] == ["aten.i0.default"] and built["unknown"]["bytes"] == 0
