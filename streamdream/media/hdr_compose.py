"""Add a dream to an HDR picture so that the picture, tone-mapped, looks as the SDR dream does.

What the residual changes is computed at its own small size: to SDR, add, and back. For the details of luma it is kept
as a change of the SDR signal of a grey, which each sample of luma then takes on its own curve. Highlights keep what
they are above SDR white: the way back is gentle there (``tone_curve.STEEPEST``), and the *difference* is added.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2
from streamdream.media.planes import component_views, copy_picture, maximum
from streamdream.media.resize import resize
from streamdream.media.tone_map import SDR_STEPS, Pixels, ToneMap, look_up
from streamdream.media.tone_mapping import components_of, samples_at
from streamdream.media.upscale import upscale


def compose_hdr(picture: Any, residual: Pixels, strength: float = 1.0, mask: Pixels | None = None) -> Any:
    """As ``compose_picture``, for a planar PyAV frame that is PQ or HLG; ``residual`` belongs to its SDR copy."""
    components, tone_map = components_of(picture)
    height, width = (min(own, (whole + 1) // 2)
                     for own, whole in zip(residual.shape, components[0].shape, strict=False))
    residual = resize(residual, height, width)
    samples = samples_at(components, width, height)
    sdr = tone_map.to_sdr(samples)
    changes = tone_map.to_hdr(sdr + residual * np.float32(strength / 2)) - tone_map.to_hdr(sdr)
    result = copy_picture(picture)
    luma, *chroma = component_views(result)[:3]
    luma[:] = _add_to_luma(luma, _grey_change(samples[..., 0], changes[..., 0], tone_map), mask, tone_map)
    for view, change in zip(chroma, (changes[..., 1], changes[..., 2]), strict=True):
        view[:] = np.clip(np.rint(view + _masked(upscale(change, *view.shape), mask)), 0, maximum(picture))
    return result


def _grey_change(luma: NDArray[np.float32], change: NDArray[np.float32], tone_map: ToneMap) -> NDArray[np.float32]:
    """A change of Y' -> that of the SDR signal of the same grey, in ``SDR_STEPS``."""
    before = tone_map.luma_signal(look_up(look_up(luma.astype(np.uint16), tone_map.grey_to_sdr).astype(np.uint16),
                                          tone_map.sdr_to_grey))
    after = before + tone_map.luma_signal(change) - tone_map.luma_signal(np.zeros(1, np.float32))
    result: NDArray[np.float32] = (look_up(after, tone_map.signal_to_sdr) - look_up(before, tone_map.signal_to_sdr))
    return result


def _add_to_luma(luma: NDArray[Any], change: NDArray[np.float32], mask: Pixels | None, tone_map: ToneMap
                 ) -> NDArray[np.float32]:
    signal = look_up(luma.astype(np.uint16, copy=False), tone_map.grey_to_sdr)
    changed = cv2().add(signal, np.rint(_masked(upscale(change, *luma.shape), mask)), dtype=cv2().CV_32F)
    changed = np.clip(changed, 0, SDR_STEPS).astype(np.uint16)
    difference = look_up(changed, tone_map.sdr_to_grey) - look_up(signal.astype(np.uint16), tone_map.sdr_to_grey)
    result: NDArray[np.float32] = np.rint(luma + difference)
    return result


def _masked(change: NDArray[np.float32], mask: Pixels | None) -> NDArray[np.float32]:
    return change if mask is None else change * resize(mask, *change.shape).reshape(change.shape)
