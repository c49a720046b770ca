"""The flow of tensors: streams are independent, and it runs where nothing may wait for the host, as in an export."""
from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from streamdream_bench.synthetic import crossing, turning
from support.tensors import Module, NoHostWait, planes, run_by_onnx, to_array
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from streamdream.dream import optical_flow
from streamdream.dream.device_flow import lucas_kanade

SIZE = 61, 86


@cache
def two_streams() -> tuple[Tensor, Tensor]:
    """Current and previous frames [2, 1, H, W] of two scenes."""
    pairs = [[optical_flow.grey(truth.image) for truth in scene(*SIZE).clip(2, first=3)]
             for scene in (crossing, turning)]
    current, previous = (torch.cat([planes(pair[index]) for pair in pairs]) for index in (1, 0))
    return current, previous


def test_streams_of_a_batch_have_the_flow_that_each_has_alone() -> None:
    current, previous = two_streams()
    together = lucas_kanade(current, previous)
    assert (together[0] - together[1]).abs().mean() > 0.5
    for stream in range(2):
        alone = lucas_kanade(current[stream:stream + 1], previous[stream:stream + 1])
        np.testing.assert_allclose(together[stream:stream + 1], alone, atol=1e-4)


def test_noise_in_one_stream_does_not_change_the_flow_of_another() -> None:
    current, previous = two_streams()
    noisy = current + torch.cat((torch.zeros(1, 1, *SIZE), 20 * torch.randn(1, 1, *SIZE)))
    np.testing.assert_allclose(lucas_kanade(noisy, previous)[0], lucas_kanade(current, previous)[0], atol=1e-4)


def test_the_flow_of_arrays_is_that_of_tensors() -> None:
    current, previous = two_streams()
    arrays = [to_array(picture[:1]).astype(np.uint8) for picture in (current, previous)]
    flow = optical_flow.get("lucas-kanade")(*arrays)
    assert flow.dtype == np.float32 and flow.flags.c_contiguous
    np.testing.assert_allclose(flow, to_array(lucas_kanade(current[:1], previous[:1])), atol=1e-4)


def test_the_flow_waits_for_no_host_and_takes_few_operations() -> None:
    """About 20 for each of two iterations on a level, three on the coarsest; what only views a tensor included."""
    frame = torch.rand(1, 1, 240, 320) * 255
    lucas_kanade(frame, frame)
    with NoHostWait() as operations:
        lucas_kanade(frame, frame)
    assert operations.count < 550


def test_a_traced_and_an_exported_flow_are_the_same() -> None:
    current, previous = two_streams()
    expected = lucas_kanade(current, previous).flip(0)
    traced = make_fx(lucas_kanade)(current, previous)
    exported = torch.export.export(Module(lucas_kanade), (current, previous), strict=False).module()
    for module in (traced, exported):
        np.testing.assert_allclose(module(current.flip(0), previous.flip(0)), expected, atol=1e-4)


@pytest.mark.soak
def test_onnx_runtime_finds_the_same_flow() -> None:
    current, previous = (frames[:, :, :31, :40] for frames in two_streams())
    expected = lucas_kanade(current, previous).numpy()
    found = run_by_onnx(lambda *frames: (lucas_kanade(*frames),), (current, previous))[0]
    assert np.percentile(np.abs(found - expected), 99.9) <= 1e-3
