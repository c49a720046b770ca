"""The dream is added in the samples of the picture: every pixel format, exact where nothing is dreamed."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from streamdream.media.compose import compose_image, compose_picture
from streamdream.media.input_container import Rotation
from streamdream.media.planes import component_views, from_arrays, make_upright, to_arrays, to_planar, to_rgb
from streamdream.media.sources.video import open_source

PLANAR = ("yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv420p10le", "yuv422p12le", "yuv444p16le", "gbrp",
          "gbrp10le", "yuva420p", "yuva444p10le", "gbrap", "gbrap16le")
PACKED = ("rgb24", "bgr0", "rgba", "nv12", "p010le", "yuyv422", "uyvy422", "gray", "gray10le", "ya8", "pal8", "rgb48le",
          "rgba64be", "yuv420p10be", "gbrpf32le")
WHITE_SPOT = (slice(8, 16), slice(8, 16))


def texture(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Smooth, so that subsampled chroma loses little."""
    y, x = np.mgrid[0:height, 0:width] / 12
    channels = [128 + 60 * np.sin(x + phase) * np.cos(y - phase) for phase in (0.0, 1.0, 2.0)]
    return np.dstack(channels).astype(np.uint8)


def picture_of(image: NDArray[np.uint8], pixel_format: str, colorspace: int = 1, color_range: int = 1) -> Any:
    picture: Any = av.VideoFrame.from_ndarray(image, "rgb24")
    converted = VideoReformatter().reformat(picture, format=pixel_format, dst_colorspace=colorspace,
                                            dst_color_range=color_range)
    converted.colorspace, converted.color_range = colorspace, color_range
    return converted


def residual_of(height: int = 24, width: int = 32) -> NDArray[np.float32]:
    y, x = np.mgrid[0:height, 0:width] / 5
    return np.dstack([0.3 * np.sin(x), 0.3 * np.cos(y), 0.2 * np.sin(x + y)]).astype(np.float32)


@pytest.mark.parametrize("pixel_format", PLANAR)
def test_where_nothing_is_dreamed_the_samples_stay(pixel_format: str) -> None:
    picture = picture_of(texture(), pixel_format)
    result = compose_picture(picture, np.zeros((24, 32, 3), np.float32))
    assert result.format.name == pixel_format and result is not picture
    for old, new in zip(component_views(picture), component_views(result), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("pixel_format", PLANAR)
@pytest.mark.parametrize(("colorspace", "color_range"), [(1, 1), (6, 1), (9, 1), (1, 2)])
def test_the_sum_looks_as_in_rgb(pixel_format: str, colorspace: int, color_range: int) -> None:
    picture = picture_of(texture(), pixel_format, colorspace, color_range)
    before = [view.copy() for view in component_views(picture)]
    shown = to_rgb(compose_picture(picture, residual_of(), 0.8)).astype(int)
    expected = compose_image(to_rgb(picture), residual_of(), 0.8).astype(int)
    tolerance = 2.5 if any(part in pixel_format for part in ("420", "422", "440", "411")) else 1.0
    assert np.abs(shown - expected).mean() < tolerance, np.abs(shown - expected).mean()
    assert np.abs(expected - to_rgb(picture)).mean() > 8
    for old, now in zip(before, component_views(picture), strict=True):
        np.testing.assert_array_equal(old, now)  # the decoder may refer to it


@pytest.mark.parametrize("pixel_format", ["yuva420p", "yuva444p10le", "gbrap"])
def test_transparency_is_not_touched(pixel_format: str) -> None:
    picture = picture_of(texture(), pixel_format)
    alpha = component_views(picture)[3]
    alpha[:] = np.arange(alpha.size, dtype=alpha.dtype).reshape(alpha.shape)
    np.testing.assert_array_equal(component_views(compose_picture(picture, residual_of()))[3], alpha)


def test_a_mask_is_obeyed_in_every_component() -> None:
    picture = picture_of(texture(), "yuv420p")
    mask = np.zeros((48, 64, 1), np.float32)
    mask[:, 32:] = 1
    old, new = component_views(picture), component_views(compose_picture(picture, residual_of(), 1.0, mask))
    for before, after in zip(old, new, strict=True):
        half = before.shape[1] // 2
        np.testing.assert_array_equal(before[:, :half], after[:, :half])
        assert (before[:, half:] != after[:, half:]).mean() > 0.5


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "gbrp"])
def test_sums_beyond_black_and_white_saturate(pixel_format: str) -> None:
    picture = picture_of(texture(), pixel_format)
    for sign in (-1, 1):
        luma = component_views(compose_picture(picture, np.full((24, 32, 3), 2.0 * sign, np.float32)))[0]
        assert np.all(luma == (0 if sign < 0 else (1 << picture.format.components[0].bits) - 1))


@pytest.mark.parametrize("pixel_format", PACKED)
def test_every_other_format_becomes_planar_without_loss(pixel_format: str) -> None:
    convert = VideoReformatter().reformat
    picture = picture_of(texture(), pixel_format if pixel_format != "pal8" else "rgb8")
    if pixel_format.startswith(("gray", "ya")):
        picture.color_range = 2  # swscale takes all grey for the full range
    planar = to_planar(picture, convert)
    assert len(component_views(planar)) >= 3
    difference = np.abs(to_rgb(planar).astype(int) - to_rgb(picture))
    assert difference.mean() < 1.5 and difference.max() <= 5  # swscale has fast paths, which round


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuva444p10le", "gbrp"])
@pytest.mark.parametrize("rotation", [Rotation(True), Rotation(True, True), Rotation(True, False, True),
                                      Rotation(False, True, True), Rotation(False, True)])
def test_pictures_are_turned_in_their_own_samples(pixel_format: str, rotation: Rotation) -> None:
    picture = picture_of(texture(), pixel_format)
    turned = make_upright(picture, rotation, VideoReformatter().reformat)
    expected = rotation(to_rgb(picture)).astype(int)
    assert np.abs(to_rgb(turned) - expected).mean() < 2.0


def test_a_picture_survives_as_plain_data() -> None:
    picture = picture_of(texture(), "yuva444p10le", 9, 1)
    again = from_arrays(to_arrays(picture))
    assert (again.format.name, int(again.colorspace), int(again.color_range)) == ("yuva444p10le", 9, 1)
    np.testing.assert_array_equal(to_rgb(again), to_rgb(picture))


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (47, 63)])
def test_a_source_gives_its_own_samples_and_an_image_of_the_size_of_the_field(tmp_path: Path, size: tuple[int, int]
                                                                             ) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv422p10le"
        for number in range(3):
            picture = picture_of(texture(), "yuv422p10le")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with open_source(str(path)) as source:
        assert source.pixel_format == "rgb24"
        source.deliver_pictures(*size)
        assert source.pixel_format == "yuv422p10le"
        frames = list(source)
    assert len(frames) == 3
    for frame in frames:
        assert frame.image.shape[:2] == size and frame.picture is not None
        for old, new in zip(component_views(picture_of(texture(), "yuv422p10le")), component_views(frame.picture),
                            strict=True):
            np.testing.assert_array_equal(old, new)
