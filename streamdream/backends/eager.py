"""The reference backend: plain PyTorch and autograd, weights prepared once."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.ascent import step as maths
from streamdream.backends import choose_device
from streamdream.backends.precision import DTYPES, choose_precision
from streamdream.errors import FieldTooSmall
from streamdream.models.network import Network
from streamdream.system.memory import Budget, CacheEntry, budget_of
from streamdream.system.tensor_cache import note_use

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Features, Pictures
    from streamdream.backends import AllTargets, Step, StepSpec
    from streamdream.models import Model

MAX_ENTRIES = 256
"""Sets of taps with a cache entry for a prepared network; ``memory.Budget`` limits their bytes."""


class Eager:
    """Runs ``step.ascend`` operation by operation."""

    name = "eager"

    @staticmethod
    def available() -> tuple[bool, str]:
        return True, "PyTorch is always here"

    def __init__(self, model: Model, device: str | torch.device, precision: str) -> None:
        """``device`` is as in ``--device``. Raises SettingsError if there is no such device."""
        self.model = model
        self.device = choose_device(device)
        if self.device.type == "cuda":
            _disable_tf32()
        self.precision, self.reason = choose_precision(self.device) if precision == "auto" else (precision, "asked for")
        budget = self.budget
        self._entries: Callable[[tuple[str, ...]], CacheEntry[Network]] = lru_cache(maxsize=MAX_ENTRIES)(
            lambda taps: CacheEntry(budget, attrgetter("nbytes")))

    @property
    def budget(self) -> Budget:
        """The memory budget of the device, shared by all that is prepared on it."""
        return budget_of(self.device)

    def compile(self, spec: StepSpec) -> Step:
        step = self.step_function(spec)
        if self.device.type != "cuda":
            return step
        from streamdream.backends.cuda_graphs import capture_step

        replayed, pinned = capture_step(step, self.device, spec), self._network(spec.objective)

        def pinned_step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            with pinned():  # a capture needs the prepared network, which must not be evicted before the capture
                return replayed(picture, step_size, targets)

        return pinned_step

    def step_function(self, spec: StepSpec) -> Callable[..., Tensor]:
        """Return the step as plain operations, which may be part of a larger function; ``compile_function`` runs that.
        """
        self.check_size(spec)
        gradients, terms = self.term_gradients(spec.objective), spec.objective.terms

        def step(picture: Tensor, step_size: float | Tensor, targets: AllTargets = ()) -> Tensor:
            picture = picture.to(self.device)
            return maths.ascend(picture, gradients(picture, targets), terms, step_size, spec.shape)

        return step

    def compile_function(self, work: Callable[..., Any], objectives: Sequence[Objective] = ()) -> Callable[..., Any]:
        """Return ``work``, a function of tensors without branches, in the way this backend runs one: as a CUDA graph on
        a GPU, else as it is. ``objectives`` are those of the steps in it.
        """
        if self.device.type != "cuda":
            return torch.no_grad()(work)
        from streamdream.backends.cuda_graphs import capture_function

        replayed, pins = capture_function(work, self.device), [self._network(objective) for objective in objectives]

        def pinned_work(*inputs: Tensor) -> Any:
            with ExitStack() as stack:
                for pin in pins:
                    stack.enter_context(pin())
                return replayed(*inputs)

        return pinned_work

    def check_size(self, spec: StepSpec) -> None:
        """Raise FieldTooSmall if the picture is too small for a tap."""
        taps = self.model.taps()
        min_size = max((taps[name].min_size for name in spec.objective.taps), default=1)
        if min(spec.height, spec.width) < min_size:
            names = ", ".join(spec.objective.taps)
            raise FieldTooSmall(f"a {spec.width}x{spec.height} picture is too small for {names}: it needs "
                                f"{min_size} pixels; use fewer octaves, a larger --field-height or a lower layer")

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        prepared, to_input = self._network(objective), self.model.to_input

        def features_of(picture: Tensor) -> Features:
            with prepared() as network:
                return network(to_input(picture.to(self.device)))

        return tuple(tuple(target.to(self.device) for target in term.targets(features_of, pictures))
                     for term, _ in objective.terms)

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        """Return a function for the unsmoothed gradient of each term at a picture [1, 3, H, W] of any size."""
        prepared, to_input = self._network(objective), self.model.to_input
        terms = [term for term, _ in objective.terms]

        def gradients(picture: Tensor, targets: AllTargets = ()) -> list[Tensor]:
            of_terms = targets or ((),) * len(terms)
            with prepared() as network:
                note_use(network)
                at_input = network.gradients(to_input(picture.detach()), lambda features: [
                    term.value(features, of_term) for term, of_term in zip(terms, of_terms, strict=True)])
            return [to_input.gradient(gradient) for gradient in at_input]

        return gradients

    def _network(self, objective: Objective) -> Callable[[], AbstractContextManager[Network]]:
        """Return a function for a context with the prepared network, which is not evicted within it."""
        taps = tuple(sorted(objective.taps))
        return partial(self._entries(taps).use, partial(self._prepare, taps))

    def _prepare(self, taps: tuple[str, ...]) -> Network:
        return Network(self.model.nodes(), self.model.load_weights(), taps, self.device, DTYPES[self.precision])


def _disable_tf32() -> None:
    """Use full float32 in cuDNN, instead of TF32 with its mantissa of 10 bits."""
    cudnn: Any = torch.backends.cudnn  # its type stub is outdated
    cudnn.conv.fp32_precision = "ieee"
