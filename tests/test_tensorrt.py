"""Every step becomes one TensorRT engine: converted and built for real, which needs Torch-TensorRT-RTX but no GPU."""
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
CASES = [("inception_v3", "mixed3", "fp32"), ("inception_v3", "mixed5", "fp16"),
         ("bvlc_googlenet", "inception_4c/output:1,conv2/norm2:0.5", "fp16"),
         ("bvlc_googlenet", "inception_4d/3x3_reduce", "fp32"),
         ("cars_googlenet", "inception_4a_output", "fp16"), ("inception5h", "mixed4b", "fp16"),
         ("torchvision_googlenet", "inception4a", "fp16"), ("torchvision_inception_v3", "Mixed_6b", "fp16"),
         ("keras_inception_v3", "mixed8", "fp16")]
MIXED = {"inception_v3", "bvlc_googlenet"}
"""Networks for which guide and style are built, too."""
needs_package = pytest.mark.skipif(importlib.util.find_spec("torch_tensorrt") is None,
                                   reason="torch-tensorrt-rtx is not installed; make test-tensorrt brings it")


def built(*arguments: str) -> list[dict[str, Any]]:
    result = subprocess.run([sys.executable, HERE / "build_without_gpu.py", *arguments], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(HERE.parent)}, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


@needs_package
@pytest.mark.parametrize(("model", "layers", "precision"), CASES)
def test_the_whole_step_is_one_engine(model: str, layers: str, precision: str) -> None:
    kinds = ["dream", "guide", "style"] if model in MIXED else ["dream"]
    found = built(model, layers, precision, *kinds)
    assert [row["kind"] for row in found] == kinds
    for row in found:
        assert row["unknown"] == [] and row["convertible"] == row["total"], row
        assert row["bytes"] > 1_000_000 and row["errors"] == [], row


@needs_package
def test_an_operation_that_none_converts_is_seen() -> None:
    [row] = built("inception_v3", "mixed3", "fp32", "unknown")
    assert row["unknown"] == ["aten.i0.default"] and row["bytes"] == 0
