"""Compute the gradient of pictures that exceed the memory limit tile by tile, and normalise it as a whole.

All tiles have the same size and overlap; only the middle of each is used. They are aligned to the network's strides, so
a feature sees the same pixels as without tiles. The influence of a pixel decreases with distance, so the overlap may be
smaller than the receptive field. The random shift of each step moves the tile edges, which hides them (neural-dream
blends tiles that overlap by half instead).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.ascent import step as maths
from streamdream.models.nodes import INPUT, MaxPool, Relu, Window, fp32_prefix, subgraph

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.ascent.terms import Pictures
    from streamdream.backends import AllTargets, Backend, Step, StepSpec
    from streamdream.models import Model

MAX_OVERLAP = 256
"""Maximum of pixels that are computed and dropped on each side of a tile."""
EXTRA_OVERLAP = 48
"""Pixels of overlap beyond the radius of a tap's receptive field. One step then differs from the untiled one by less
than 1 % for all taps up to mixed5 and inception_5b/output (float32; 0.01 % for mixed3); figures:
docs/notebook/2026-11-24-chaos-and-tiles.md."""
BYTES_PER_VALUE = {"fp32": 4, "bf16": 2, "fp16": 2}
BASE_BYTES_PER_PIXEL = 250
"""Bytes per pixel for the picture and its gradient during smoothing and addition."""
BACKWARD_MEMORY_FACTOR = 1.3
"""Memory of the backward pass, relative to the values saved in the forward pass. Measured memory is 0.6 to 1.1 of the
estimate."""


class Tiled:
    """Passes pictures to another backend, as tiles if a step on the whole picture would need more than ``budget_mb``.

    Statistics of the whole picture are computed per tile: the correlations of a style, and the relative weight of
    several taps, which changes by about 2 % at the edges of a tile.
    """

    def __init__(self, backend: Backend, budget_mb: float) -> None:
        self._backend: Any = backend
        self._budget_bytes = budget_mb * 1e6
        self.model, self.device = backend.model, backend.device
        self.precision = backend.precision

    @property
    def name(self) -> str:
        return str(self._backend.name)

    @property
    def reason(self) -> str:
        return str(self._backend.reason)

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        targets: AllTargets = self._backend.targets(objective, pictures)
        return targets

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        gradients: Callable[[Tensor, AllTargets], list[Tensor]] = self._backend.term_gradients(objective)
        return gradients

    @property
    def runs_functions(self) -> bool:
        """Whether the backend runs whole functions of tensors, not steps only."""
        return hasattr(self._backend, "compile_function")

    @property
    def portable_functions(self) -> bool:
        """Whether those functions must keep to operations that ``graph.trace`` knows."""
        return bool(getattr(self._backend, "portable_functions", False))

    def compile_function(self, work: Callable[..., Any], objectives: Sequence[Objective] = ()) -> Callable[..., Any]:
        run: Callable[..., Any] = self._backend.compile_function(work, objectives)
        return run

    def step_function(self, spec: StepSpec) -> Callable[..., Tensor]:
        step: Callable[..., Tensor] = self._backend.step_function(spec) if self._fits(spec) else self._tiled(spec)
        return step

    def compile(self, spec: StepSpec) -> Step:
        step: Step = self._backend.compile(spec) if self._fits(spec) else self._tiled(spec)
        return step

    def _fits(self, spec: StepSpec) -> bool:
        per_pixel = bytes_per_pixel(self.model, spec.objective, BYTES_PER_VALUE[self.precision])
        return spec.height * spec.width * per_pixel <= self._budget_bytes

    def _tiled(self, spec: StepSpec) -> Step:
        per_pixel = bytes_per_pixel(self.model, spec.objective, BYTES_PER_VALUE[self.precision])
        side = int((self._budget_bytes / per_pixel) ** 0.5)
        stride, overlap = overlap_of(self.model, spec.objective)
        axes = tuple(Axis.of(length, side, overlap, stride) for length in (spec.height, spec.width))
        gradients, terms = self.term_gradients(spec.objective), spec.objective.terms

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            picture = picture.to(self.device)
            shaped = [torch.empty(len(picture), 3 * spec.shape.parts_of(term), *picture.shape[2:], device=self.device)
                      for term, _ in terms]
            for down in axes[0].tiles():
                for across in axes[1].tiles():
                    part = picture[:, :, down.read, across.read].contiguous(memory_format=torch.channels_last)
                    for whole, gradient, (term, _) in zip(shaped, gradients(part, targets), terms, strict=True):
                        part_shaped = maths.shape_gradient(gradient, term, spec.shape)
                        whole[:, :, down.write, across.write] = part_shaped[:, :, down.used, across.used]
            return maths.apply_step(picture, shaped, terms, step_size)

        return step


@dataclass(frozen=True)
class Tile:
    """A tile along one axis: the slice to ``read`` of the picture, the part of it ``used``, and where to ``write``."""

    read: slice
    used: slice
    write: slice


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of a picture, ``advance`` pixels apart; the last one ends with the picture."""

    length: int
    tile: int
    advance: int
    overlap: int

    @classmethod
    def of(cls, length: int, max_tile: int, overlap: int, stride: int) -> Axis:
        """Start tiles at multiples of ``stride``. The last ends with the picture: ``tile`` has its remainder."""
        tile = max(max_tile, 3 * overlap) // stride * stride + length % stride
        if tile >= length:
            return cls(length, length, length, 0)
        return cls(length, tile, (tile - 2 * overlap) // stride * stride, overlap)

    def tiles(self) -> Iterator[Tile]:
        starts = [*range(0, self.length - self.tile, self.advance), self.length - self.tile]
        written = 0
        for start in starts:
            end = self.length if start == starts[-1] else start + self.tile - self.overlap
            yield Tile(slice(start, start + self.tile), slice(written - start, end - start), slice(written, end))
            written = end


def overlap_of(model: Model, objective: Objective) -> tuple[int, int]:
    """Return (stride of the taps, overlap in pixels), the overlap a multiple of the stride.

    A pixel affects a feature, whose gradient affects other pixels: at most twice the radius of the receptive field.
    """
    radius, strides = {INPUT: 0.0}, {INPUT: 1}
    for node in subgraph(model.nodes(), objective.taps):
        source = node.inputs[0]
        radius[node.name], strides[node.name] = max(radius[name] for name in node.inputs), strides[source]
        if isinstance(node, Window):
            radius[node.name] += (max(node.kernel) - 1) / 2 * strides[source]
            strides[node.name] *= node.stride
    stride = max(strides.values())
    pixels = min(max(radius.values()) + EXTRA_OVERLAP, 2 * max(radius.values()) + stride, MAX_OVERLAP)
    return stride, -(-int(pixels) // stride) * stride


def bytes_per_pixel(model: Model, objective: Objective, value_bytes: int) -> float:
    """Estimate the bytes that a step saves per pixel: all values of the forward pass, and the indices of max pools."""
    area, channels, total = {INPUT: 1.0}, {INPUT: 3}, float(BASE_BYTES_PER_PIXEL)
    nodes = subgraph(model.nodes(), objective.taps)
    fp32 = fp32_prefix(nodes)  # float32 in every precision
    for node in nodes:
        area[node.name] = area[node.inputs[0]] / (node.stride**2 if isinstance(node, Window) else 1)
        channels[node.name] = node.channels([channels[name] for name in node.inputs])
        size = max(4, value_bytes) if node.name in fp32 else value_bytes
        saved_bytes = 0 if isinstance(node, Relu) else size + (8 if isinstance(node, MaxPool) else 0)
        total += BACKWARD_MEMORY_FACTOR * channels[node.name] * area[node.name] * saved_bytes
    return total
