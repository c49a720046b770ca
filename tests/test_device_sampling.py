"""Blurs, resizes, look-ups and histograms on tensors are those of OpenCV and NumPy."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.tensors import planes, run_by_onnx, to_array

from streamdream.dream import device_sampling, optical_flow
from streamdream.dream import warp as warping
from streamdream.dream.device_histogram import cumulate, first_reaching, histogram, median
from streamdream.media.opencv import cv2
from streamdream.media.resize import downscale_area

Picture = NDArray[np.uint8]
EXACT = 1e-4


def swaying(height: int, width: int, pixels: float) -> optical_flow.Flow:
    """A smooth flow that also leaves the picture."""
    noise = np.random.default_rng(2).normal(size=(height, width, 2)).astype(np.float32)
    smooth = cv2().GaussianBlur(noise, (0, 0), 6)
    flow: optical_flow.Flow = smooth * (pixels / np.abs(smooth).max())
    return flow


@pytest.mark.parametrize(("sigma", "size"), [(0.8, 0), (1.5, 0), (1.5, 7), (3.0, 0), (6.0, 0)])
@pytest.mark.parametrize("shape", [(120, 167), (12, 16), (2, 9)])
def test_a_blur_is_that_of_opencv_also_where_it_is_wider_than_the_picture(
        sigma: float, size: int, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    expected = cv2().GaussianBlur(picture, (size, size), sigma)
    np.testing.assert_allclose(to_array(device_sampling.blur(planes(picture), sigma, size)), expected, atol=EXACT)


def test_each_channel_may_have_its_own_blur() -> None:
    picture = np.random.default_rng(0).random((60, 80, 2), dtype=np.float32)
    found = to_array(device_sampling.blur(planes(picture), (0.8, 3.0)))
    for channel, sigma in enumerate((0.8, 3.0)):
        expected = cv2().GaussianBlur(picture[..., channel], (0, 0), sigma)
        np.testing.assert_allclose(found[..., channel], expected, atol=EXACT)


@pytest.mark.parametrize("size", [(30, 42), (40, 56), (53, 100), (119, 168), (120, 167), (120, 168)])
def test_blurred_area_averages_are_those_of_opencv(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random((120, 168, 3), dtype=np.float32)
    expected = cv2().resize(picture, size[::-1], interpolation=cv2().INTER_AREA)
    blurred = to_array(device_sampling.blurred_area(planes(picture), *size, 4.0))
    np.testing.assert_allclose(blurred, cv2().GaussianBlur(expected, (0, 0), 4.0), atol=EXACT)


@pytest.mark.parametrize("size", [(180, 250), (90, 125), (120, 100), (77, 98), (40, 56), (359, 500), (360, 500)])
def test_a_field_has_the_levels_of_the_reference(size: tuple[int, int], lion: Picture) -> None:
    frame = cv2().resize(lion, (500, 360))
    found, expected = to_array(device_sampling.downscale_area(planes(frame), *size)), downscale_area(frame, *size)
    difference = np.abs(found - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 2e-3


def test_grey_and_luma_are_those_of_opencv() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 168, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_array(device_sampling.grey(planes(picture))), optical_flow.grey(picture))
    residual = picture.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(to_array(device_sampling.luma(planes(residual))),
                               warping.to_luma(residual)[..., 0], atol=1e-6)


@pytest.mark.parametrize("pixels", [3.0, 30.0, 300.0])
def test_a_warp_is_that_of_opencv_also_from_outside_the_picture(pixels: float) -> None:
    picture = cv2().GaussianBlur(np.random.default_rng(1).random((120, 168, 3), dtype=np.float32), (0, 0), 1.0)
    flow = swaying(120, 168, pixels)
    cubic = np.abs(to_array(device_sampling.warp(planes(picture), planes(flow))) - warping.warp(picture, flow))
    assert np.percentile(cubic, 99.9) <= 1 / 255 and cubic.max() <= 2 / 255
    expected = cv2().remap(picture, warping.sample_coordinates(flow), None, cv2().INTER_LINEAR,
                           borderMode=cv2().BORDER_REPLICATE)
    linear = np.abs(to_array(device_sampling.warp_linear(planes(picture), planes(flow))) - expected)
    assert np.percentile(linear, 99.9) <= 1 / 255
    np.testing.assert_array_equal(to_array(device_sampling.in_bounds(planes(flow))), warping.in_bounds(flow))


def test_a_flow_of_nothing_leaves_the_picture_as_it_is() -> None:
    picture = np.random.default_rng(1).random((73, 131, 3), dtype=np.float32)
    found = device_sampling.warp(planes(picture), torch.zeros(1, 2, 73, 131))
    np.testing.assert_allclose(to_array(found), picture, atol=EXACT)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("width", [40, 41])
def test_histogram_and_median_are_those_of_numpy(bits: int, width: int) -> None:
    values = np.random.default_rng(3).integers(0, 1 << bits, (2, 25, width)) >> np.array([0, 3]).reshape(2, 1, 1)
    tensor = torch.from_numpy(values).float()
    counts = [np.bincount(plane.ravel(), minlength=1 << bits) for plane in values]
    np.testing.assert_array_equal(histogram(tensor, bits).numpy(), counts)
    np.testing.assert_array_equal(median(tensor, bits).flatten().numpy(), [np.median(plane) for plane in values])
    sums = np.cumsum(counts, axis=1)
    np.testing.assert_array_equal(cumulate(histogram(tensor, bits)).numpy(), sums)
    found = first_reaching(torch.from_numpy(sums[:1]).float(), torch.from_numpy(sums[1:]).float())
    np.testing.assert_array_equal(found[0].numpy(), np.searchsorted(sums[0], sums[1]))


@pytest.mark.soak  # a whole frame in ONNX Runtime (test_onnx.py) holds it, too
def test_onnx_runtime_samples_as_pytorch_does() -> None:
    """Versions of a cubic look-up differ in what lies outside."""
    def sample(*inputs: Any) -> tuple[torch.Tensor, ...]:
        picture, flow = inputs
        return (device_sampling.warp(picture, flow), device_sampling.warp_linear(picture, flow),
                device_sampling.blur(picture, 1.5), device_sampling.blur(picture[:, :1], 6.0),
                device_sampling.blurred_area(picture, 9, 13, 4.0), device_sampling.downscale_area(picture, 8, 9),
                device_sampling.grey(torch.round(picture)), device_sampling.in_bounds(flow))

    inputs = 255 * torch.rand(1, 3, 24, 40, generator=torch.manual_seed(0)), planes(swaying(24, 40, 40))
    wanted = sample(*inputs)
    for found, expected in zip(run_by_onnx(sample, inputs), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-3)  # of 255
