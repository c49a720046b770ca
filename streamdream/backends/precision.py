"""Which precision ``--precision auto`` means on a device.

The instructions of the device decide. Where they leave a doubt, a measurement decides; it is stored for this machine
and these versions, so that the next run, on a busy machine too, chooses the same precision and renders the same dream.
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
"""By kind of device. Short on a CPU, so that most convolutions run without a context switch even beside other
processes; a GPU needs a long one, as it is done with a short one before the next kernel is launched.
"""
MIN_ROUNDS, MAX_ROUNDS, MAX_SECONDS = 12, 400, 1.0
REPEATS, REPEAT_TOLERANCE = 3, 1.1
"""A time is certain when the ``REPEATS`` shortest ones differ by less than this factor."""
MIN_SPEEDUP, CLOSE = 1.1, 1.1
"""Half precision is chosen when it is ``MIN_SPEEDUP`` times as fast; within a factor of ``CLOSE`` it is doubtful."""
MAX_MEASUREMENTS = 5
"""A doubtful measurement is repeated by the next run, until there were so many."""
ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that forbid oneDNN some instructions of the processor."""
log = logging.getLogger(__name__)


@lru_cache(maxsize=8)
def choose_precision(device: torch.device) -> tuple[str, str]:
    """(precision, reason): half precision where the device has fast instructions for it, else ``fp32``.

    On a GPU that is fp16, whose gradients turn less than those of bf16 (cosine 0.973 against 0.84 at one random
    network); a processor with bf16 instructions seldom has those for fp16.
    """
    half = "fp16" if device.type in ("cuda", "xpu", "mps") else "bf16"
    if half == "bf16" and not (device.type == "cpu" and has_bf16()):
        return "fp32", "no bf16 instructions here"
    return (half, reason) if (reason := _instructions(device)) else _choose_by_measurement(device, half)


def has_bf16() -> bool:
    """Whether the processor has the instructions; elsewhere bf16 is emulated, slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _instructions(device: torch.device) -> str:
    """Why half precision is faster for certain; empty where that has to be measured."""
    if device.type == "cuda" and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(device)
        return f"the GPU has matrix units for fp16 (capability {major}.{minor})" if major >= 7 else ""
    limited = any(name in os.environ for name in ISA_LIMITS)
    permitted = getattr(torch.cpu, "_init_amx", lambda: True)  # by the operating system, to each process
    if device.type == "cpu" and not limited and torch.cpu.get_capabilities().get("amx_bf16") and permitted():
        return "the processor has matrix units for bf16 (AMX)"
    return ""


def _choose_by_measurement(device: torch.device, half: str) -> tuple[str, str]:
    """By the stored measurement, or by a new one where there is none or it was doubtful.

    A doubtful measurement changes no earlier choice; the first one chooses half precision, which has instructions.
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
    """Everything that the choice depends on."""
    if device.type == "cpu":
        name = processor_name()
    else:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} of {processor_name()}"
    limits = {limit: os.environ[limit] for limit in ISA_LIMITS if limit in os.environ}
    return {"measurement": f"{half} or fp32", "device": name, "torch": torch.__version__,
            "streamdream": streamdream.__version__, **limits}


def _load(key: dict[str, str], half: str) -> dict[str, Any] | None:
    """The stored choice, unless there is none or it is damaged."""
    stored = engine_cache.load_measurement(key)
    kinds = {"precision": str, "reason": str, "certain": bool, "measurements": int}
    if stored is None or not all(isinstance(stored.get(name), kind) for name, kind in kinds.items()):
        return None
    return stored if stored["precision"] in (half, "fp32") else None


def _time_convolutions(device: torch.device, precisions: tuple[str, ...]) -> tuple[dict[str, float], bool]:
    """Seconds of a 3x3 convolution of 64 channels, and whether they are certain.

    The precisions take turns, and the shortest time of each counts, as other processes only add to it. One thread, as
    several wait for whichever of them another process has interrupted.
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
                begin = time.perf_counter()
                torch.nn.functional.conv2d(features, kernel, padding=1)
                synchronize(device)
                seconds[name].append(time.perf_counter() - begin)
    return {name: min(times) for name, times in seconds.items()}, repeated()
