"""Picture files: upright, in sRGB, 8 bits, whatever they hold; what is damaged or too large is told in one line."""
from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from support.commands import fails, here
from support.picture_files import CORNERS, ORIENTATIONS, display_p3, heic, stored_as

from streamdream.errors import SourceError, UsageError
from streamdream.media.images import read_image
from streamdream.media.picture_decoder import read_picture

Capture = pytest.CaptureFixture[str]
RED = (255, 0, 0)


def corners(image: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """The colours near the four corners, rounded to 0 or 255: left and right of the upper edge, then of the lower."""
    height, width = image.shape[:2]
    return [tuple(255 * int(value > 127) for value in image[y, x])
            for y in (height // 8, -(height // 8)) for x in (width // 8, -(width // 8))]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_exif_orientation_is_applied_once(suffix: str, tmp_path: Path) -> None:
    for orientation in ORIENTATIONS:
        path = tmp_path / f"{orientation}{suffix}"
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored_as(orientation).save(path, **({"tiffinfo": {0x0112: orientation}} if suffix == ".tif" else
                                             {"exif": exif}))
        image = read_image(str(path))
        assert image.shape == (40, 60, 3) and corners(image) == CORNERS, orientation


GREY = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)


def grey16(path: Path) -> list[int]:
    Image.fromarray(GREY).save(path)
    return [0, 0, 0, 252, 252, 252]


def cmyk(path: Path) -> list[int]:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=95)
    return [255, 0, 0] * 2


def lab(path: Path) -> list[int]:
    red = ImageCms.profileToProfile(Image.new("RGB", (8, 8), RED), ImageCms.createProfile("sRGB"),
                                    ImageCms.createProfile("LAB"), outputMode="LAB")
    assert red is not None
    red.save(path)
    return [255, 0, 0] * 2


def palette(path: Path) -> list[int]:
    Image.new("RGB", (8, 8), (255, 0, 0)).quantize(4).save(path)
    return [255, 0, 0] * 2


def bilevel(path: Path) -> list[int]:
    Image.new("1", (8, 8), 1).save(path)
    return [255] * 6


def transparent(path: Path) -> list[int]:
    picture = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    picture.putpixel((7, 7), (200, 100, 0, 128))
    picture.save(path, lossless=True)
    return [0, 0, 0, 100, 50, 0]


def linear(path: Path) -> list[int]:
    """Grey 55 of 255 in linear light, in a profile that says so, is 128 in sRGB."""
    Image.new("RGB", (8, 8), (55, 55, 55)).save(path, icc_profile=display_p3(gamma=1.0))
    return [128] * 6


@pytest.mark.parametrize(("name", "make"), [
    ("grey.png", grey16), ("grey.tif", grey16), ("a.jpg", cmyk), ("a.tif", cmyk), ("a.tif", lab), ("a.png", palette),
    ("a.gif", palette), ("a.png", bilevel), ("a.png", transparent), ("a.webp", transparent), ("a.png", linear),
])
def test_every_mode_becomes_rgb_of_8_bits(name: str, make: Any, tmp_path: Path) -> None:
    expected = make(tmp_path / name)
    image = read_image(str(tmp_path / name))
    found = [int(value) for value in (*image[0, 0], *image[-1, -1])]
    assert np.allclose(found, expected, atol=5), found


def test_wide_colours_become_srgb_and_a_line_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "phone.jpg"
    picture = Image.new("RGB", (16, 16), (234, 51, 35))  # the red of sRGB, in Display P3
    picture.save(path, icc_profile=display_p3(), quality=98, subsampling=0)
    image = read_image(str(path)).astype(int)
    assert np.abs(image - RED).max() <= 6
    assert caplog.messages == [f"{path} is converted from the colours of Display P3 to sRGB"]
    caplog.clear()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, words in ((srgb, []), (b"no profile" * 30, ["has a damaged colour profile, which is ignored"])):
        picture.save(tmp_path / "b.png", icc_profile=profile)
        assert (read_image(str(tmp_path / "b.png"))[0, 0] == (234, 51, 35)).all()
        assert [line.removeprefix(f"{tmp_path / 'b.png'} ") for line in caplog.messages] == words


def test_the_second_picture_of_a_phone_is_no_animation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (16, 16), RED).save(tmp_path / "a.jpg", "MPO", save_all=True,
                                         append_images=[Image.new("RGB", (16, 16))])
    assert read_image(str(tmp_path / "a.jpg"))[0, 0, 0] > 250 and not caplog.messages
    pictures = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "lime")]
    for suffix in (".webp", ".gif", ".png", ".tif"):
        pictures[0].save(tmp_path / f"b{suffix}", save_all=True, append_images=pictures[1:])
        assert read_image(str(tmp_path / f"b{suffix}"))[0, 0, 0] > 250
        assert "holds 3 pictures; the first is used" in caplog.messages[-1]


@pytest.mark.parametrize(("kind", "name"), [("plain", "a.heic"), ("plain", "inside.jpg"), ("turned", "a.heic"),
                                            ("deep", "a.heif"), ("grid", "a.heic")])
def test_pictures_of_phones_are_read_whatever_they_are_called(kind: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    (tmp_path / name).write_bytes(heic(kind))
    image = read_image(str(tmp_path / name))
    assert corners(image) == CORNERS and image.shape[0] < image.shape[1]


def test_without_its_package_a_heic_picture_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
                                                     ) -> None:
    (tmp_path / "photo.jpg").write_bytes(heic("plain"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    for command in (("image", "photo.jpg", "-o", "a.png"), ("render", "photo.jpg", "-o", "a.mp4"),
                    ("render", "photo.jpg", "photo.jpg", "-o", "a.mp4")):
        fails(here(capsys, *command), 1,
              "photo.jpg is a HEIC picture: pip install 'streamdream[heic]'")


# --- damaged, and too large


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))


def test_a_jpeg_that_is_cut_off_is_used_as_far_as_it_goes(tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                                          caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jpg"
    noise().save(path)
    whole, data = read_image(str(path)), path.read_bytes()
    for end, rows in ((-1, 64), (len(data) * 2 // 3, 32)):
        path.write_bytes(data[:end])
        image = read_image(str(path))
        assert image.shape == whole.shape and (image[:rows - 16] == whole[:rows - 16]).all()
        assert caplog.messages[-1] == f"{path} is damaged or cut off; it is used as far as it can be read"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.avif", "a.gif", "a.bmp"])
def test_other_damaged_pictures_are_refused_without_noise(name: str, tmp_path: Path,
                                                          capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    noise().save(path, **({"compression": "tiff_lzw"} if name == "a.tif" else {}))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SourceError, match=r"damaged picture|not a picture that can be read"):
        read_image(str(path))
    assert capfd.readouterr().err == ""


def lying_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999)))
            + chunk(b"IEND", b""))


def lying_jpeg(width: int, height: int) -> bytes:
    data = io.BytesIO()
    noise(16).save(data, "JPEG")
    start = data.getvalue().index(b"\xff\xc0") + 5
    return data.getvalue()[:start] + struct.pack(">HH", height, width) + data.getvalue()[start + 4:]


@pytest.mark.parametrize(("name", "data", "words"), [
    ("a.png", lying_png(40000, 40000), "too large: a picture has at most 210 million pixels"),
    ("a.png", lying_png(14000, 14000), "claims pictures of 14000x14000"),
    ("a.png", lying_png(5000, 5000), "damaged picture"),
    ("a.jpg", lying_jpeg(40000, 40000), "too large"),
    ("a.jpg", lying_jpeg(14000, 14000), "claims pictures of 14000x14000"),
    ("a.jpg", lying_jpeg(5000, 5000), "damaged picture: most of 5000x5000"),
    ("a.png", b"", "is empty"), ("a.png", b"Dear diary", "is not a picture that can be read"),
    ("a.heic", b"\0\0\0\x18ftypheic" + bytes(40), "picture"), ("a.avif", b"\0\0\0\x18ftypavif" + bytes(40), "picture"),
], ids=["huge png", "large png", "lying png", "huge jpeg", "large jpeg", "lying jpeg", "empty", "text", "heic", "avif"])
def test_a_lying_file_is_one_line(name: str, data: bytes, words: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / name).write_bytes(data)
    fails(here(capsys, "image", tmp_path / name, "-o", tmp_path / "dream.png"), 1, name, words, "streamdream render")


def test_what_is_no_file_is_the_users_mistake(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "x.png", "no such file"), ("a\0.png", "null")):
        with pytest.raises(UsageError, match=words):
            read_picture(path)


def test_image_keeps_transparency_where_the_output_can(tmp_path: Path, capsys: Capture) -> None:
    alpha = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (72, 1))
    picture = noise(96).resize((96, 72)).convert("RGBA")
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "logo.png")
    flags = ("--octaves", "1", "--steps", "1", "--layers", "conv2d_2", "--backend", "eager")
    for name in ("a.png", "a.jpg"):
        result = here(capsys, "image", tmp_path / "logo.png", "-o", tmp_path / name, *flags)
        assert result.returncode == 0, result.stderr
        assert ("what is transparent becomes black" in result.stderr) == (name == "a.jpg")
    with Image.open(tmp_path / "a.png") as kept, Image.open(tmp_path / "a.jpg") as flattened:
        assert (np.asarray(kept)[..., 3] == alpha).all()
        assert flattened.mode == "RGB" and np.asarray(flattened)[:, :4].mean() < 30
