"""Optical flow estimators by name.

Every estimator takes the current and the previous frame, grey uint8 [H, W], and returns where each pixel of the current
one was in the previous one: float32 [H, W, 2], (dx, dy) in pixels, cur -> prev. ``previous(x + dx, y + dy)`` looks like
``current(x, y)``. Warping in this direction leaves no holes.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamdream.dream.warp import Flow as Flow
from streamdream.errors import UnknownName
from streamdream.media.opencv import cv2

Grey = NDArray[np.uint8]
FlowEstimator = Callable[[Grey, Grey], Flow]

DIS_FINEST_SCALE, DIS_PATCH_SIZE = 2, 8
"""Of the preset FAST."""
_local = threading.local()


def _dis_engine() -> Any:
    """Return this thread's own estimator, as each holds its buffers."""
    if not hasattr(_local, "engine"):
        _local.engine = _make_dis_engine()
    return _local.engine


def _make_dis_engine() -> Any:
    """DIS (Kroeger et al. 2016, arXiv:1603.03590): several times faster than Farneback, less exact on smooth motion."""
    engine = cv2().DISOpticalFlow_create(cv2().DISOPTICAL_FLOW_PRESET_FAST)
    engine.setUseSpatialPropagation(True)
    return engine


def _dis(current: Grey, previous: Grey) -> Flow:
    engine = _dis_engine()
    # OpenCV changes both for pictures below 91 pixels, and keeps that: a second flow would not be as the first.
    engine.setFinestScale(DIS_FINEST_SCALE)
    engine.setPatchSize(DIS_PATCH_SIZE)
    flow: Flow = engine.calc(current, previous, None)
    return flow


def _farneback(current: Grey, previous: Grey) -> Flow:
    """Farneback 2003, as in DeepDreamAnim: pyramid 0.5, 3 levels, window 15, 3 iterations, polynomial 5 / 1.2."""
    flow: Flow = cv2().calcOpticalFlowFarneback(current, previous, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    return flow


def _lucas_kanade(current: Grey, previous: Grey) -> Flow:
    """What runs where the whole frame stays on a device; on a processor DIS is several times faster."""
    import torch

    from streamdream.dream.device_flow import lucas_kanade

    with torch.no_grad():
        pictures = (torch.from_numpy(grey)[None, None].float() for grey in (current, previous))
        flow: Flow = lucas_kanade(*pictures)[0].permute(1, 2, 0).contiguous().numpy()
    return flow


def _none(current: Grey, previous: Grey) -> Flow:
    return np.zeros((*current.shape, 2), np.float32)


FLOWS: dict[str, FlowEstimator] = {"auto": _dis, "dis": _dis, "farneback": _farneback, "lucas-kanade": _lucas_kanade,
                                   "none": _none}


def get(name: str) -> FlowEstimator:
    """Return the estimator of that name. Raises UnknownName."""
    if name not in FLOWS:
        raise UnknownName("flow", name, FLOWS)
    return FLOWS[name]


def grey(image: NDArray[np.uint8]) -> Grey:
    """[H, W, 3] RGB -> [H, W] luma."""
    result: Grey = cv2().cvtColor(image, cv2().COLOR_RGB2GRAY)
    return result
