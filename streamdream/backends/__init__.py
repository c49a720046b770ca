"""What executes a step: the registry. ``auto.py`` chooses among it.

A backend turns a ``StepSpec`` into a ``Step``, which takes a picture to the next one. Adding one is a file and a row in
BACKENDS.
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

    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Pictures, Targets
    from streamdream.models import Model

    AllTargets = tuple[Targets, ...]
    """Of each term of an objective, in order; empty when no term has any."""

    class Step(Protocol):
        def __call__(self, picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            """Pictures [N, 3, H, W] RGB float32 in [-1, 1] -> the same, one step on; each as if it were alone."""
            ...

BACKENDS = {
    "auto": "streamdream.backends.auto:Auto",
    "eager": "streamdream.backends.eager:Eager",
    "openvino": "streamdream.backends.openvino:OpenVino",
    "compiled": "streamdream.backends.compiled:Compiled",
    "tensorrt": "streamdream.backends.tensorrt:TensorRt",
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
    smooth: float
    color: float


class Backend(Protocol):
    """Executes steps of one model on one device in one precision."""

    precision: str
    device: torch.device
    model: Model

    @property
    def name(self) -> str:
        """What runs now."""
        ...

    @property
    def reason(self) -> str:
        """Why ``auto`` chose so, for backend and precision."""
        ...

    def compile(self, spec: StepSpec) -> Step:
        """A step for that picture size and objective. Raises FieldTooSmall when the picture is too small for a tap."""
        ...

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        """What the objective takes from other pictures [1, 3, H, W] RGB in [-1, 1]; for every step with it."""
        ...

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        """The gradient of each term at a picture [1, 3, H, W] of any size, before it is smoothed."""
        ...


def available(name: str) -> tuple[bool, str]:
    """Whether a backend runs here, and on what, or why not and what to install."""
    runs, reason = _load(name).available()
    return runs, reason


def create(name: str, model: Model, device: str = "auto", precision: str = "auto") -> Backend:
    """The backend of that name. Raises UnknownName, SettingsError, or MissingPackage with what to install."""
    if name not in BACKENDS:
        raise UnknownName("backend", name, BACKENDS)
    runs, reason = available(name)
    if not runs:
        missing = MissingPackage(f"backend {name} cannot run here: {reason}")
        missing.exit_code = 2  # asked for by name, so it is the command line that has to change
        raise missing
    backend: Backend = _load(name)(model, device, precision)
    return backend


def choose_device(name: str | torch.device) -> torch.device:
    """The device of that name; ``auto`` takes an accelerator where there is one.

    Raises SettingsError, with the devices of this machine, for one that it does not have.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:  # its message lists all types of device that PyTorch knows
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
    """Wait until the device has done its work; a CPU is done when a call returns."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _load(name: str) -> Any:
    """The class of a backend."""
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def flatten_targets(targets: AllTargets) -> list[Tensor]:
    """All targets in a row, as an engine takes them."""
    return [target for of_term in targets for target in of_term]


def unflatten_targets(flat: Iterable[Tensor], counts: Sequence[int]) -> AllTargets:
    """Targets as a step takes them, from all in a row and the number of each term's."""
    remaining = iter(flat)
    return tuple(tuple(next(remaining) for _ in range(count)) for count in counts)
