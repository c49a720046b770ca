"""Pixel formats, colours, HDR, transparency, and the shape of pictures and pixels."""
from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support.inputs.boxes import edit_clean_aperture
from support.inputs.chart import SIZE, Box, chart
from support.inputs.row import Input, made, whole
from support.inputs.write import (
    BT470BG,
    BT601,
    BT709,
    BT2020,
    FULL,
    HLG,
    PQ,
    Color,
    Sound,
    Video,
    write,
)

HDR_PARAMETERS = "colorprim=bt2020:colormatrix=bt2020nc:transfer="
MASTERING = ("master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):"
             "max-cll=1000,400:hdr10=1")
TURNED: Box = (0.5 - 1 / 4.5, 0, 0.5 + 1 / 4.5, 1)
"""Where a chart of 64x96 lies in a picture of 96x64."""


def hdr(transfer: str, color: Color, more: str = "", **video: object) -> Video:
    parameters = ":".join(filter(None, (HDR_PARAMETERS + transfer, more)))
    return Video("libx265", "yuv420p10le", color=color, options={"x265-params": parameters}, **video)  # type: ignore[arg-type]


def ghost(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGBA: the chart, whose left half is transparent."""
    picture = chart(number, size)
    opacity = np.full((*picture.shape[:2], 1), 255, np.uint8)
    opacity[:, : size[0] // 2] = 0
    return np.concatenate((picture, opacity), axis=2)


def turned(path: Path) -> None:
    """A phone that was turned while it recorded into a transport stream."""
    _joined(path, Video(frames=6), Video(frames=6, first=6, size=SIZE[::-1], picture=_scaled_chart))


def zoomed(path: Path) -> None:
    """The second half has twice as many pixels."""
    _joined(path, Video(frames=6), Video(frames=6, first=6, size=(192, 128)))


def _scaled_chart(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return chart(number, size)


def _joined(path: Path, *parts: Video) -> None:
    data, seconds = b"", 0.0
    for number, part in enumerate(parts):
        piece = path.with_name(f"{number}.ts")
        write(piece, replace(part, options={"bf": "0"}), output_ts_offset=str(seconds))
        data += piece.read_bytes()
        piece.unlink()
        seconds += float(part.frames / part.rate)
    path.write_bytes(data)


def grey(pixels: str, kind: str) -> Input:
    """A row for grey pictures, which get chroma since a dream has colours."""
    return Input(f"{pixels}.mkv", kind, "4:4:4, the luma bit for bit with `-c:v ffv1`", made(Video("ffv1", pixels)),
                 "mkv", ("-c:v", "ffv1"), {"frames": 12, "grey": True, "rate": 25}, core=True)


def ffv1(pixels: str, kind: str, **video: object) -> Input:
    """A row for a pixel format: bit for bit, whatever it is."""
    return Input(f"{pixels}.mkv", kind, "bit for bit with `-c:v ffv1`",
                 made(Video("ffv1", pixels, **video)), "mkv", ("-c:v", "ffv1"),  # type: ignore[arg-type]
                 {"frames": 12, "lossless": True, "pixels": (pixels,), "rate": 25},
                 core=pixels == "yuva420p")


PIXELS = [
    ffv1("yuv422p", "8 bit, 4:2:2"), ffv1("yuv444p", "8 bit, 4:4:4"), ffv1("yuv411p", "8 bit, 4:1:1, as of NTSC DV"),
    ffv1("yuv410p", "8 bit, 4:1:0"), ffv1("yuv440p", "8 bit, 4:4:0"), ffv1("yuv420p10le", "10 bit, 4:2:0"),
    ffv1("yuv422p10le", "10 bit, 4:2:2"), ffv1("yuv444p12le", "12 bit, 4:4:4"), grey("gray", "8 bit, grey"),
    grey("gray16le", "16 bit, grey"), ffv1("bgr0", "RGB"),
    ffv1("gbrp10le", "10 bit, RGB in planes"), ffv1("gbrp16le", "16 bit, RGB in planes"),
    ffv1("bgra", "RGB with alpha", picture=ghost), ffv1("yuva420p", "4:2:0 with alpha", picture=ghost),
    ffv1("yuva444p10le", "10 bit, 4:4:4 with alpha", picture=ghost),
]
TAGS = [
    Input("bt709.mp4", "BT.709, as of cameras", "the colours and their tags stay", made(Video(color=BT709)),
          holds=whole(tagged="bt709")),
    Input("bt601.mp4", "BT.601, of NTSC", "the colours and their tags stay", made(Video(color=BT601)),
          holds=whole(tagged="bt601")),
    Input("bt470bg.mp4", "BT.601, of PAL", "the colours and their tags stay", made(Video(color=BT470BG)),
          holds=whole(tagged="bt470bg")),
    Input("bt2020.mp4", "BT.2020 without HDR", "the colours and their tags stay", made(Video(color=BT2020)),
          holds=whole(tagged="bt2020")),
    Input("full.mp4", "the full range of a phone", "the colours stay", made(Video("libx264", "yuvj420p", color=FULL)),
          holds=whole()),
    Input("untagged.mp4", "no colour tags, 1280 wide: players take BT.709", "no tags, or BT.709",
          made(Video(size=(1280, 96), frames=3, color=BT709, tagged=False)),
          holds=whole(frames=3, numbers=range(3), duration=0.12, tagged=("untagged", "bt709")), core=True),
    Input("small-untagged.mp4", "no colour tags, small: players take BT.601", "no tags, or BT.601",
          made(Video(tagged=False)), holds=whole(tagged=("untagged", "bt601", "bt470bg")), core=True),
    Input("high10.mp4", "10 bit, not HDR", "the colours stay", made(Video(pixels="yuv420p10le", color=BT709)),
          holds=whole(tagged="bt709")),
    Input("high422.mp4", "4:2:2 of a camera", "4:2:0, which players know, or 4:2:2",
          made(Video(pixels="yuv422p10le", color=BT709)), holds=whole(tagged="bt709")),
    Input("screen444.mp4", "4:4:4 of a screen recorder", "the colours stay", made(Video(pixels="yuv444p")),
          holds=whole()),
    Input("screen-rgb.mkv", "RGB H.264 of a screen recorder", "the colours stay",
          made(Video("libx264rgb", "rgb24", options={"crf": "6"})), holds=whole()),
]
HDR = [
    Input("hlg.mov", "HLG of a phone, 10 bit", "HDR stays: 10 bit with its tags, HEVC", made(hdr("arib-std-b67", HLG)),
          holds=whole(hdr="hlg", codec="hevc", tag="hvc1"), core=True),
    Input("hlg.mov", "the same", "with `--sdr` mapped to BT.709, and said", made(hdr("arib-std-b67", HLG)), "mp4",
          ("--sdr",), whole(colors=None, hdr="mapped", says=("HLG|HDR|SDR|tone",))),
    Input("hlg.mov", "the same", "mapped to BT.709 for an encoder of 8 bits, and said",
          made(hdr("arib-std-b67", HLG)), "mp4", ("-c:v", "libx264"),
          whole(colors=None, hdr="mapped", says=("HLG|HDR|SDR|tone",))),
    Input("hlg.mov", "the same", "HDR stays where the encoder has 10 bits", made(hdr("arib-std-b67", HLG)), "mov",
          ("-c:v", "prores_ks"), whole(hdr="hlg")),
    Input("hlg.mov", "the same", "HDR, or mapped and said", made(hdr("arib-std-b67", HLG)), "webm",
          holds={"either": (whole(hdr="hlg"), whole(colors=None, hdr="mapped", says=("HLG|HDR|SDR|tone",)))}),
    Input("hlg.mov", "the same", "mapped to SDR: a GIF holds no HDR", made(hdr("arib-std-b67", HLG)), "gif",
          holds={"frames": 12, "upright": True, "says": ("HLG|HDR|SDR|tone",)}),
    Input("pq.mp4", "HDR10: PQ with static metadata", "HDR and its metadata stay",
          made(hdr("smpte2084", PQ, MASTERING)), holds=whole(hdr="pq", codec="hevc", mastering=True), core=True),
    Input("pq.mp4", "the same", "FFV1, bit for bit", made(hdr("smpte2084", PQ, MASTERING)), "mkv", ("-c:v", "ffv1"),
          whole(hdr="pq", lossless=True, says=("light level",))),
    Input("pq8.mkv", "PQ with 8 bits", "HDR stays, with 10 bits", made(Video("ffv1", "yuv420p", color=PQ)),
          holds=whole(hdr="pq")),
    Input("pq12.mkv", "PQ with 12 bits", "HDR stays", made(Video("ffv1", "yuv420p12le", color=PQ)),
          holds=whole(hdr="pq")),
]
ALPHA = [
    Input("alpha.mov", "transparency in ProRes 4444", "flattened, and said",
          made(Video("prores_ks", "yuva444p10le", picture=ghost, options={"profile": "4444"})),
          holds={"frames": 12, "rate": 25, "opaque_colors": 12, "alpha": (1, 1),
                 "says": ("alpha|transparen|flatten",)}, core=True),
    Input("alpha.mov", "the same", "kept in ProRes 4444",
          made(Video("prores_ks", "yuva444p10le", picture=ghost, options={"profile": "4444"})), "mov",
          ("-c:v", "prores_ks"), {"frames": 12, "rate": 25, "opaque_colors": 12, "alpha": (0, 1)}, core=True),
    Input("alpha.mov", "the same", "kept in PNG pictures",
          made(Video("prores_ks", "yuva444p10le", picture=ghost, options={"profile": "4444"})), "out_%03d.png",
          holds={"frames": 12, "opaque_colors": 12, "alpha": (0, 1)}),
    Input("overlay.mov", "transparency in QuickTime Animation", "kept in QuickTime Animation",
          made(Video("qtrle", "argb", picture=ghost)), "mov", ("-c:v", "qtrle"),
          {"frames": 12, "rate": 25, "opaque_colors": 4, "alpha": (0, 1)}),
    Input("overlay-png.mov", "transparency in PNG", "flattened, and said", made(Video("png", "rgba", picture=ghost)),
          "webm", holds={"frames": 12, "opaque_colors": 12, "says": ("alpha|transparen|flatten",)}),
]
SHAPES = [
    Input("upright.mp4", "a phone held upright (turned by 90°)", "upright, without a tag that players may ignore",
          made(Video(size=(96, 64), picture=lambda number, size: np.ascontiguousarray(
              np.rot90(chart(number, size[::-1]), 1)), rotation=(-90, False, False)), Sound()),
          holds=whole(size=(64, 96), sound_copied=(0,)), core=True),
    Input("left.mp4", "turned by 270°", "upright",
          made(Video(picture=lambda number, size: np.ascontiguousarray(np.rot90(chart(number, size[::-1]), -1)),
                     rotation=(90, False, False))), holds=whole(size=(64, 96))),
    Input("upside-down.mp4", "turned by 180°", "upright",
          made(Video(picture=lambda number, size: np.ascontiguousarray(chart(number, size)[::-1, ::-1]),
                     rotation=(180, False, False))), holds=whole(size=SIZE)),
    Input("mirrored.mp4", "a front camera's mirrored picture", "as it was seen",
          made(Video(picture=lambda number, size: np.ascontiguousarray(chart(number, size)[:, ::-1]),
                     rotation=(0, True, False))), holds=whole(size=SIZE)),
    Input("turned.ts", "a phone that was turned while it recorded", "both halves upright, the second with bars",
          turned, holds={"frames": 12, "rate": 25, "size": SIZE, "fitted": ((0, (0, 0, 1, 1)), (11, TURNED)),
                         "says": ("size",)}, core=True),
    Input("zoomed.ts", "a stream whose size grows on the way", "one size", zoomed,
          holds=whole(size=SIZE, says=("size",))),
    Input("anamorphic.mp4", "pixels that are not square", "the shape of the pixels stays",
          made(Video(aspect=Fraction(64, 45))), holds=whole(aspect=Fraction(64, 45)), core=True),
    Input("anamorphic-upright.mp4", "pixels that are not square, turned", "the shape of the pixels is turned, too",
          made(Video(picture=lambda number, size: np.ascontiguousarray(np.rot90(chart(number, size[::-1]), 1)),
                     rotation=(-90, False, False), aspect=Fraction(4, 3))),
          holds=whole(size=(64, 96), aspect=Fraction(3, 4))),
    Input("odd.avi", "sides that are odd numbers", "whole", made(Video("mjpeg", "yuvj444p", size=(97, 65), color=FULL)),
          holds=whole(may_say=("even",)), core=True),
    Input("tiny.mp4", "16x16 pixels", "whole", made(Video(size=(16, 16))),
          holds={"frames": 12, "rate": 25, "size": (16, 16)}),
    Input("banner.mp4", "very wide", "whole", made(Video(size=(640, 32))),
          holds=whole(size=(640, 32))),
    Input("clap.mov", "a clean aperture, as of Apple's cameras", "cropped to it, or said", edit_clean_aperture,
          holds={"frames": 12, "rate": 25, "clean_aperture": (80, 48),
                 "may_say": ("clean aperture|clap|crop",)}),
]
ROWS = [*PIXELS, *TAGS, *HDR, *ALPHA, *SHAPES]
