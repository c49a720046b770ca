"""Published metrics of the temporal consistency of a processed video. Pictures are uint8 [H, W, 3] RGB."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from streamdream.dream import optical_flow, warp

from .metrics import Motion, Picture


def forward_motions(frames: Sequence[Picture]) -> list[Motion]:
    """Return the motion from every frame except the last to the next one, as ``warping_error`` takes it."""
    return [Motion.between(frame, following) for frame, following in pairwise(frames)]


def warping_error(pictures: Sequence[Picture], motions: Sequence[Motion]) -> float:
    """E_warp: mean over pairs of ΣM·|V_t − warp(V_{t+1})|² ÷ ΣM, with V in 0..1; the mean over R, G and B.

    Lai et al. 2018, "Learning blind video temporal consistency" (arXiv:1808.00449), equation 11, and
    evaluate_WarpError.py of phoenix104104/fast_blind_video_consistency. ``motions`` are the ``forward_motions`` of the
    *input*: Farneback's flow (theirs: FlowNet2), its mask without occlusions and motion boundaries by their
    inequalities (those of Ruder et al. 2016), grown by about a pixel. Low is steady; a blurred video is steady, too.
    """
    errors = []
    for (current, following), motion in zip(pairwise(pictures), motions, strict=True):
        if motion.trusted.any():
            change = current.astype(np.float32) - warp.warp(following.astype(np.float32), motion.flow)
            errors.append(float(np.mean(np.square(change[motion.trusted] / 255))))
    return float(np.mean(errors)) if errors else 0.0


def flow_difference(pictures: Sequence[Picture], frames: Sequence[Picture]) -> float:
    """tOF: mean over pairs and pixels of |flow(V_t, V_{t+1}) − flow(F_t, F_{t+1})|, in pixels, without any mask.

    Chu et al. 2020, "Learning temporal coherence via self-supervision" (TecoGAN, arXiv:1811.09393), metrics.py;
    Farneback's flow with the same parameters. It asks whether the dream moves as the scene does.
    """
    estimate = optical_flow.get("farneback")

    def flows(video: Sequence[Picture]) -> list[optical_flow.Flow]:
        return [estimate(current, following) for current, following in pairwise(map(optical_flow.grey, video))]

    return float(np.mean([np.linalg.norm(own - true, axis=2).mean()
                          for own, true in zip(flows(pictures), flows(frames), strict=True)]))
