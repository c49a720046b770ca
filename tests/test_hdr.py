"""HDR (PQ and HLG): the SDR copy that is dreamed on, the dream in HDR's own samples, and the static metadata."""
from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.hdr_clips import HLG, METADATA, PQ, hdr_picture, scene, write_clip

from streamdream.media.compose import compose_image, compose_picture
from streamdream.media.hdr_metadata import dynamic_metadata, static_metadata
from streamdream.media.planes import component_views
from streamdream.media.sources.video import open_source
from streamdream.media.tone_mapping import is_hdr, tone_map_picture, tone_mapped_rgb

SAMPLES = {PQ: {0.0: 0.0, 100.0: 0.5081, 203.0: 0.5807, 1000.0: 0.7518, 4000.0: 0.9026, 10000.0: 1.0},
           HLG: {0.0: 0.0, 203.0: 0.7499, 1000.0: 1.0}}
"""ITU-R BT.2100 and BT.2408: cd/m² of grey -> its signal."""
SDR_AT_203 = {PQ: 226, HLG: 228}
"""The level of reference white in SDR."""


def residual_of(height: int = 135, width: int = 240) -> NDArray[np.float32]:
    coarse = np.random.default_rng(2).standard_normal((height // 6, width // 6, 3)).astype(np.float32)
    return 0.2 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def shown(picture: Any) -> NDArray[np.int64]:
    """As an SDR screen shows it."""
    return tone_mapped_rgb(picture, picture.width, picture.height).astype(int)


def test_the_samples_of_the_recommendations_get_their_light() -> None:
    for trc, samples in SAMPLES.items():
        signals = np.repeat(np.array([list(samples.values())])[..., None], 3, axis=2)
        levels = shown(hdr_picture(signals.repeat(2, 0).repeat(2, 1), trc, "yuv444p12le"))[0, ::2]
        assert (np.ptp(levels, axis=1) <= 1).all(), levels  # grey stays grey
        by_light = dict(zip(samples, levels[:, 0], strict=True))
        assert by_light[0.0] == 0 and abs(by_light[203.0] - SDR_AT_203[trc]) <= 1, by_light
        assert by_light.get(100.0, 190) in (189, 190)  # at the knee: 255 (100 / 203)^(1 / 2.4)
        assert levels[-1, 0] == 255 and (np.diff(levels[:, 0]) > 0).all(), by_light


def test_saturated_colours_keep_their_order_and_hue() -> None:
    """BT.2020's own primaries lie outside of BT.709: nothing wraps, nothing turns grey."""
    for trc in (PQ, HLG):
        primaries = np.eye(3)[None].repeat(8, 0).repeat(8, 1) * 0.5
        levels = shown(hdr_picture(primaries, trc, "yuv444p10le"))[4, [4, 12, 20]]
        assert (levels.argmax(1) == [0, 1, 2]).all() and (levels.min(1) < 20).all(), levels
        assert (levels.max(1) > 60).all(), levels


@pytest.mark.parametrize("trc", [PQ, HLG])
@pytest.mark.parametrize(("pixel_format", "color_range"), [
    ("yuv420p10le", 1), ("yuv420p10le", 2), ("yuv422p12le", 1), ("yuv444p10le", 1), ("yuva444p10le", 1), ("yuv420p", 1)
])
def test_an_hdr_dream_looks_as_the_sdr_dream(trc: int, pixel_format: str, color_range: int) -> None:
    picture, residual = hdr_picture(scene(trc), trc, pixel_format, color_range), residual_of()
    before = shown(picture)
    expected = compose_image(before.astype(np.uint8), residual, 0.8).astype(int)
    dreamed = compose_picture(picture, residual, 0.8)
    below_knee = (before.max(-1) < 190) & (expected.max(-1) < 190)
    assert below_knee.mean() > 0.5 and np.abs(expected - before)[below_knee].mean() > 10
    difference = np.abs(shown(dreamed) - expected)
    assert difference[below_knee].mean() < 4, difference[below_knee].mean()
    assert difference.mean() < 6, difference.mean()
    assert dreamed.format.name == pixel_format and dreamed.color_trc == trc and dreamed.pts == 3


@pytest.mark.parametrize("trc", [PQ, HLG])
@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p10le", "yuv444p12le", "yuva444p10le"])
def test_where_nothing_is_dreamed_hdr_stays_bit_for_bit(trc: int, pixel_format: str) -> None:
    picture = hdr_picture(scene(trc), trc, pixel_format)
    component_views(picture)[0][:4, :8] = np.arange(8) * 9  # samples below black, and the highest ones
    component_views(picture)[0][:4, 8:16] = (1 << picture.format.components[0].bits) - 1
    residual = residual_of()
    for unchanged in (compose_picture(picture, residual, 0.0), compose_picture(picture, residual * 0)):
        for old, new in zip(component_views(picture), component_views(unchanged), strict=True):
            np.testing.assert_array_equal(old, new)
    residual[:, 120:] = 0
    half = compose_picture(picture, residual)
    for old, new in zip(component_views(picture), component_views(half), strict=True):
        start = old.shape[1] * 9 // 16  # some pixels from the edge: the residual is scaled up
        np.testing.assert_array_equal(old[:, start:], new[:, start:])
    assert not np.array_equal(component_views(half)[0], component_views(picture)[0])
    masked = compose_picture(picture, residual, 1.0, np.zeros((270, 480, 1), np.float32))
    for old, new in zip(component_views(picture), component_views(masked), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("trc", [PQ, HLG])
def test_highlights_neither_explode_nor_vanish(trc: int) -> None:
    """A grey ramp up to the peak, and dreams that brighten or darken all of it."""
    ramp = np.linspace(0, 1, 512)[None, :, None].repeat(32, 0).repeat(3, 2)
    picture = hdr_picture(ramp, trc)
    luma = component_views(picture)[0][16].astype(int)
    white = int(np.interp(SAMPLES[trc][203.0], [0, 1], [64, 940]))
    residuals = [np.full((16, 256, 3), value, np.float32) for value in (-0.4, -0.2, -0.1, 0.1, 0.2, 0.4)]
    changed = [component_views(compose_picture(picture, residual))[0][16].astype(int) for residual in residuals]
    for darker, lighter in pairwise(changed):
        assert (darker <= lighter + 1).all()
    for result in changed:
        assert (np.diff(result[8:-8]) >= -3).all()  # a ramp stays a ramp
    brighter = changed[-1] - luma
    assert brighter[luma >= white].max() < 140, brighter[luma >= white].max()  # 640 cd/m², whatever is dreamed
    assert brighter[luma > white + 150].max() < 30  # what is far above SDR white gets no brighter
    darker = luma - changed[0]
    assert (darker[luma > white] > 20).all()  # the dream is seen there
    assert changed[0][luma == luma.max()].max() > white  # and they are still highlights


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p10le", "yuv444p12le", "p010le", "yuva444p10le"])
def test_a_whole_picture_becomes_sdr(pixel_format: str) -> None:
    planar = {"p010le": "yuv420p10le"}.get(pixel_format, pixel_format)
    picture = hdr_picture(scene(HLG, 269, 479), HLG, planar)
    expected = shown(picture)
    if planar != pixel_format:
        tags = picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range
        picture = picture.reformat(format=pixel_format)
        picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range = tags
        picture.pts = 3
    sdr = tone_map_picture(picture)
    assert (sdr.width, sdr.height, sdr.format.name, sdr.pts) == (479, 269, "yuv420p", 3)
    assert (sdr.colorspace, sdr.color_primaries, sdr.color_trc, sdr.color_range) == (1, 1, 1, 1)
    assert np.abs(sdr.to_ndarray(format="rgb24").astype(int) - expected).mean() < 3


def test_static_metadata_survive_as_encoder_parameters(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", [hdr_picture(scene(PQ, 48, 64), PQ)], METADATA.x265_params())
    with open_source(path) as source:
        assert source.hdr_metadata == METADATA
    with av.open(path) as container:
        picture = next(container.decode(video=0))
        assert static_metadata(picture) == METADATA and not dynamic_metadata(picture)
    assert METADATA.svtav1_params() == ("mastering-display=G(0.26500,0.69000)B(0.15000,0.06000)R(0.68000,0.32000)"
                                        "WP(0.31270,0.32900)L(1000.0000,0.0050):content-light=980,310")
    plain = write_clip(tmp_path / "plain.mp4", [hdr_picture(scene(PQ, 48, 64), PQ)])
    with open_source(plain) as source:
        assert source.hdr_metadata is None


def test_frames_of_hdr_have_an_sdr_image_and_their_own_samples(tmp_path: Path) -> None:
    for trc in (PQ, HLG):
        path = write_clip(tmp_path / "in.mp4", [hdr_picture(scene(trc, 96, 128), trc)], trc=trc)
        with open_source(path) as source:
            source.deliver_pictures(48, 64)
            frame = next(iter(source))
            assert is_hdr(source.color) and source.pixel_format == "yuv420p10le"
            assert frame.picture is not None and frame.picture.color_trc == trc
            assert frame.image.shape == (48, 64, 3)
            expected = tone_mapped_rgb(frame.picture, 64, 48).astype(int)
            assert np.abs(frame.image.astype(int) - expected).mean() < 1


def test_ten_bits_alone_are_not_hdr(tmp_path: Path) -> None:
    """SDR of BT.709 and of BT.2020 gets its matrix, and no tone curve."""
    for matrix, trc in ((1, 1), (9, 14)):
        grey = hdr_picture(np.full((48, 64, 3), 0.9), trc)
        grey.colorspace, grey.color_primaries = matrix, matrix
        path = tmp_path / f"{matrix}.mkv"
        with av.open(str(path), "w") as output:
            stream: Any = output.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
            context = stream.codec_context
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = matrix, matrix, trc, 1
            output.mux(stream.encode(grey))
            output.mux(stream.encode(None))
        with open_source(str(path)) as source:
            assert not is_hdr(source.color)
            assert abs(int(next(iter(source)).image.mean()) - 0.9 * 255) <= 2
