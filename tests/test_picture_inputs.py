"""``streamdream render`` of pictures: folders, patterns and lists, animations, damaged and unlike ones among them."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.clips import Clip, make, marked, number_of
from support.commands import fails, here
from support.picture_files import CORNERS, heic, stored_as

from streamdream.media.frame import picture_checksum
from streamdream.media.picture_files import in_natural_order, join_list
from streamdream.media.sources.video import open_source

Capture = pytest.CaptureFixture[str]
FLAGS = ("--strength", "0", "--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1",
         "--steps", "1", "--layers", "conv2d_2")
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, number: int, size: tuple[int, int] = (96, 72), **options: Any) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marked(number, size)).save(name, **options)
    return name


def render(capsys: Capture, *arguments: object, output: str = "dream.mkv") -> str:
    """The lines on stderr, but for the title."""
    result = here(capsys, "render", *arguments, "-o", output, "-y", "-c:v", "ffv1", *FLAGS)
    assert result.returncode == 0, result.stderr
    return "\n".join(line for line in result.stderr.splitlines() if "→" not in line)


def pictures(path: str = "dream.mkv") -> list[NDArray[np.uint8]]:
    with av.open(path) as file:
        found: list[Any] = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return found


def order(path: str = "dream.mkv") -> list[int]:
    return [number_of(image) for image in pictures(path)]


def times(path: str = "dream.mkv") -> list[float]:
    with av.open(path) as file:
        return [round(frame.time or 0.0, 3) for frame in file.decode(video=0)]


def test_photographs_of_a_camera_that_was_turned(capsys: Capture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(1, 6):
        stored_as(6).save(f"photo_{number:03d}.jpg", exif=exif)
    assert render(capsys, "photo_%03d.jpg", "-r", "10") == ""
    found = pictures()
    assert len(found) == 5 and {image.shape for image in found} == {(40, 60, 3)}
    for image in found:
        corners = [image[y, x] > 127 for y in (5, -5) for x in (5, -5)]
        assert [tuple(255 * corner) for corner in corners] == CORNERS
    assert times() == [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(("names", "argument"), [
    (["a9.png", "a10.png", "a100.png"], "folder"), (["x 2.PNG", "X 10.png", "x 11.JPG"], "folder"),
    (["ä1.png", "ä2.jpg", "ä10.webp"], "folder/ä*"), (["100% [x] 8.png", "100% [x] 9.png"], "folder/*.png"),
    (["i0.png", "i1.png", "i2.png"], "folder/i%d.png"), (["i1000.png", "i1001.png"], "folder/i%04d.png"),
    (["08.png", "9.png"], "folder/?.png folder/08.png"),
])
def test_the_order_is_that_of_the_numbers_in_the_names(names: list[str], argument: str, capsys: Capture) -> None:
    for number, name in enumerate(names):
        write(f"folder/{name}", number)
    Path("folder/.hidden.png").touch()
    Path("folder/notes.txt").touch()
    arguments = [argument] if " " not in argument or "%" in argument else argument.split()
    assert render(capsys, *arguments) == ""
    assert order() == ([1, 0] if len(arguments) == 2 else list(range(len(names))))


def test_a_list_is_in_its_own_order_but_not_in_that_of_a_shell(capsys: Capture) -> None:
    names = [write(f"a{number}.png", number) for number in (1, 2, 10)]
    render(capsys, names[1], names[0], names[2])
    assert order() == [2, 1, 10]
    render(capsys, *sorted(names))
    assert order() == [1, 2, 10]
    assert in_natural_order(["b", "a10", "a2"]) == ["b", "a10", "a2"]
    fails(here(capsys, "render", "a1.png", "a3.png", "-o", "b.mp4"), 2, "no such file: a3.png")
    make(Path("v.mp4"), Clip(2))
    fails(here(capsys, "render", "a1.png", "v.mp4", "-o", "b.mp4"), 2, "v.mp4 is no picture", "-o dreams/")
    fails(here(capsys, "render", "v.mp4", "-r", "10", "-o", "b.mp4"), 2, "-r is for pictures without times")
    fails(here(capsys, "render", "a1.png", "a2.png", "-o", "a2.png", "-y"), 2, "a2.png")


def test_several_pictures_into_a_folder_are_a_batch(capsys: Capture) -> None:
    names = [write(f"a{number}.png", number) for number in (1, 2)]
    assert here(capsys, "render", *names, "-o", "dreams/", *FLAGS).returncode == 0
    assert sorted(path.name for path in Path("dreams").iterdir()) == ["a1.mp4", "a2.mp4"]


def test_what_a_file_is_decides_not_its_name(capsys: Capture) -> None:
    pytest.importorskip("pi_heif")
    write("a1.jpg", 1, size=(128, 96), format="PNG")
    Path("a2.jpg").write_bytes(heic("plain"))
    write("a3.png", 3, size=(128, 96), format="WEBP", lossless=True)
    assert render(capsys, "a1.jpg", "a2.jpg", "a3.png") == ""
    first, second, third = pictures()
    assert (number_of(first), number_of(third)) == (1, 3) and second[8, 8, 0] > 200 > 60 > second[8, 8, 1]


def test_missing_numbers_are_told_and_all_pictures_used(capsys: Capture) -> None:
    for number in (1, 2, 4, 8):
        write(f"{number}.png", number)
    assert "no picture has the number 3, 5 to 7; the 4 others follow each other" in render(capsys, "%d.png")
    assert order() == [1, 2, 4, 8]
    assert times() == [0.0, 0.04, 0.08, 0.12]


def test_damaged_and_empty_pictures_are_left_out_and_named(capsys: Capture) -> None:
    for number in range(6):
        write(f"{number}.png", number)
    Path("0.png").write_bytes(Path("0.png").read_bytes()[:-80])
    Path("2.png").write_bytes(b"")
    Path("3.png").write_text("Dear diary")
    said = render(capsys, "%d.png")
    for words in ("0.png is a damaged picture", "2.png is empty; it is left out", "3.png is not a picture"):
        assert words in said
    assert order() == [1, 4, 5] and times() == [0.0, 0.04, 0.08]
    Image.effect_noise((96, 72), 60).convert("RGB").save("4.jpg")
    Path("4.jpg").write_bytes(Path("4.jpg").read_bytes()[:-800])
    assert render(capsys, "1.png", "4.jpg", "5.png").count("4.jpg is damaged or cut off; it is used as far as") == 1
    assert len(order()) == 3
    for number in range(6):
        Path(f"{number}.png").write_bytes(b"x")
    fails(here(capsys, "render", "%d.png", "-o", "b.mp4"), 1, "no picture of %d.png can be read", "5.png")


def test_pictures_of_another_size_are_fitted_with_bars(capsys: Capture) -> None:
    write("1.png", 1, (96, 72))
    write("2.png", 2, (72, 96))
    write("3.png", 3, (192, 144))
    said = render(capsys, "%d.png")
    assert "%d.png has pictures of several sizes; all are fitted into 96x72, with bars" in said
    first, second, third = pictures()
    assert (number_of(first), number_of(second[:, 21:75]), number_of(third)) == (1, 2, 3)
    assert not second[:, :20].any() and not second[:, 76:].any()
    with open_source("%d.png") as source:
        assert [frame.discontinuity for frame in source] == [False, True, True]


def test_a_part_of_a_sequence_and_resuming_it(capsys: Capture) -> None:
    for number in range(12):
        write(f"{number}.png", number, (72, 96) if number > 7 else (96, 72))
    Path("5.png").write_bytes(b"x")
    render(capsys, "%d.png", "-r", "4", "-ss", "0.5", "-t", "1")
    assert order() == [2, 3, 4, 6] and times() == [0.0, 0.25, 0.5, 0.75]
    with open_source("%d.png") as source:
        source.deliver_pictures(24, 32)
        frames = list(source)
    for index in (0, 3, 5, 7, 8):
        with open_source("%d.png") as source:
            source.deliver_pictures(24, 32)
            position = frames[index].position
            assert position is not None
            source.resume_at(position, index, picture_checksum(frames[index]))
            rest = list(source)
        assert [frame.pts for frame in rest] == [frame.pts for frame in frames[index:]]
        assert [frame.discontinuity for frame in rest] == [frame.discontinuity for frame in frames[index:]]
        assert [picture_checksum(frame) for frame in rest] == [picture_checksum(frame) for frame in frames[index:]]
    fails(here(capsys, "render", "%d.png", "-ss", "9", "-o", "b.mp4"), 2, "beyond the end", "lasts 0.48 s")


def animation(name: str, **options: Any) -> list[NDArray[np.uint8]]:
    """Four pictures, each of which is a small change on a transparent ground; as they must look before black."""
    frames = [Image.new("RGBA", (64, 48), (0, 0, 0, 0)) for _ in COLORS]
    for number, (frame, color) in enumerate(zip(frames, COLORS, strict=True)):
        frame.paste((*color, 255), (number * 12, 10, number * 12 + 20, 40))
    frames[0].save(name, save_all=True, append_images=frames[1:], duration=[80, 40, 200, 120], **options)
    return [np.asarray(frame)[..., :3] * (np.asarray(frame)[..., 3:] > 127) for frame in frames]


@pytest.mark.parametrize(("name", "options"), [
    ("a.webp", {"lossless": True}), ("a.webp", {"lossless": True, "minimize_size": True}),
    ("a.avif", {"quality": 100, "subsampling": "4:4:4"}), ("a.gif", {"disposal": 2}), ("a.png", {"disposal": 1}),
    ("a.png", {"disposal": 0, "blend": 0}),
])
def test_animations_keep_their_pictures_and_times(name: str, options: dict[str, Any], capsys: Capture) -> None:
    expected = animation(name, **options)
    with open_source(name) as source:
        frames = list(source)
    assert [round(frame.pts_seconds, 3) for frame in frames] == [0.0, 0.08, 0.12, 0.32]
    assert source.last_duration == Fraction(3, 25)
    for frame, picture in zip(frames, expected, strict=True):
        opaque = picture.any(axis=2)
        assert np.abs(frame.image[opaque].astype(int) - picture[opaque]).max() <= 12
    render(capsys, name)
    assert times() == [0.0, 0.08, 0.12, 0.32]


def test_an_animation_that_claims_more_pictures_than_it_has(capsys: Capture) -> None:
    first, *more = [Image.new("RGB", (96, 72), (40 * number, 90, 60)) for number in range(4)]
    first.save("a.webp", save_all=True, append_images=more, duration=80)
    data = Path("a.webp").read_bytes()
    Path("a.webp").write_bytes(data + data[data.rindex(b"ANMF"):])
    assert "picture 5 of a.webp is a damaged picture" in render(capsys, "a.webp")
    assert len(pictures()) == 4


def test_a_part_of_an_animation(capsys: Capture) -> None:
    animation("a.webp", lossless=True)
    with open_source("a.webp", start=0.1, duration=0.1) as source:
        frames = list(source)
    assert len(frames) == 1 and frames[0].image[15, 26, 2] == 255
    fails(here(capsys, "render", "a.webp", "-r", "10", "-o", "b.mp4"), 2, "a.webp have their own")
    fails(here(capsys, "render", "a.webp", "-ss", "3", "-o", "b.mp4"), 2, "beyond the end of a.webp")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_and_transparency_reach_the_encoder(suffix: str) -> None:
    import cv2

    deep = np.random.default_rng(0).integers(0, 65536, (72, 96, 4), np.uint16)
    for number in range(2):
        cv2.imwrite(f"{number}{suffix}", deep)
    cv2.imwrite(f"2{suffix}", deep[..., :3])
    cv2.imwrite(f"3{suffix}", (deep >> 8).astype(np.uint8))
    with open_source(f"%d{suffix}") as source:
        source.deliver_pictures(24, 32)
        assert source.pixel_format == "gbrap16le"
        delivered: list[Any] = [frame.picture for frame in source]
    first, _, third, fourth = (picture.to_ndarray() for picture in delivered)
    rgba = deep[..., [2, 1, 0, 3]]
    assert (first == rgba).all()
    assert (third[..., :3] == rgba[..., :3]).all() and (third[..., 3] == 65535).all()
    assert (fourth == (rgba >> 8) * 257).all()


def test_300_pictures_of_a_list_are_one_name() -> None:
    names = [write(f"{number}.png", number % 256, (16, 16)) for number in range(300)]
    with open_source(join_list(names)) as source:
        assert source.frame_count == 300 and source.name == "0.png … 299.png (300 files)"
        assert [number_of(frame.image) for frame in source] == [number % 256 for number in range(300)]
