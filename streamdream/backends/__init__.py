"""The registry of backends, which execute steps. ``auto.py`` chooses one.

A backend turns a ``StepSpec`` into a ``Step``, which computes the next picture from a picture. To add one, write a file
and a row in BACKENDS.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from streamdream.errors import MissingPackage, SettingsError, UnknownName

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from streamdream.ascent.gradient_shape import GradientShape
    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Pictures, Targets
    from streamdream.models import Model

    AllTargets = tuple[Targets, ...]
    """The targets of each term of an objective, in order; empty if no term has any."""

    class Step(Protocol):
        def __call__(self, picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            """Update pictures [N, 3, H, W], RGB float32 in [-1, 1], by one step each, independently of one another."""
            ...

BACKENDS = {
    "auto": "streamdream.backends.auto:Auto",
    "eager": "streamdream.backends.eager:Eager",
    "openvino": "streamdream.backends.openvino:OpenVino",
    "compiled": "streamdream.backends.compiled:Compiled",
    "tensorrt": "streamdream.backends.tensorrt:TensorRt",
    "onnx": "streamdream.backends.onnx_runtime:OnnxRuntime",
}

PRECISIONS = {
    "auto": "fp16 on a GPU and bf16 on a processor, where it has instructions that make it faster; else fp32",
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
}


@dataclass(frozen=True)
class StepSpec:
    """Everything a step is fixed to; equal specs share one compiled step."""

    objective: Objective
    height: int
    width: int
    shape: GradientShape


class Backend(Protocol):
    """Executes steps of one model on one device in one precision."""

    precision: str
    device: torch.device
    model: Model

    @property
    def name(self) -> str:
        """The name of the backend in use."""
        ...

    @property
    def reason(self) -> str:
        """Why ``auto`` chose this backend and precision."""
        ...

    def compile(self, spec: StepSpec) -> Step:
        """Make a step for one picture size and objective. Raises FieldTooSmall if that size is too small for a tap."""
        ...

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        """Compute the targets of an objective from other pictures, [1, 3, H, W] RGB in [-1, 1], for all its steps."""
        ...

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        """Return a function for the unsmoothed gradient of each term at a picture [1, 3, H, W] of any size."""
        ...


def available(name: str) -> tuple[bool, str]:
    """Return whether a backend can run here, and on what; or why not, and what to install."""
    runs, reason = _load(name).available()
    return runs, reason


def runs_functions(name: str) -> bool:
    """Whether a backend runs whole functions of tensors, not steps only."""
    return hasattr(_load(name), "compile_function")


def create(name: str, model: Model, device: str = "auto", precision: str = "auto") -> Backend:
    """Create a backend by name. Raises UnknownName, SettingsError, or MissingPackage with the install command."""
    if name not in BACKENDS:
        raise UnknownName("backend", name, BACKENDS)
    runs, reason = available(name)
    if not runs:
        missing = MissingPackage(f"backend {name} cannot run here: {reason}")
        missing.exit_code = 2  # requested by name: a mistake of the user
        raise missing
    backend: Backend = _load(name)(model, device, precision)
    return backend


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device of that name; ``auto`` is an accelerator if there is one, else the CPU.

    Raises SettingsError with the devices of this machine.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:  # its own message lists all device types of PyTorch
        raise SettingsError(f"--device {name} cannot be used: there is no such device; {_list_devices()}") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"--device {name} cannot be used: {reason}; {_list_devices()}") from None
    return device


def _list_devices() -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if accelerator else 0
    numbered = [f"{accelerator.type}:{number}" for number in range(count)] if accelerator and count > 1 else []
    return f"this machine has {', '.join(['auto', 'cpu', *([accelerator.type] if accelerator else []), *numbered])}"


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished; work on a CPU is finished when a call returns."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _load(name: str) -> Any:
    """Import the class of a backend."""
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def flatten_targets(targets: AllTargets) -> list[Tensor]:
    """Return all targets in one list, as the arguments of an engine."""
    return [target for of_term in targets for target in of_term]


def unflatten_targets(flat: Iterable[Tensor], counts: Sequence[int]) -> AllTargets:
    """Reverse ``flatten_targets``, by the number of targets of each term."""
    remaining = iter(flat)
    return tuple(tuple(next(remaining) for _ in range(count)) for count in counts)
