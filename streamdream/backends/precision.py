"""Choose the precision of ``--precision auto`` for a device.

The instructions of the device decide, or in doubt a measurement. That is stored for this machine and these versions, so
that later runs, even on a busy machine, choose the same precision and render the same dream.
"""
from __future__ import annotations

import logging
import os
import time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import streamdream
from streamdream.backends import engine_cache, synchronize
from streamdream.system.machine import processor_name
from streamdream.system.torch_threads import use_threads

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TIMED_SIZES, TIMED_SIZE_ELSEWHERE = {"cpu": (30, 40)}, (480, 640)
"""Size of the timed convolution by type of device. Small on a CPU, so that most runs have no context switch even with
other processes running; large on a GPU, where a small one takes less time than the launch of its kernel.
"""
MIN_ROUNDS, MAX_ROUNDS, MAX_SECONDS = 12, 400, 1.0
REPEATS, REPEAT_TOLERANCE = 3, 1.1
"""A time is certain if the ``REPEATS`` shortest ones differ by less than this factor."""
MIN_SPEEDUP, CLOSE = 1.1, 1.1
"""Half precision must be ``MIN_SPEEDUP`` times as fast; within a factor of ``CLOSE`` the result is doubtful."""
MAX_MEASUREMENTS = 5
"""A doubtful measurement is repeated by later runs, up to this number."""
ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that forbid oneDNN some instructions of the processor."""
log = logging.getLogger(__name__)


@lru_cache(maxsize=8)
def choose_precision(device: torch.device) -> tuple[str, str]:
    """Return (precision, reason): half precision if the device has fast instructions for it, else ``fp32``.

    Half precision is fp16 on a GPU, as its gradients are closer to fp32 than those of bf16 (cosine 0.973, not 0.84, in
    one random network). On a processor it is bf16, as few have instructions for fp16.
    """
    half = "fp16" if device.type in ("cuda", "xpu", "mps") else "bf16"
    if half == "bf16" and not (device.type == "cpu" and has_bf16()):
        return "fp32", "no bf16 instructions here"
    return (half, reason) if (reason := _instructions(device)) else _choose_by_measurement(device, half)


def has_bf16() -> bool:
    """Return whether the processor has bf16 instructions; emulated bf16 is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _instructions(device: torch.device) -> str:
    """Return why half precision is certainly faster; empty if that must be measured."""
    if device.type == "cuda" and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(device)
        return f"the GPU has matrix units for fp16 (capability {major}.{minor})" if major >= 7 else ""
    limited = any(name in os.environ for name in ISA_LIMITS)
    permitted = getattr(torch.cpu, "_init_amx", lambda: True)  # the operating system may deny AMX to a process
    if device.type == "cpu" and not limited and torch.cpu.get_capabilities().get("amx_bf16") and permitted():
        return "the processor has matrix units for bf16 (AMX)"
    return ""


def _choose_by_measurement(device: torch.device, half: str) -> tuple[str, str]:
    """Choose by the stored measurement, or measure if there is none or it was doubtful.

    A doubtful measurement does not change an earlier choice. If the first one is doubtful, choose half precision.
    """
    key = _describe(device, half)
    stored = _load(key, half)
    if stored and (stored["certain"] or stored["measurements"] >= MAX_MEASUREMENTS):
        return stored["precision"], stored["reason"]
    seconds, repeated = _time_convolutions(device, ("fp32", half))
    ratio = seconds["fp32"] / seconds[half]
    certain = repeated and not MIN_SPEEDUP / CLOSE < ratio < MIN_SPEEDUP * CLOSE
    precision = stored["precision"] if stored else half
    if certain:
        precision = half if ratio > MIN_SPEEDUP else "fp32"
    reason = f"{half} measured {ratio:.1f}x the speed of fp32 here{'' if certain else ', which is not certain'}"
    measurements = stored["measurements"] + 1 if stored else 1
    engine_cache.store_measurement(key, {"precision": precision, "reason": reason, "certain": certain,
                                      "measurements": measurements})
    return precision, reason


def _describe(device: torch.device, half: str) -> dict[str, str]:
    """Return all that the choice depends on, as a key."""
    limits = {limit: os.environ[limit] for limit in ISA_LIMITS if limit in os.environ}
    return {"measurement": f"{half} or fp32", "device": device_name(device), "torch": torch.__version__,
            "streamdream": streamdream.__version__, **limits}


def device_name(device: torch.device) -> str:
    """Return the hardware of a device, for the key of a measurement."""
    if device.type == "cpu":
        return processor_name()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} of {processor_name()}"


def _load(key: dict[str, str], half: str) -> dict[str, Any] | None:
    """Load the stored choice; None if it is missing or damaged."""
    stored = engine_cache.load_measurement(key)
    kinds = {"precision": str, "reason": str, "certain": bool, "measurements": int}
    if stored is None or not all(isinstance(stored.get(name), kind) for name, kind in kinds.items()):
        return None
    return stored if stored["precision"] in (half, "fp32") else None


def _time_convolutions(device: torch.device, precisions: tuple[str, ...]) -> tuple[dict[str, float], bool]:
    """Return the seconds of a 3x3 convolution of 64 channels by precision, and whether they are certain.

    Measure the precisions alternately and take the minimum, as other processes only add time. Use one thread: several
    would wait for the one that another process interrupts.
    """
    def make(name: str, *size: int) -> Tensor:
        return torch.ones(size, device=device, dtype=DTYPES[name]).to(memory_format=torch.channels_last)

    def repeated() -> bool:
        return all(sorted(times)[REPEATS - 1] < REPEAT_TOLERANCE * min(times) for times in seconds.values())

    size = TIMED_SIZES.get(device.type, TIMED_SIZE_ELSEWHERE)
    operands = {name: (make(name, 1, 64, *size), make(name, 96, 64, 3, 3)) for name in precisions}
    seconds: dict[str, list[float]] = {name: [] for name in precisions}
    deadline = time.perf_counter() + MAX_SECONDS
    with torch.no_grad(), use_threads(1):
        for number in range(MAX_ROUNDS):
            if number >= MIN_ROUNDS and (repeated() or time.perf_counter() > deadline):
                break
            for name, (features, kernel) in operands.items():
                synchronize(device)
                start = time.perf_counter()
                torch.nn.functional.conv2d(features, kernel, padding=1)
                synchronize(device)
                seconds[name].append(time.perf_counter() - start)
    return {name: min(times) for name, times in seconds.items()}, repeated()
