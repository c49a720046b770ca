"""A convolution with constant weights, and the ReLU behind it if there is one: forward, and the gradient at its input.

On a CPU both go through oneDNN with weights laid out for it once a size, and the ReLU is part of the convolution. Plain
``conv2d`` reorders its weights at every call and writes its output twice. PyTorch's compiler uses the same two entry
points; where they are missing the plain operations run.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.models.nodes import Conv
from streamdream.models.operations import crop_same, pad_same

aten = torch.ops.aten
Pair = tuple[int, int]

MIN_PACKED_CHANNELS = 8
"""Input channels up to which a strided convolution's gradient is a depth-to-space convolution: those of a picture."""
MAX_CACHED_SIZES, IDLE_SECONDS = 8, 30.0
"""Of inputs; a live field that finds its size passes through several, each with its octaves."""


def can_prepare(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch has oneDNN's entry points for that device, and oneDNN lays out that dtype here."""
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    checks = {torch.float16: "_is_mkldnn_fp16_supported", torch.bfloat16: "_is_mkldnn_bf16_supported"}
    needed = ["_convolution_pointwise", "_get_mkldnn_serialized_md", *filter(None, [checks.get(dtype)])]
    # private: a later PyTorch may not have them
    if not all(hasattr(torch.ops.mkldnn, name) for name in needed):
        return False
    return (hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
            and (dtype not in checks or bool(getattr(torch.ops.mkldnn, checks[dtype])())))


class Convolution:
    """``weight`` OIHW and ``bias``, on their device, in float32; computes in ``dtype``, forward in that of ``weight``
    where it is ``fp32``. ``fused_relu`` says that a ReLU is part of it.

    ``prepare`` False keeps to operations that every engine has.
    """

    def __init__(self, node: Conv, weight: Tensor, bias: Tensor, dtype: torch.dtype, fused_relu: bool,
                 prepare: bool = True, fp32: bool = False) -> None:
        self.node, self.fused_relu = node, fused_relu
        self._weight, self._bias = weight.to(dtype), bias if fp32 else bias.to(dtype)
        self._forward_weight = weight if fp32 else self._weight
        self._padding: Pair = (0, 0) if node.same else node.padding
        self._stride: Pair = (node.stride, node.stride)
        self._prepare = prepare and can_prepare(weight.device, dtype)
        weight, forward_weight = self._weight, self._forward_weight  # not self: no cycle, so memory goes at once
        self._forward_kernel = PackedWeight(lambda: forward_weight, self._padding, self._stride)
        self._flipped_kernel = PackedWeight(lambda: flip_kernel(weight), self._flipped_padding, (1, 1))
        self._subpixel_kernel = PackedWeight(
            lambda: depth_to_space_kernel(weight, node.stride), self._subpixel_padding, (1, 1)
        )

    @property
    def nbytes(self) -> int:
        """Of its weights and of what was packed of them. Packed ones are counted without the padding of their layout;
        weights that are the file's own (float32, 1x1) are counted though other networks share them.
        """
        own = {id(tensor): tensor.nbytes for tensor in (self._weight, self._forward_weight, self._bias)}
        return (
            sum(own.values()) + self._forward_kernel.nbytes + self._flipped_kernel.nbytes + self._subpixel_kernel.nbytes
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """``x`` [N, C, H, W] -> the output, and what ``backward`` needs."""
        padded = pad_same(self.node, x, 0.0)
        if self._prepare:
            y = self._forward_kernel(padded, self._bias, self.fused_relu)
        else:
            y = F.conv2d(padded, self._forward_weight, self._bias, self._stride, self._padding)
            y = F.relu(y) if self.fused_relu else y
        return y, (padded, y if self.fused_relu else None, x.shape[2:])

    def backward(self, gradient: Tensor, saved: Any) -> Tensor:
        """The gradient at ``x``; ``gradient`` may be written into."""
        padded, y, size = saved
        if padded.dtype != self._weight.dtype:  # it was float32
            gradient = gradient.to(self._weight.dtype)
            padded = torch.empty_like(padded, dtype=self._weight.dtype)  # of which the shape is asked only
            y = None if y is None else y.to(self._weight.dtype)
        if y is not None:
            gradient = (aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient) if self._prepare
                        else aten.threshold_backward(gradient, y, 0))
        if self._prepare and self.node.stride == 1:
            below = self._flipped_kernel(gradient)
        elif self._prepare and self._weight.shape[1] <= MIN_PACKED_CHANNELS:
            below = self._depth_to_space(gradient, *padded.shape[2:])
        else:
            below = aten.convolution_backward(gradient, padded, self._weight, None, self._stride, self._padding, (1, 1),
                                              False, (0, 0), 1, (True, False, False))[0]
        return crop_same(self.node, below, *size)

    @property
    def _flipped_padding(self) -> Pair:
        return self.node.kernel[0] - 1 - self._padding[0], self.node.kernel[1] - 1 - self._padding[1]

    @property
    def _subpixel_padding(self) -> Pair:
        reach = -(-max(self.node.kernel) // self.node.stride)
        return reach - 1, reach - 1

    def _depth_to_space(self, gradient: Tensor, height: int, width: int) -> Tensor:
        below = F.pixel_shuffle(self._subpixel_kernel(gradient), self.node.stride)
        top, left = self._padding
        below = below[:, :, top:top + height, left:left + width]
        missing = height - below.shape[2], width - below.shape[3]  # pixels that no window reaches
        return F.pad(below, (0, missing[1], 0, missing[0])) if any(missing) else below


def flip_kernel(weight: Tensor) -> Tensor:
    """OIHW -> IOHW, rotated by 180 degrees: at stride 1 the gradient is an ordinary convolution with it."""
    return weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)


def depth_to_space_kernel(weight: Tensor, stride: int) -> Tensor:
    """OIHW -> [I * stride^2, O, reach, reach], with which the gradient at a strided convolution's input is an ordinary
    convolution and ``pixel_shuffle``; reach is the kernel's length over the stride, rounded up.

    Pixel ``s * q + p`` is reached by the kernel's entries ``s * m + p`` only, from ``q - m``: one output channel for
    every p, whose pixels are then interleaved (Shi et al. 2016, arXiv:1609.07009, backward). At the three
    channels of a picture its zeros cost less than oneDNN's own gradient.
    """
    reach = -(-max(weight.shape[2:]) // stride)
    more = [reach * stride - length for length in weight.shape[2:]]
    full = F.pad(weight, (0, more[1], 0, more[0]))
    out, channels = full.shape[:2]
    parts = full.view(out, channels, reach, stride, reach, stride).permute(1, 3, 5, 0, 2, 4).flip(4, 5)
    kernel = parts.reshape(channels * stride**2, out, reach, reach)
    return kernel.contiguous(memory_format=torch.channels_last)


class PackedWeight:
    """A weight OIHW in oneDNN's fastest layout for each size of input, which differs: in the layout of another size, a
    step took 109 ms instead of 28 (96x170, AVX2). Equal layouts are stored once, at most MAX_CACHED_SIZES of them; when
    another one is packed, those are evicted that were not used for IDLE_SECONDS.
    """

    def __init__(self, weight: Callable[[], Tensor], padding: Pair, stride: Pair) -> None:
        self._weight, self._padding, self._stride = weight, padding, stride
        self._by_size: dict[torch.Size, tuple[Tensor, float]] = {}  # and when it was used; the last one used is last
        self._by_layout: WeakValueDictionary[bytes, Tensor] = WeakValueDictionary()
        self.nbytes = 0
        """Of all layouts."""

    def __call__(self, x: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        kernel, _ = self._by_size.pop(x.shape, (None, 0.0))
        is_new, now = kernel is None, time.monotonic()
        if kernel is None:
            kernel = self._pack(x)
        self._by_size[x.shape] = kernel, now
        if is_new:
            self._evict(now)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, kernel, bias, self._padding, self._stride, (1, 1), 1, "relu" if relu else "none", [], "")
        return y

    def _evict(self, now: float) -> None:
        """Sizes that were used too long ago, or are too many."""
        for size, (_, used_seconds) in list(self._by_size.items()):
            if len(self._by_size) > MAX_CACHED_SIZES or used_seconds < now - IDLE_SECONDS:
                self._by_size.pop(size, None)
        self.nbytes = sum({id(packed): nbytes_of(packed) for packed, _ in list(self._by_size.values())}.values())

    def _pack(self, x: Tensor) -> Tensor:
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its type stub is behind
        packed: Tensor = reorder(self._weight().to_mkldnn(), list(self._padding), list(self._stride), [1, 1], 1,
                                   list(x.shape))
        layout = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes()
        return self._by_layout.setdefault(layout, packed)


def nbytes_of(packed: Tensor) -> int:
    """Of a tensor in oneDNN's layout, which does not tell, without the padding of that layout."""
    return packed.numel() * packed.element_size()
