"""The whole step as one static forward graph of basic operations, for engines without autograd.

``build`` traces ``step.ascend`` and ``models.network``. Operations that engines lack are decomposed into those that all
have: the gradient of a convolution is a convolution, that of a max pool compares and selects.
"""
from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.fx.passes.dialect.common.cse_pass import CSEPass

from streamdream.ascent import step as maths
from streamdream.backends import flatten_targets, unflatten_targets
from streamdream.models.convolution import depth_to_space_kernel, flip_kernel
from streamdream.models.network import Network

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, StepSpec
    from streamdream.models import Model

aten = torch.ops.aten
Pair = Sequence[int]


@dataclass(frozen=True)
class Graph:
    """``module(picture [N, 3, H, W], step_size [1], *targets) -> picture``, float32 in and out; or another function.

    ``digest`` is that of code, constants and shapes; ``inputs`` are example inputs.
    """

    module: torch.nn.Module
    digest: str
    inputs: tuple[Tensor, ...]

    def export(self) -> torch.export.ExportedProgram:
        """Export the graph for other engines."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated parts of PyTorch
            return torch.export.export(self.module, self.inputs, strict=False)

    def save(self, path: str) -> None:
        """Save to a ``.pt2`` file with weights. PyTorch of the same version runs it without streamdream."""
        program = self.export()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of two views of one constant
            torch.export.save(program, path, extra_files={"digest": self.digest})


def load(path: str) -> Graph:
    """Load a file of ``Graph.save``. A ``.pt2`` file is a program: only load files that you trust."""
    extra = {"digest": ""}
    program = torch.export.load(path, extra_files=extra)
    inputs, _ = program.example_inputs
    return Graph(program.module(), extra["digest"], tuple(inputs))


def build(model: Model, spec: StepSpec, dtype: torch.dtype, targets: AllTargets = (),
          device: torch.device | None = None, batch: int = 1, changes: Mapping[Any, Callable[..., Any]] | None = None
          ) -> Graph:
    """Trace a step of ``batch`` independent pictures.

    ``targets`` are example inputs of the graph; their shapes are fixed. ``changes`` replace rows of ``TABLE``.
    """
    device = device or torch.device("cpu")
    counts = [len(of_term) for of_term in targets] or [0] * len(spec.objective.terms)
    of_terms = step_function(model, spec, dtype, device)

    def step(picture: Tensor, step_size: Tensor, *flat: Tensor) -> Tensor:
        return of_terms(picture, step_size, unflatten_targets(flat, counts))

    picture = torch.zeros(batch, 3, spec.height, spec.width, device=device)
    return trace(step, (picture.contiguous(memory_format=torch.channels_last),
                        torch.full((1,), 0.01, device=device), *flatten_targets(targets)), changes)


def step_function(model: Model, spec: StepSpec, dtype: torch.dtype, device: torch.device
                  ) -> Callable[[Tensor, Tensor, AllTargets], Tensor]:
    """Return the step as operations that ``trace`` decomposes: (picture, step_size, targets) -> picture."""
    terms = spec.objective.terms
    network = Network(model.nodes(), model.load_weights(), tuple(sorted(spec.objective.taps)), device, dtype,
                      prepare=False)

    def step(picture: Tensor, step_size: Tensor, targets: AllTargets = ()) -> Tensor:
        of_terms = targets or ((),) * len(terms)
        at_input = network.gradients(model.to_input(picture), lambda features: [
            term.value(features, of_term) for (term, _), of_term in zip(terms, of_terms, strict=True)])
        gradients = [model.to_input.gradient(gradient) for gradient in at_input]
        return maths.ascend(picture, gradients, terms, step_size, spec.shape)

    return step


def trace(work: Callable[..., Any], example: tuple[Tensor, ...],
          changes: Mapping[Any, Callable[..., Any]] | None = None) -> Graph:
    """Trace a function of tensors, which returns one or a tuple of them, at the shapes of ``example``."""
    table = TABLE | dict(changes or {})
    example = tuple(tensor.clone() if any(tensor is other for other in example[:number]) else tensor
                    for number, tensor in enumerate(example))  # make_fx takes one tensor given twice for one input
    work(*example)  # fills the tensor cache, so that its kernels are constants of the graph
    with _shared_fake_mode():
        traced = make_fx(work, decomposition_table=table)(*example)
        # a second trace removes in-place operations, which is impossible together with autograd
        return _finish(make_fx(torch.func.functionalize(traced), decomposition_table=table)(*example), example)


def _shared_fake_mode() -> AbstractContextManager[Any]:
    """Share one fake mode between all values of a trace; with one for each, tracing takes twice as long."""
    try:  # private names: without them, tracing is only slower
        from torch._guards import TracingContext, tracing
        from torch._subclasses import FakeTensorMode
    except ImportError:
        return nullcontext()
    return tracing(TracingContext(FakeTensorMode()))


def _finish(module: torch.fx.GraphModule, inputs: tuple[Tensor, ...]) -> Graph:
    """Remove unused and duplicate nodes, and compute the digest."""
    module.graph.eliminate_dead_code()
    module.recompile()
    shared = CSEPass()(module)
    assert shared is not None
    module = shared.graph_module
    module.graph.eliminate_dead_code()
    module.recompile()
    digest = hashlib.sha256((module.code + str([tuple(example.shape) for example in inputs])).encode())
    for name, constant in sorted(module.named_buffers()):
        digest.update(name.encode() + str((constant.dtype, tuple(constant.shape))).encode())
        digest.update(constant.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return Graph(module, digest.hexdigest(), inputs)


# --- decompositions ---------------------------------------------------------------------------------------------------

def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: object, stride: Pair, padding: Pair,
                          dilation: Pair, transposed: bool, output_padding: Pair, groups: int, mask: object
                          ) -> tuple[Tensor, None, None]:
    """Compute the gradient at the input as an ordinary convolution, as ``models.convolution`` does; several engines
    compute transposed ones wrongly.
    """
    (height, width), kernel = x.shape[2:], weight.shape[2:]
    if tuple(stride) == (1, 1):
        with disable_proxy_modes_tracing():
            flipped = flip_kernel(weight)
        return _convolve(gradient, flipped, [k - 1 - p for k, p in zip(kernel, padding, strict=True)]), None, None
    with disable_proxy_modes_tracing():
        subpixel = depth_to_space_kernel(weight, stride[0])
    size = subpixel.shape[2]
    at_input = aten.pixel_shuffle(_convolve(gradient, subpixel, [size - 1, size - 1]), stride[0])
    return crop_or_pad(at_input, padding, height, width), None, None


def _convolve(x: Tensor, weight: Tensor, padding: Pair) -> Tensor:
    y: Tensor = aten.convolution(x, weight, None, [1, 1], list(padding), [1, 1], False, [0, 0], 1)
    return y


def crop_or_pad(x: Tensor, start: Pair, height: int, width: int) -> Tensor:
    """Return ``x`` from ``start`` on, cropped or padded with zeros to that size."""
    x = x[:, :, start[0]:start[0] + height, start[1]:start[1] + width]
    missing = height - x.shape[2], width - x.shape[3]
    return aten.constant_pad_nd(x, [0, missing[1], 0, missing[0]]) if any(missing) else x


def _max_pool(x: Tensor, kernel: Pair, stride: Pair = (), padding: Pair = (0, 0), dilation: Pair = (1, 1),
              ceil: bool = False) -> Any:
    """Pool rows, then columns, so that the gradient can reuse both maxima. The indices are zeros; none is read."""
    if kernel[0] == 1 or kernel[1] == 1:
        return NotImplemented
    _, _, maxima = _separable_max(x, kernel, stride or kernel, padding, ceil)
    return maxima, torch.zeros_like(maxima, dtype=torch.int64)


def _separable_max(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``x`` padded so that all windows fit, its maxima along rows, and theirs along columns."""
    lengths = [_length(x.shape[2 + axis], kernel[axis], stride[axis], padding[axis], ceil) for axis in (0, 1)]
    after = [(lengths[axis] - 1) * stride[axis] + kernel[axis] - x.shape[2 + axis] - padding[axis] for axis in (0, 1)]
    if any(after) or any(padding):
        x = aten.constant_pad_nd(x, [padding[1], after[1], padding[0], after[0]], torch.finfo(x.dtype).min)
    rows = aten.max_pool2d_with_indices(x, [1, kernel[1]], [1, stride[1]])[0]
    return x, rows, aten.max_pool2d_with_indices(rows, [kernel[0], 1], [stride[0], 1])[0]


def _length(length: int, kernel: int, stride: int, padding: int, ceil: bool) -> int:
    spare = length + 2 * padding - kernel
    if not ceil:
        return spare // stride + 1
    count = -(-spare // stride) + 1
    return count - 1 if (count - 1) * stride >= length + padding else count


def max_pool_backward(gradient: Tensor, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
                       ceil: bool, indices: Tensor) -> Tensor:
    """Route the gradient to the first maximum of each window as PyTorch does: the first row with it, there the first
    column.

    It must not go to all equal maxima, which are frequent after a pool.
    """
    padded, rows, maxima = _separable_max(x, kernel, stride or kernel, padding, ceil)
    down, across = stride or kernel
    parts = [part for phase, at_rows in enumerate(_route_to_argmax(gradient, rows, maxima, 2, kernel[0], down))
             for part in _route_to_argmax(at_rows, _strided(padded, 2, phase, down), _strided(rows, 2, phase, down),
                                   3, kernel[1], across)]
    return crop_or_pad(_depth_to_space(parts, down, across), padding, *x.shape[2:])


def _route_to_argmax(gradient: Tensor, x: Tensor, maxima: Tensor, axis: int, kernel: int, stride: int) -> list[Tensor]:
    """Route the gradient of each window along ``axis`` to the first element of ``x`` that equals its maximum.

    Return the result in ``stride`` parts: elements 0, stride, 2 * stride, ..., then 1, stride + 1, ..., and so on.
    """
    count, zero = maxima.shape[axis], torch.zeros((), dtype=gradient.dtype, device=gradient.device)
    steps = -(-x.shape[axis] // stride)
    phases: dict[int, Tensor] = {}
    for offset in range(kernel):
        part = gradient  # the last offset gets the rest, even if an engine rounds the maximum differently
        if offset < kernel - 1:
            candidates = aten.slice(x, axis, offset, offset + stride * (count - 1) + 1, stride)
            part = aten.where(aten.eq(candidates, maxima), gradient, zero)
            gradient = gradient - part
        before = offset // stride
        pads = [before, steps - count - before]
        if any(pads):
            part = aten.constant_pad_nd(part, pads if axis == 3 else [0, 0, *pads])
        phase = offset % stride
        phases[phase] = part if phase not in phases else phases[phase] + part
    return [phases[phase] for phase in range(stride)]


def _strided(x: Tensor, axis: int, start: int, step: int) -> Tensor:
    """Return every ``step``-th element along ``axis``, padded with zeros to the length of the longest such slice."""
    if step == 1:
        return x
    sliced: Tensor = aten.slice(x, axis, start, x.shape[axis], step)
    short = -(-x.shape[axis] // step) - sliced.shape[axis]
    return aten.constant_pad_nd(sliced, [0, 0] * (3 - axis) + [0, short]) if short else sliced


def _depth_to_space(parts: list[Tensor], down: int, across: int) -> Tensor:
    """Interleave ``down * across`` pictures into one (depth to space, blocks first)."""
    if len(parts) == 1:
        return parts[0]
    n, channels, height, width = parts[0].shape
    blocks = torch.cat(parts, 1).view(n, down, across, channels, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, channels, height * down, width * across)


def average(x: Tensor, kernel: Pair, stride: Pair = (), padding: Pair = (0, 0), ceil: bool = False,
              count_padding: bool = True, divisor: int | None = None) -> Any:
    """Average by a depthwise convolution, as one engine lacks a bf16 average pool for some of these cases."""
    if ceil or divisor:
        return NotImplemented
    means = _mean(x, kernel, stride or kernel, padding)
    if count_padding or not any(padding):
        return means
    with disable_proxy_modes_tracing():
        fraction_inside = _mean(torch.ones(1, 1, *x.shape[2:], device=x.device), kernel, stride or kernel, padding)
        correction = (1 / fraction_inside).to(x.dtype)
    return means * correction


def _avg_pool_backward(gradient: Tensor, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil: bool,
                       count_padding: bool, divisor: int | None) -> Tensor:
    """Average the gradient: at stride 1, with counted padding or none, the mean is its own adjoint."""
    if tuple(stride or kernel) != (1, 1) or ceil or divisor or not (count_padding or not any(padding)):
        raise NotImplementedError("the gradient of this average pool is not implemented")
    return _mean(gradient, kernel, (1, 1), [k - 1 - p for k, p in zip(kernel, padding, strict=True)])


def _mean(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    channels = x.shape[1]
    with disable_proxy_modes_tracing():
        weight = torch.full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=x.dtype, device=x.device)
    means: Tensor = aten.convolution(x, weight, None, list(stride), list(padding), [1, 1], False, [0, 0], channels)
    return means


def _threshold_backward(gradient: Tensor, x: Tensor, threshold: float) -> Tensor:
    zero = torch.zeros((), dtype=gradient.dtype, device=gradient.device)
    at_input: Tensor = aten.where(aten.gt(x, threshold), gradient, zero)
    return at_input


def _slice_backward(gradient: Tensor, sizes: Pair, axis: int, start: int, end: int, step: int) -> Tensor:
    if step != 1:
        raise NotImplementedError("the gradient of a slice with steps is not implemented")
    after = sizes[axis] - start - gradient.shape[axis]
    at_input: Tensor = aten.constant_pad_nd(gradient, [0, 0] * (gradient.dim() - 1 - axis) + [start, after])
    return at_input


TABLE: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten.avg_pool2d.default: average,
    aten.avg_pool2d_backward.default: _avg_pool_backward,
    aten.slice_backward.default: _slice_backward,
    aten.threshold_backward.default: _threshold_backward,
    aten.sgn.default: torch.sign,  # the same for real numbers; some engines lack sgn
}
