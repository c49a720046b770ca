"""Add a dream that is on a device to a decoded picture: its planes go there and come back while the next frame runs."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from streamdream.media.color_matrix import component_matrix
from streamdream.media.device_compose import Matrix, compose_planes
from streamdream.media.pinned_memory import Download, upload_flat
from streamdream.media.planes import Samples, bits_of, component_views, maximum, new_picture
from streamdream.media.tone_mapping import is_hdr_picture

Composer = Callable[..., Tensor]
"""``compose_samples`` for a layout."""


def pays(picture: Any, device: torch.device) -> bool:
    """Whether to compose this PyAV frame on that device: on a GPU, in SDR. Else ``compose_picture`` does it."""
    return device.type == "cuda" and not is_hdr_picture(picture)


@dataclass(frozen=True)
class PlaneLayout:
    """All that composing is fixed to; with the same layout, all inputs have the same shapes."""

    shapes: tuple[tuple[int, ...], ...]
    """(height, width) of the first three components."""
    matrix: Matrix
    highest: int
    original_colors: bool
    field: tuple[int, ...]
    """(height, width) of the residual."""
    masked: bool

    @classmethod
    def of(cls, picture: Any, residual: Tensor, masked: bool = False, original_colors: bool = False) -> PlaneLayout:
        matrix = component_matrix(picture.format.is_rgb, int(picture.colorspace), int(picture.color_range),
                                  bits_of(picture))
        return cls(tuple(view.shape for view in component_views(picture)[:3]), tuple(map(tuple, matrix.tolist())),
                   maximum(picture), original_colors, tuple(residual.shape[2:]), masked)

    def split(self, samples: Any) -> list[Any]:
        """Samples one behind the other -> [k, height, width] for each group of k components of one size: views."""
        groups, first = [], 0
        for (height, width), same_size in groupby(self.shapes):
            count = len(list(same_size))
            last = first + count * height * width
            groups.append(samples[first:last].reshape(count, height, width))
            first = last
        return groups


def compose_samples(layout: PlaneLayout, samples: Tensor, residual: Tensor, strength: Tensor,
                    mask: Tensor | None = None) -> Tensor:
    """Compose planes that are one behind the other, as ``compose_planes``; the result is so, too."""
    planes = compose_planes(layout.split(samples), residual, strength, layout.matrix, layout.highest, mask,
                            layout.original_colors)
    return torch.cat([plane.flatten() for plane in planes])


class PendingPicture:
    """A picture whose samples are on their way from the device."""

    def __init__(self, picture: Any, layout: PlaneLayout, samples: Download) -> None:
        self._picture, self._layout, self._samples = picture, layout, samples

    def result(self) -> Any:
        """Wait for the samples; return a new PyAV frame of the same format, colours and time. Alpha is as it was."""
        result = new_picture(self._picture)
        composed: list[Samples] = [plane for group in self._layout.split(self._samples.result()) for plane in group]
        for view, samples in zip(component_views(result), composed + component_views(self._picture)[3:], strict=True):
            view[:] = samples
        return result


def compose_on_device(picture: Any, residual: Tensor, strength: float = 1.0, mask: Tensor | None = None,
                      original_colors: bool = False, compiled: Callable[[PlaneLayout], Composer] | None = None
                      ) -> PendingPicture:
    """As ``compose_picture``, for a picture in SDR and a residual [1, 3, h, w] on its device. Waits for nothing.

    ``mask`` is [1, 1, H, W] on that device, in 0..1. ``compiled`` gives, for a layout, what runs ``compose_samples``:
    as a CUDA graph, say.
    """
    device, layout = residual.device, PlaneLayout.of(picture, residual, mask is not None, original_colors)
    samples = upload_flat(component_views(picture)[:3], device)
    compose = compiled(layout) if compiled else partial(compose_samples, layout)
    inputs = [samples, residual, torch.full((1, 1, 1, 1), strength, device=device)]
    composed = compose(*inputs) if mask is None else compose(*inputs, mask)
    return PendingPicture(picture, layout, Download(composed))
