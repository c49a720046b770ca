"""Composing on a device gives what the processor's path gives, in tensors, and waits for nothing within it."""
from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from streamdream_bench import device_check
from streamdream_web.live.browser_io import split_residual
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from streamdream.dream.warp import to_luma
from streamdream.live import compositor
from streamdream.media import device_compose, device_resize, resize
from streamdream.media.compose import compose_image, compose_picture
from streamdream.media.device_picture import PlaneLayout, compose_on_device, compose_samples, pays
from streamdream.media.opencv import cv2
from streamdream.media.pinned_memory import Download, upload, upload_all, upload_constant, upload_flat
from streamdream.media.planes import component_views
from streamdream.media.upscale import upscale
from streamdream.settings import DreamSettings

Array = NDArray[Any]
CPU = torch.device("cpu")
FIELD = (48, 64)
SIZES = [(48, 64), (72, 96), (96, 128), (216, 288), (53, 71), (97, 99), (30, 45), (24, 32)]
"""Factors 1, 1.5, 2, 4.5; odd; smaller."""
MATRIX = ((600.0, 300.0, 100.0), (-200.0, 500.0, -300.0), (400.0, -300.0, -100.0))
WAITS = {"aten._local_scalar_dense.default", "aten.item.default", "aten.nonzero.default", "aten.masked_select.default"}
"""Operations that wait for the host."""


def residual_of(height: int = FIELD[0], width: int = FIELD[1], seed: int = 0) -> NDArray[np.float32]:
    """Detail as of a dream: all frequencies, of about 30 grey levels."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    residual: NDArray[np.float32] = 0.3 * cv2().GaussianBlur(noise, (0, 0), 0.8) + 0.1 * noise
    return residual


def image_of(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(height: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).random((height, width, 1), dtype=np.float32)


def tensor(array: NDArray[np.float32]) -> Tensor:
    """[H, W, C] -> [1, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


def picture_of(pixel_format: str, color_range: int = 1, height: int = 96, width: int = 128) -> Any:
    picture: Any = av.VideoFrame.from_ndarray(image_of(height, width), "rgb24")
    converted = VideoReformatter().reformat(picture, format=pixel_format, dst_colorspace=1, dst_color_range=color_range)
    converted.colorspace, converted.color_range = 1, color_range
    return converted


def assert_same_samples(actual: Array, expected: Array, bits: int = 8) -> None:
    """Within a level of at most 12 bits, and but for 0.1 % of samples of 8 bits (or so many as are 0.1 % there)."""
    difference = np.abs(actual.astype(int) - expected.astype(int))
    changed = (difference > 0).mean()
    assert difference.max() <= max(1, 2 ** (bits - 12)), difference.max()
    assert changed <= 1e-3 * 2 ** (bits - 8), changed


@pytest.mark.parametrize("size", SIZES)
def test_a_dream_is_scaled_up_as_on_the_processor(size: tuple[int, int]) -> None:
    levels = residual_of() * np.float32(127.5)
    scaled = device_compose.upscale(tensor(levels), *size)
    np.testing.assert_allclose(scaled[0].permute(1, 2, 0).numpy(), upscale(levels, *size), atol=0.01)


@pytest.mark.parametrize("size", [*SIZES, (60, 40), (30, 90)])
def test_tensors_are_resized_as_arrays(size: tuple[int, int]) -> None:
    picture = residual_of() * np.float32(127.5)
    for resized, kind in ((device_resize.resize_area, cv2().INTER_AREA),
                          (device_resize.resize_linear, cv2().INTER_LINEAR),
                          (device_resize.resize_cubic, cv2().INTER_CUBIC)):
        expected = cv2().resize(picture, size[::-1], interpolation=kind)
        np.testing.assert_allclose(resized(tensor(picture), *size)[0].permute(1, 2, 0).numpy(), expected, atol=0.01)
    np.testing.assert_allclose(device_resize.resize(tensor(picture), *size)[0].permute(1, 2, 0).numpy(),
                               resize.resize(picture, *size), atol=0.01)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("original_colors", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_rgb_is_composed_as_on_the_processor(size: tuple[int, int], original_colors: bool, masked: bool) -> None:
    image, residual, mask = image_of(*size), residual_of(), mask_of(*size) if masked else None
    expected = compose_image(image, to_luma(residual) if original_colors else residual, 0.7, mask)
    dream = device_compose.compose_rgb(torch.from_numpy(image)[None], tensor(residual), torch.full((1, 1, 1, 1), 0.7),
                                       None if mask is None else tensor(mask), original_colors)
    assert dream.dtype == torch.uint8 and dream.is_contiguous()
    assert_same_samples(dream[0].numpy(), expected)


def test_streams_of_a_batch_have_their_own_strength() -> None:
    images, residuals = [image_of(96, 128)] * 3, [residual_of(seed=seed) for seed in range(3)]
    strengths = 0.0, 0.5, 1.0
    batch = torch.cat([*map(tensor, residuals)]).contiguous(memory_format=torch.channels_last)  # as steps leave it
    dreams = device_compose.compose_rgb(torch.from_numpy(np.stack(images)), batch,
                                        torch.tensor(strengths).view(3, 1, 1, 1))
    for dream, image, residual, strength in zip(dreams, images, residuals, strengths, strict=True):
        assert_same_samples(dream.numpy(), compose_image(image, residual, strength))


@pytest.mark.parametrize("size", [(48, 64), (540, 960)])
def test_where_nothing_is_dreamed_rgb_stays_bit_for_bit(size: tuple[int, int]) -> None:
    """In each pixel of a picture large enough to have every threshold of the dither, for every sample."""
    for image in (image_of(*size), np.full((*size, 3), 255, np.uint8), np.full((*size, 3), 0, np.uint8)):
        for residual, strength in ((residual_of(), 0.0), (residual_of() * 0, 1.0)):
            dream = device_compose.compose_rgb(torch.from_numpy(image)[None], tensor(residual), strength)
            np.testing.assert_array_equal(dream[0].numpy(), image)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuva420p", "yuv420p10le",
                                          "yuv422p10le", "yuv444p12le", "yuv444p16le", "gbrp", "gbrp10le", "gbrap16le"])
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_pictures_are_composed_as_on_the_processor(pixel_format: str, color_range: int, masked: bool) -> None:
    picture, residual, mask = picture_of(pixel_format, color_range), residual_of(), mask_of(96, 128) if masked else None
    expected = compose_picture(picture, residual, 0.7, mask)
    dreamed = compose_on_device(picture, tensor(residual), 0.7, None if mask is None else tensor(mask)).result()
    assert (dreamed.format.name, dreamed.width, dreamed.height) == (pixel_format, 128, 96)
    assert (dreamed.colorspace, dreamed.color_range) == (expected.colorspace, expected.color_range)
    for actual, wanted in zip(component_views(dreamed), component_views(expected), strict=True):
        assert_same_samples(actual, wanted, picture.format.components[0].bits)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "gbrp"])
@pytest.mark.parametrize("size", [(96, 128), (77, 111), (49, 63), (30, 44)])
def test_pictures_of_odd_sizes_and_sums_beyond_the_range(pixel_format: str, size: tuple[int, int]) -> None:
    picture, residual = picture_of(pixel_format, 1, *size), residual_of() * 4
    before = [view.copy() for view in component_views(picture)]
    dreamed = compose_on_device(picture, tensor(residual)).result()
    expected = compose_picture(picture, residual)
    for actual, wanted, old, now in zip(*map(component_views, (dreamed, expected)), before, component_views(picture),
                                        strict=True):
        assert_same_samples(actual, wanted)
        np.testing.assert_array_equal(now, old)  # the decoder may refer to it


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv444p16le", "gbrp", "gbrap"])
def test_where_nothing_is_dreamed_the_samples_stay(pixel_format: str) -> None:
    picture = picture_of(pixel_format, height=256, width=256)
    dreamed = compose_on_device(picture, tensor(residual_of()), 0.0).result()
    for old, new in zip(component_views(picture), component_views(dreamed), strict=True):
        np.testing.assert_array_equal(new, old)


def test_original_colours_keep_chroma() -> None:
    picture, residual = picture_of("yuv420p10le"), residual_of()
    expected = component_views(compose_picture(picture, to_luma(residual), 0.7))
    pending = compose_on_device(picture, tensor(residual), 0.7, original_colors=True)
    dreamed = component_views(pending.result())
    for actual, wanted in zip(dreamed, expected, strict=True):
        assert_same_samples(actual, wanted)
    assert np.abs(dreamed[1].astype(int) - component_views(picture)[1]).max() <= 1
    assert np.abs(dreamed[0].astype(int) - component_views(picture)[0]).mean() > 8


@pytest.mark.parametrize("original_colors", [False, True])
def test_the_page_gets_the_same_residual(original_colors: bool) -> None:
    image, residual = image_of(*FIELD), residual_of()
    settings = DreamSettings(flow="none", strength=0.7, original_colors=original_colors)
    expected = split_residual(compositor.prepare_residual(residual, image), image, settings)
    halves = device_compose.residual_levels(tensor(residual), 0.7, original_colors=original_colors)
    assert halves.shape == (1, 2 * FIELD[0], FIELD[1], 3) and halves.dtype == torch.uint8
    assert np.abs(halves[0].numpy().astype(int) - expected).max() <= 1  # the processor rounds twice


def test_what_is_compiled_for_a_layout_always_gets_the_same_shapes() -> None:
    """A CUDA graph has them fixed."""
    shapes: dict[object, set[object]] = {}

    def compiled(layout: PlaneLayout) -> Callable[..., Tensor]:
        def compose(*inputs: Tensor) -> Tensor:
            shapes.setdefault(layout, set()).add(tuple((value.shape, value.dtype) for value in inputs))
            return compose_samples(layout, *inputs)

        return compose

    cases = [(pixel_format, height, field, mask) for pixel_format in ("yuv420p", "yuv444p", "yuv420p10le", "gbrp")
             for height in (96, 98) for field in (24, 48) for mask in (None, torch.ones(1, 1, height, 128))]
    for pixel_format, height, field, mask in cases:
        picture = picture_of(pixel_format, height=height)
        for original_colors in (False, True):
            compose_on_device(picture, tensor(residual_of(field)), 0.7, mask, original_colors, compiled).result()
    assert len(shapes) == 2 * len(cases) and all(len(seen) == 1 for seen in shapes.values())


def test_only_gpus_compose_and_only_sdr() -> None:
    picture, hdr = picture_of("yuv420p"), picture_of("yuv420p10le")
    hdr.color_trc = 16  # PQ
    gpu = torch.device("cuda", 0)
    assert [pays(*case) for case in ((picture, gpu), (hdr, gpu), (picture, CPU))] == [True, False, False]


# --- as a part of a graph ---------------------------------------------------------------------------------------------

def frame(image: Tensor, residual: Tensor, strength: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return (device_compose.compose_rgb(image, residual, strength, mask),
            device_compose.residual_levels(residual, strength, original_colors=True))


def planes(luma: Tensor, chroma: Tensor, residual: Tensor, strength: Tensor) -> list[Tensor]:
    return device_compose.compose_planes([luma, chroma], residual, strength, MATRIX, 1023)


INPUTS: dict[Callable[..., Any], Callable[[], tuple[Tensor, ...]]] = {
    frame: lambda: (torch.from_numpy(image_of(108, 144))[None], tensor(residual_of()), torch.full((1, 1, 1, 1), 0.7),
                    tensor(mask_of(108, 144))),
    planes: lambda: (*(torch.randint(0, 1024, size).to(torch.uint16) for size in ((1, 108, 144), (2, 54, 72))),
                     tensor(residual_of()), torch.full((1, 1, 1, 1), 0.7)),
}


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operations that wait for the host."""

    found: ClassVar[list[str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) in WAITS:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("work", [frame, planes])
def test_nothing_waits_for_the_host_and_the_work_can_be_traced(work: Callable[..., Any]) -> None:
    inputs = INPUTS[work]()
    Waits.found.clear()
    with Waits():  # type: ignore[no-untyped-call]
        expected = work(*inputs)
    assert not Waits.found
    traced = make_fx(work)(*inputs)
    for actual, wanted in zip(traced(*inputs), expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.soak  # a whole frame in ONNX Runtime (test_onnx.py) holds it, too
def test_rgb_is_composed_in_onnx() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Frame(torch.nn.Module):
        def forward(self, image: Tensor, residual: Tensor, strength: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return frame(image, residual, strength, mask)

    inputs = INPUTS[frame]()
    expected = frame(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated parts of PyTorch
        program = torch.onnx.export(torch.export.export(Frame(), inputs, strict=False), dynamo=True, opset_version=20)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    results = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    for actual, wanted in zip(results, expected, strict=True):
        assert_same_samples(actual, wanted.numpy())


# --- to the device and back -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int16])
def test_arrays_go_to_the_device_and_back(dtype: Any) -> None:
    array = np.random.default_rng(0).integers(0, 255, (7, 5, 3)).astype(dtype)
    sent = upload(array, CPU)
    expected = array.copy()
    array[:] = 0  # whoever made it may use it again
    np.testing.assert_array_equal(Download(sent).result(), expected)
    assert Download(sent).result().dtype == dtype


def test_strided_views_are_uploaded_and_transposed_tensors_downloaded() -> None:
    rows = np.arange(60, dtype=np.uint8).reshape(6, 10)
    rows.flags.writeable = False
    sent = upload_flat([rows[:, :7], rows[:2]], CPU)
    np.testing.assert_array_equal(sent.numpy(), np.concatenate([rows[:, :7].ravel(), rows[:2].ravel()]))
    np.testing.assert_array_equal(Download(sent[:42].view(6, 7).T).result(), rows[:, :7].T)
    mixed = upload_all([rows[:, :7], np.full((1, 1), 1.5, np.float32)], CPU)
    np.testing.assert_array_equal(mixed[0].numpy(), rows[:, :7])
    assert mixed[1].shape == (1, 1) and mixed[1].item() == 1.5


def test_a_constant_is_uploaded_once_and_freed_with_its_array() -> None:
    array = np.ones(5, np.float32)
    sent = upload_constant(array, CPU)
    assert upload_constant(array, CPU) is sent
    kept = weakref.ref(sent)
    del sent, array
    assert kept() is None


def test_frames_of_several_threads_are_in_flight() -> None:
    wrong: list[int] = []

    def run(number: int) -> None:
        pending = []
        for index in range(20):
            array = np.full((16, 16), 20 * number + index, np.uint16)
            pending.append((array, Download(upload(array, CPU) + 0.0)))
            if len(pending) == 3:
                expected, download = pending.pop(0)
                if not np.array_equal(download.result(), expected):
                    wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_check_for_gpus_passes_here() -> None:
    rows = list(device_check.run(CPU, (54, 96), 2))
    assert all(row["passed"] for row in rows), rows
    assert {"rgb", "yuv420p", "gbrp", "frames in flight", "yuv420p, two in flight"} <= {row["check"] for row in rows}
