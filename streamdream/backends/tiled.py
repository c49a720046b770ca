"""Pictures larger than memory: the gradient is computed tile by tile and normalised as a whole.

Tiles are of one size and overlap, and only the middle of each is used. They lie on the grid of the network's strides,
so a feature looks at the same pixels as without tiles; what is far from a pixel reaches it weakly, so the overlap need
not be the whole receptive field. As each step's shift moves the picture beneath the tiles, no edge is at the same place
twice (neural-dream blends tiles that overlap by half instead).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
"""Pixels on every side of a tile that are computed and dropped: at most, and"""
EXTRA_OVERLAP = 48
"""this many more than a tap's receptive field has to a side. One step then differs from the untiled one by less than
1 % for all taps up to mixed5 and inception_5b/output (float32; 0.01 % for mixed3); figures:
docs/notebook/2026-11-24-chaos-and-tiles.md."""
BYTES_PER_VALUE = {"fp32": 4, "bf16": 2, "fp16": 2}
BASE_BYTES_PER_PIXEL = 250
"""A pixel's, of the picture and its gradient while they are smoothed and added."""
BACKWARD_MEMORY_FACTOR = 1.3
"""Memory of the backward pass, times that of the values saved in the forward pass. Measured: 0.6 to 1.1 of the sum."""


class Tiled:
    """Hands pictures to another backend, in parts where a step on the whole would take more than ``budget_mb``.

    What depends on the whole picture is computed for each tile by itself: a style's correlations, and how several
    taps weigh against each other, of which the edges of a tile move 2 % or so.
    """

    def __init__(self, backend: Backend, budget_mb: float) -> None:
        self._backend, self._budget_bytes = backend, budget_mb * 1e6
        self.model, self.device = backend.model, backend.device
        self.precision = backend.precision

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def reason(self) -> str:
        return self._backend.reason

    def targets(self, objective: Objective, pictures: Pictures) -> AllTargets:
        return self._backend.targets(objective, pictures)

    def term_gradients(self, objective: Objective) -> Callable[[Tensor, AllTargets], list[Tensor]]:
        return self._backend.term_gradients(objective)

    def compile(self, spec: StepSpec) -> Step:
        per_pixel = bytes_per_pixel(self.model, spec.objective, BYTES_PER_VALUE[self.precision])
        if spec.height * spec.width * per_pixel <= self._budget_bytes:
            return self._backend.compile(spec)
        side = int((self._budget_bytes / per_pixel) ** 0.5)
        stride, overlap = overlap_of(self.model, spec.objective)
        axes = tuple(Axis.of(length, side, overlap, stride) for length in (spec.height, spec.width))
        gradients, terms = self.term_gradients(spec.objective), spec.objective.terms

        def step(picture: Tensor, step_size: float, targets: AllTargets = ()) -> Tensor:
            picture = picture.to(self.device)
            refined = [torch.empty_like(picture) for _ in terms]
            for down in axes[0].tiles():
                for across in axes[1].tiles():
                    part = picture[:, :, down.read, across.read].contiguous(memory_format=torch.channels_last)
                    for whole, gradient, (term, _) in zip(refined, gradients(part, targets), terms, strict=True):
                        smoothed = maths.smooth_and_desaturate(gradient, term, spec.smooth, spec.color)
                        whole[:, :, down.write, across.write] = smoothed[:, :, down.used, across.used]
            return maths.apply_step(picture, refined, terms, step_size)

        return step


@dataclass(frozen=True)
class Tile:
    """Along one axis: what is read of the picture, which part of that is used, and where it is written."""

    read: slice
    used: slice
    write: slice


@dataclass(frozen=True)
class Axis:
    """How one side of a picture is cut into tiles, ``advance`` pixels apart, the last at its end."""

    length: int
    tile: int
    advance: int
    overlap: int

    @classmethod
    def of(cls, length: int, longest: int, overlap: int, stride: int) -> Axis:
        """Tiles start at multiples of ``stride`` and end at the picture's end, so their length has its remainder."""
        tile = max(longest, 3 * overlap) // stride * stride + length % stride
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
    """(stride of the taps, pixels of overlap), the latter a multiple of the former.

    A pixel reaches a feature, and that feature's gradient other pixels: twice the receptive field's radius, at most.
    """
    reach, strides = {INPUT: 0.0}, {INPUT: 1}
    for node in subgraph(model.nodes(), objective.taps):
        below = node.inputs[0]
        reach[node.name], strides[node.name] = max(reach[name] for name in node.inputs), strides[below]
        if isinstance(node, Window):
            reach[node.name] += (max(node.kernel) - 1) / 2 * strides[below]
            strides[node.name] *= node.stride
    stride = max(strides.values())
    pixels = min(max(reach.values()) + EXTRA_OVERLAP, 2 * max(reach.values()) + stride, MAX_OVERLAP)
    return stride, -(-int(pixels) // stride) * stride


def bytes_per_pixel(model: Model, objective: Objective, value_bytes: int) -> float:
    """Bytes that a step saves for each pixel of the picture: every value of the forward pass, and pools' indices."""
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
