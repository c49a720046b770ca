"""Photographs, sequences of pictures, and pictures that move."""
from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from support.inputs.chart import SIZE, Box, chart
from support.inputs.colors import TURNED, ghost
from support.inputs.heif import adobe_rgb, write_heic
from support.inputs.row import Input, Make

COUNT = 5
ORIENTATION = 274
"""EXIF tag."""
HELD_UPRIGHT = 6
"""EXIF: the stored picture is to be turned by 90° clockwise."""
PORTRAIT = SIZE[::-1]
PICTURES: dict[str, Any] = {"frames": COUNT, "numbers": range(COUNT), "rate": 25, "duration": 0.2, "colors": 10,
                            "upright": True}
STILL: dict[str, Any] = {"frames": 1, "colors": 10, "upright": True}
JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
Save = Callable[[Path, int], None]


def save(path: Path, number: int = 0, *, size: tuple[int, int] = SIZE, turned: bool = False, icc: bytes = b"",
         mode: str = "RGB", **options: Any) -> None:
    """A chart by Pillow, in the format of the name."""
    from PIL import Image

    picture = Image.fromarray(chart(number, size))
    if icc:
        picture = _converted(picture, icc)
        options["icc_profile"] = icc
    if turned:
        exif = Image.Exif()
        exif[ORIENTATION], exif[271] = HELD_UPRIGHT, "Canon"
        picture, options["exif"] = picture.transpose(Image.Transpose.ROTATE_90), exif
    picture.convert(mode).save(path, **options)


def _converted(picture: Any, icc: bytes) -> Any:
    from PIL import ImageCms

    srgb, other = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.profileToProfile(picture, srgb, other)


def sequence(numbers: Sequence[int] = range(1, COUNT + 1), save_one: Save | None = None, **more: Any) -> Make:
    """Pictures with these numbers in their names; the charts in them count from 0."""
    def make(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        for place, number in enumerate(numbers):
            file = path.with_name(path.name % number)
            if save_one:
                save_one(file, place)
            else:
                save(file, place, **more)

    return make


def one(**more: Any) -> Make:
    return lambda path: save(path, **more)


def folder(path: Path) -> None:
    path.mkdir()
    sequence()(path / "shot_%d.png")


def glob(path: Path) -> None:
    path.parent.mkdir()
    for number, name in enumerate(("anna", "berta", "clara", "dora", "emil")):
        save(path.with_name(f"{name}.png"), number)


def listed(path: Path) -> list[Path]:
    """Photographs with names of their own, one after the other."""
    path.mkdir()
    files = [path / f"{name}.png" for name in ("zoe", "anna", "mia", "ben", "tom")]
    for number, file in enumerate(files):
        save(file, number)
    return files


def mixed(file: Path, place: int) -> None:
    save(file, place, size=PORTRAIT if place == 3 else SIZE)


def deep(file: Path, place: int) -> None:
    """A PNG of 16 bits."""
    frame = av.VideoFrame.from_ndarray(chart(place).astype(np.uint16) * 257, "rgb48le").reformat(format="rgb48be")
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = *SIZE, "rgb48be", 1
    frame.pts = 0
    file.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))


def transparent(file: Path, place: int) -> None:
    from PIL import Image

    Image.fromarray(ghost(place, SIZE)).save(file)


def moving(count: int = 8, alpha: bool = False, **options: Any) -> Make:
    """An animation by Pillow, 80 ms a picture."""
    def make(path: Path) -> None:
        from PIL import Image

        strip = [Image.fromarray(ghost(number, SIZE) if alpha else chart(number)) for number in range(count)]
        strip[0].save(path, save_all=True, append_images=strip[1:], duration=80, loop=0, **options)

    return make


def moving_png(path: Path) -> None:
    moving()(path)


def disguised(kind: str) -> Make:
    """A picture of another kind than its name says."""
    def make(path: Path) -> None:
        hidden = path.with_suffix(f".{kind}")
        if kind == "heic":
            write_heic(hidden)
        else:
            save(hidden)
        hidden.rename(path)

    return make


def cut_off(path: Path) -> None:
    """A photograph cut off in copying."""
    from PIL import Image

    whole_file = io.BytesIO()
    Image.effect_mandelbrot((320, 200), (-2, -1, 1, 1), 60).convert("RGB").save(whole_file, "JPEG")
    path.write_bytes(whole_file.getvalue()[: len(whole_file.getvalue()) * 2 // 3])


def cmyk(path: Path) -> None:
    save(path, mode="CMYK", quality=95)


PROFILE = ("colours of .*sRGB",)
HEIC: dict[str, Any] = {"either": ({**STILL, "colors": 12}, {"refused": "pi-heif"})}
ANIMATED = {"frames": 8, "numbers": range(8), "rate": 12.5, "duration": 0.64, "colors": 10, "upright": True}
PARTLY_BARS: tuple[tuple[int, Box], ...] = ((0, (0, 0, 1, 1)), (3, TURNED), (4, (0, 0, 1, 1)))
SEQUENCES = [
    Input("photo_%03d.jpg", "photographs of a camera that was held upright", "upright, 25 a second",
          sequence(size=PORTRAIT, turned=True, **JPEG), holds={**PICTURES, "size": PORTRAIT}, core=True),
    Input("gap_%03d.png", "a sequence with a gap", "all pictures that are there", sequence((1, 2, 5, 6, 9)),
          holds={**PICTURES, "may_say": ("missing|gap|no picture",)}),
    Input("mixed_%03d.png", "pictures of several sizes", "the size of the first; the others with bars",
          sequence(save_one=mixed), holds={"frames": 5, "rate": 25, "size": SIZE, "fitted": PARTLY_BARS,
                                           "may_say": ("size",)}),
    Input("adobe_%03d.jpg", "photographs with an ICC profile", "their colours as meant, in sRGB",
          sequence(icc=adobe_rgb(), **JPEG), holds={**PICTURES, "may_say": PROFILE}),
    Input("shots_%d.png", "a sequence, as programs write it", "at `-r` pictures a second", sequence(), "mp4",
          ("-r", "10"), {**PICTURES, "rate": 10, "duration": 0.5}),
    Input("shots_%d.png", "the same", "as pictures again, bit for bit", sequence(), "out_%03d.png",
          holds={"frames": COUNT, "numbers": range(COUNT), "lossless": True}),
    Input("deep_%02d.png", "pictures of 16 bits", "16 bits", sequence(save_one=deep), "out_%03d.png",
          holds={"frames": COUNT, "numbers": range(COUNT), "lossless": True}),
    Input("scan_%02d.tif", "scans of a film", "25 a second", sequence(), holds=PICTURES),
    Input("bitmap_%02d.bmp", "bitmaps", "25 a second", sequence(), holds=PICTURES),
    Input("web_%02d.webp", "WebP pictures", "25 a second", sequence(lossless=True), holds=PICTURES),
    Input("clear_%02d.png", "pictures with transparency", "flattened, and said", sequence(save_one=transparent),
          holds={"frames": COUNT, "rate": 25, "opaque_colors": 10, "says": ("alpha|transparen|flatten",)}),
    Input("clear_%02d.png", "the same", "kept in PNG", sequence(save_one=transparent), "out_%03d.png",
          holds={"frames": COUNT, "opaque_colors": 4, "alpha": (0, 1)}),
    Input("shots", "a folder of pictures", "in the order of their names, at `-r` pictures a second", folder, "mp4",
          ("-r", "10"), {**PICTURES, "rate": 10, "duration": 0.5}),
    Input("shots/*.png", "a part of a folder", "in the order of their names", glob, "mp4", ("-r", "10"),
          {**PICTURES, "rate": 10, "duration": 0.5}),
    Input("holiday", "a list of pictures", "in the order in which they are named", listed, "mp4", ("-r", "10"),
          {**PICTURES, "rate": 10, "duration": 0.5}),
]
ANIMATIONS = [
    Input("moving.webp", "a WebP that moves", "eight pictures, each at its time", moving(lossless=True),
          holds=ANIMATED, core=True),
    Input("moving.gif", "a GIF", "eight pictures, each at its time", moving(), holds={**ANIMATED, "colors": 24}),
    Input("moving.png", "a PNG that moves", "eight pictures, each at its time", moving_png, holds=ANIMATED),
    Input("moving.webp", "a WebP that moves", "a WebP that moves", moving(lossless=True), "webp",
          holds={"animation": (8, 80)}),
    Input("moving.webp", "the same", "a PNG that moves", moving(lossless=True), "apng",
          holds={"frames": 8, "numbers": range(8), "duration": 0.64, "colors": 4, "upright": True}),
    Input("sticker.webp", "a WebP that moves, with transparency", "flattened, and said",
          moving(alpha=True, lossless=True), holds={"frames": 8, "opaque_colors": 10,
                                                    "says": ("alpha|transparen|flatten",)}),
]
PHOTOGRAPHS = [
    Input("upright.jpg", "a photograph that was held upright", "upright", one(size=PORTRAIT, turned=True, **JPEG),
          "dream.png", holds={**STILL, "size": PORTRAIT}, command="image", core=True),
    Input("upright.webp", "the same as WebP", "upright", one(size=PORTRAIT, turned=True, quality=95), "dream.png",
          holds={**STILL, "colors": 14, "size": PORTRAIT}, command="image"),
    Input("photo.jpg", "a photograph", "as a picture", one(**JPEG), "dream.jpg", holds=STILL, command="image"),
    Input("photo.jpg", "the same, by `render`", "a video of one picture", one(**JPEG),
          holds={**STILL, "duration": 0.04}),
    Input("adobe.jpg", "a photograph with an ICC profile", "its colours as meant, in sRGB",
          one(icc=adobe_rgb(), **JPEG), "dream.png", holds={**STILL, "may_say": PROFILE}, command="image", core=True),
    Input("print.jpg", "CMYK of a printer", "in RGB", cmyk, "dream.png", holds={**STILL, "colors": 40},
          command="image"),
    Input("grey.jpg", "a grey photograph", "in RGB", one(mode="L", **JPEG), "dream.png", holds={"frames": 1},
          command="image"),
    Input("palette.png", "a PNG with a palette", "in RGB", one(mode="P"), "dream.png", holds={**STILL, "colors": 40},
          command="image"),
    Input("deep.png", "a PNG of 16 bits", "whole", lambda path: deep(path, 0), "dream.png", holds=STILL,
          command="image"),
    Input("clear.png", "a PNG with transparency", "the transparency is kept", lambda path: transparent(path, 0),
          "dream.png", holds={"frames": 1, "opaque_colors": 4, "alpha": (0, 1)}, command="image"),
    Input("clear.png", "the same", "flattened, and said", lambda path: transparent(path, 0), "dream.jpg",
          holds={"frames": 1, "opaque_colors": 10, "says": ("alpha|transparen|flatten",)}, command="image"),
    Input("scan.tif", "a TIFF", "whole", one(), "dream.png", holds=STILL, command="image"),
    Input("photo.avif", "an AVIF", "whole", one(quality=95, subsampling="4:4:4"), "dream.png", holds=STILL,
          command="image"),
    Input("photo.heic", "a photograph of an iPhone", "whole, or told which package reads it", write_heic, "dream.png",
          holds=HEIC, command="image", core=True),
    Input("heic-inside.jpg", "HEIC under another name", "whole, or told which package reads it", disguised("heic"),
          "dream.png", holds=HEIC, command="image", core=True),
    Input("png-inside.jpg", "PNG under another name", "whole", disguised("png"), "dream.png", holds=STILL,
          command="image"),
    Input("png-inside_%02d.jpg", "the same in a sequence", "whole",
          sequence(save_one=lambda file, place: (save(file.with_suffix(".png"), place),  # type: ignore[func-returns-value]
                                                 file.with_suffix(".png").rename(file))[0]), holds=PICTURES),
    Input("cut-off.jpg", "a photograph cut off in copying", "as much as is there, and said, or refused as damaged",
          cut_off, "dream.png",
          holds={"either": ({"frames": 1, "says": ("damaged|truncated|cut off",)}, {"refused": "damaged|truncated"})},
          command="image", core=True),
    Input("text.jpg", "a text named as a picture", "refused", lambda path: path.write_text("hello " * 100),
          "dream.png", holds={"refused": "not a picture"}, command="image"),
]
ROWS = [*SEQUENCES, *ANIMATIONS, *PHOTOGRAPHS]
