"""Add a dream that is on a device to a decoded picture: its planes go there and come back while the next frame runs."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from streamdream.media.color_matrix import component_matrix
from streamdream.media.device_compose import compose_planes, to_matrix
from streamdream.media.pinned_memory import Download, upload_all
from streamdream.media.planes import bits_of, component_views, maximum, new_picture
from streamdream.media.tone_mapping import is_hdr_picture


def pays(picture: Any, device: torch.device) -> bool:
    """Whether to compose this PyAV frame on that device: on a GPU, in SDR. Else ``compose_picture`` does it."""
    return device.type == "cuda" and not is_hdr_picture(picture)


class PendingPicture:
    """A picture whose samples are on their way from the device."""

    def __init__(self, picture: Any, planes: list[Tensor]) -> None:
        self._picture, self._downloads = picture, [Download(plane) for plane in planes]

    def result(self) -> Any:
        """Wait for the samples; return a new PyAV frame of the same format, colours and time. Alpha is as it was."""
        result = new_picture(self._picture)
        before, after = component_views(self._picture), component_views(result)
        for view, download in zip(after, self._downloads, strict=False):
            view[:] = download.result()
        for old, new in zip(before[3:], after[3:], strict=True):
            new[:] = old
        return result


def compose_on_device(picture: Any, residual: Tensor, strength: float | Tensor = 1.0, mask: Tensor | None = None,
                      original_colors: bool = False) -> PendingPicture:
    """As ``compose_picture``, for a picture in SDR and a residual [1, 3, h, w] on its device. Waits for nothing.

    ``mask`` is [1, 1, H, W] on that device, in 0..1.
    """
    device, bits = residual.device, bits_of(picture)
    matrix = component_matrix(picture.format.is_rgb, int(picture.colorspace), int(picture.color_range), bits)
    planes = upload_all(component_views(picture)[:3], device)
    return PendingPicture(picture, compose_planes(planes, residual, strength, to_matrix(matrix, device),
                                                  maximum(picture), mask, original_colors))
