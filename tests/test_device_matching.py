"""Match, trust, step gain and legibility on tensors are those of the reference, given the same flow."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from streamdream_bench import footage
from support.tensors import NoHostWait, numbers, planes, run_by_onnx, to_array
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from streamdream.dream import (
    device_legibility,
    device_matching,
    device_step_gain,
    device_trust,
    legibility,
    optical_flow,
    step_gain,
)
from streamdream.dream import trust as trust_methods
from streamdream.dream.device_matching import TensorMatch, match, match_with
from streamdream.dream.frame_matching import match_frame
from streamdream.errors import UnknownName
from streamdream.media.device_resize import resize_linear
from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings

Picture = NDArray[np.uint8]
SIZE = 96, 128
SETTINGS = DreamSettings(flow="dis")
STREAMS = (0.97, 0.01, 8, 0.5, 1), (0.9, 0.02, 3, 1, 3)
"""keep, step size, regrowth, legibility and passes of two streams; nothing is carried in the second."""
NUMBERS = torch.tensor(STREAMS)[:, :, None, None]
CHANGES: dict[str, Callable[[list[Picture]], list[Picture]]] = {
    "as it is": lambda shot: shot,
    "flash": lambda shot: [*shot[:3], levels(shot[3] * 2.2 + 110), *shot[4:]],
    "white": lambda shot: [*shot[:3], np.full_like(shot[3], 252), *shot[4:]],
    "black": lambda shot: [*shot[:2], levels(shot[2] * 0.02), levels(shot[3] * 0.02), *shot[4:]],
    "black at the start": lambda shot: [*(levels(frame * 0.02) for frame in shot[:3]), *shot[3:]],
    "white at the start": lambda shot: [*(levels(250 + frame * 0.02) for frame in shot[:3]), *shot[3:]],
    "fade": lambda shot: [levels(frame * abs(n - 3) / 3) for n, frame in enumerate(shot)],
    "exposure": lambda shot: [levels(frame * (1 + 0.5 * np.sin(n))) for n, frame in enumerate(shot)],
    "noise": lambda shot: [levels(frame + np.random.default_rng(n).normal(0, 25, frame.shape[:2])[..., None])
                           for n, frame in enumerate(shot)],
    "cut": lambda shot: [*shot[:3], *(np.ascontiguousarray(frame[::-1, ::-1]) for frame in shot[3:])],
    "cut to light": lambda shot: [*shot[:3], *(levels(frame[::-1, ::-1] * 1.5 + 100) for frame in shot[3:])],
    "cut behind white": lambda shot: [*shot[:3], np.full_like(shot[3], 252),
                                      *(np.ascontiguousarray(frame[::-1, ::-1]) for frame in shot[4:])],
}


def levels(picture: NDArray[np.floating]) -> Picture:
    result: Picture = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return result


@cache
def shot(kind: str) -> list[Picture]:
    pictures: list[Picture] = footage.all_footage()[kind](7, *SIZE)
    return pictures


def dis(current: Tensor, previous: Tensor) -> Tensor:
    """The flow of the reference, for tensors."""
    pairs = [[plane[0].numpy().astype(np.uint8) for plane in pair] for pair in zip(current, previous, strict=True)]
    return torch.cat([planes(optical_flow.get("dis")(*pair)) for pair in pairs])


def greys(kind: str, change: str = "as it is") -> list[Tensor]:
    return [planes(optical_flow.grey(frame)) for frame in CHANGES[change](shot(kind))]


def assert_close(found: Tensor, expected: NDArray[np.float32], bound: float = 0.02) -> None:
    """For 99.5 % of the pixels."""
    assert (np.abs(to_array(found) - expected) > bound).mean() <= 0.005


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["world", "handheld", "water"])
def test_a_shot_is_matched_as_the_reference_matches_it(kind: str, change: str) -> None:
    previous, reference = None, torch.zeros(1, 1, *SIZE)
    for frame in CHANGES[change](shot(kind)):
        expected = match_frame(frame, frame, previous, SETTINGS)
        found = match_with(dis, planes(expected.grey), reference, numbers(previous is not None),
                           numbers(SETTINGS.cut), SETTINGS.trust)
        flags = [bool(flag) for flag in (found.cut, found.blank, found.clipped)]
        assert flags == [expected.cut, expected.blank, expected.clipped]
        np.testing.assert_array_equal(to_array(found.reference), expected.reference)
        assert_close(found.trust, np.zeros(SIZE, np.float32) if expected.trust is None else expected.trust)
        if expected.motion is not None:
            np.testing.assert_allclose(to_array(found.motion), expected.motion, atol=1e-4)
        previous, reference = expected.reference, found.reference


@pytest.mark.parametrize("change", ["as it is", "flash", "noise"])
@pytest.mark.parametrize("method", trust_methods.TRUSTS)
def test_trust_is_that_of_the_reference(method: str, change: str) -> None:
    before, now = CHANGES[change](shot("handheld"))[2:4]
    grey, previous = optical_flow.grey(now), optical_flow.grey(before)
    expected = match_frame(now, now, previous, replace(SETTINGS, trust=method))
    found = match_with(dis, planes(grey), planes(previous), numbers(1), numbers(SETTINGS.cut), method)
    assert expected.trust is not None
    assert_close(found.trust, expected.trust)


def test_every_method_and_flow_has_its_name_and_no_other() -> None:
    assert device_trust.TRUSTS.keys() == trust_methods.TRUSTS.keys()
    assert device_matching.FLOWS.keys() <= optical_flow.FLOWS.keys()
    now, before = greys("world")[:2]
    for names in (("robust", "dis"), ("rubost", "none")):
        with pytest.raises(UnknownName):
            match(now, before, numbers(1), numbers(0), *names)


def test_no_threshold_means_no_cuts() -> None:
    now, before = greys("handheld", "cut")[3], greys("handheld", "cut")[2]
    assert match(now, before, numbers(1), numbers(1), "full", "none").cut
    found = match(now, before, numbers(1), numbers(0), "full", "none")
    assert not found.cut and found.trust.min() == 1


def test_noise_is_measured_as_by_the_reference() -> None:
    for frame in (shot("handheld")[0], CHANGES["noise"](shot("water"))[1][:95, :127]):
        grey = optical_flow.grey(frame)
        assert float(device_trust.noise_variance(planes(grey))) == pytest.approx(trust_methods.noise_variance(grey),
                                                                                 rel=1e-4)


def test_doubt_decays_as_in_the_reference() -> None:
    random = np.random.default_rng(0)
    flow = cv2().GaussianBlur(random.normal(size=(*SIZE, 2)).astype(np.float32), (0, 0), 6) * 30
    found = torch.ones(1, 1, *device_trust.lasting_shape(*SIZE))
    expected = None
    for _ in range(5):
        doubted = cv2().GaussianBlur(random.random(SIZE, dtype=np.float32), (0, 0), 5)
        trust, expected = trust_methods.decay_doubt(doubted, flow, expected)
        tensor, found = device_trust.decay_doubt(planes(doubted), planes(flow), found)
        np.testing.assert_allclose(to_array(tensor), trust, atol=1e-4)
        np.testing.assert_allclose(to_array(found), expected, atol=1e-5)


def robust(grey: Tensor, previous: Tensor, started: Tensor, threshold: Tensor) -> TensorMatch:
    return match(grey, previous, started, threshold, "robust", "lucas-kanade")


def two_streams() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first in a flash, the second at its start."""
    lit, water = greys("handheld", "flash"), greys("water")
    return torch.cat((lit[3], water[1])), torch.cat((lit[2], water[0])), numbers(1, 0), numbers(0.25, 0.5)


def test_streams_of_a_batch_are_matched_as_each_alone() -> None:
    together = robust(*two_streams())
    for stream in range(2):
        grey, previous, started, threshold = (value[stream:stream + 1] for value in two_streams())
        alone = robust(grey, previous, started, threshold)
        for value, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(value[stream:stream + 1], expected, atol=1e-3)
    assert together.clipped.flatten().tolist() == [1, 0]
    assert together.trust[0].mean() > 0.5 and not together.trust[1].any()


def test_nothing_in_a_frame_waits_for_the_host() -> None:
    streams = two_streams()
    robust(*streams)
    for method in trust_methods.TRUSTS:
        match(*streams, method, "none")
        with NoHostWait():
            match(*streams, method, "none")
    inputs = carried_inputs()
    after_match(*inputs)
    with NoHostWait():
        robust(*streams)
        after_match(*inputs)


def test_a_traced_match_is_the_same() -> None:
    streams = two_streams()
    expected = robust(*streams)
    traced = make_fx(robust)(*streams)
    for value, other in zip(traced(*(value.flip(0) for value in streams)), expected, strict=True):
        np.testing.assert_allclose(value.flip(0), other, atol=1e-3)


@pytest.mark.soak  # a whole frame in ONNX Runtime (test_onnx.py) holds it, too
def test_onnx_runtime_matches_and_shapes_as_pytorch_does() -> None:
    def whole(grey: Tensor, previous: Tensor, started: Tensor, threshold: Tensor, trust: Tensor, flow: Tensor,
              *others: Tensor) -> tuple[Tensor, ...]:
        lasting, maturity, carried, frame, carries = others
        return (*match(grey, previous, started, threshold, "robust", "none")[1:],
                *after_match(trust, flow, lasting, maturity, carried, frame, carries))

    inputs = (*two_streams(), *carried_inputs())
    wanted = whole(*inputs)
    for found, expected in zip(run_by_onnx(whole, inputs), wanted, strict=True):
        assert np.percentile(np.abs(found - expected.numpy()), 99.9) <= 1e-3


def carried_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Trust, flow, lasting doubt, maturity, carried, frame, carries."""
    random = torch.manual_seed(0)
    trust, lasting, maturity = (torch.rand(2, 1, height, width, generator=random)
                                for height, width in (SIZE, device_trust.lasting_shape(*SIZE), SIZE))
    carried, frame = (torch.rand(2, 3, *SIZE, generator=random) * scale - scale / 2 for scale in (0.6, 2.0))
    flow = resize_linear(2 * torch.randn(2, 2, 24, 32, generator=random), *SIZE)
    carries = numbers(1, 0)
    return trust, flow, lasting * 0.1, maturity, carried * carries, frame, carries


def after_match(trust: Tensor, flow: Tensor, lasting: Tensor, maturity: Tensor, carried: Tensor, frame: Tensor,
                carries: Tensor) -> tuple[Tensor, ...]:
    keep, step_size, regrowth, strong, passes = (NUMBERS[:, at:at + 1] for at in range(5))
    trust, lasting = device_trust.decay_doubt(trust, flow, lasting)
    maturity = device_step_gain.carry(maturity, flow, trust * carries, keep)
    gain = device_step_gain.of(maturity, carries, regrowth, step_size, keep)
    dreamed = (frame + carried * 1.1 + 0.05 * frame.roll(3, 3)).clamp(-1, 1)
    residual = device_legibility.shape_steps(dreamed - frame, carried, carries, frame, strong)
    return residual, lasting, gain, device_step_gain.mature(maturity, gain, keep, passes)


def test_step_gain_and_legibility_are_those_of_the_reference() -> None:
    inputs = carried_inputs()
    trust, flow, lasting, maturity, carried, frame, _ = (value.numpy() for value in inputs)
    found = after_match(*inputs)
    for stream, (keep, size, regrowth, strong, passes) in enumerate(STREAMS):
        settings = replace(SETTINGS, keep=keep, step_size=size, regrowth=regrowth)
        motion, before, shown = (np.ascontiguousarray(array[stream].transpose(1, 2, 0))
                                 for array in (flow, carried, frame))
        trusted, doubt = trust_methods.decay_doubt(trust[stream, 0], motion, lasting[stream, 0])
        old = step_gain.carry(maturity[stream, 0], motion, trusted, keep) if stream == 0 else None
        gain = step_gain.of(old, settings)
        dreamed = np.clip(shown + before * 1.1 + 0.05 * np.roll(shown, 3, 1), -1, 1)
        residual = legibility.shape_steps(dreamed - shown, before if stream == 0 else None, shown, strong)
        young = np.ones(SIZE, np.float32) if gain is None else gain
        mature = step_gain.mature(old, gain, SIZE, keep, passes)
        for tensor, expected in zip(found, (residual, doubt, young, mature), strict=True):
            np.testing.assert_allclose(to_array(tensor[stream:stream + 1]), expected, atol=1e-3)


def test_without_legibility_the_residual_is_returned_itself() -> None:
    _, _, _, _, carried, frame, carries = carried_inputs()
    residual = carried * 3
    assert torch.equal(device_legibility.shape_steps(residual, carried, carries, frame, numbers(0, 0)), residual)
