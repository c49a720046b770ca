"""Eight kinds of footage to measure and to look at dreams on: two clips that are not shipped, one of gradio's, and five
that are computed from photographs and shapes.

All are deterministic, and the first frames of a long clip are those of a short one. The two clips are read from the
folder that the environment variable STREAMDREAM_CLIPS or ``--clips`` names; without them, six kinds are left.
"""
from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamdream.media.images import read_image
from streamdream.media.opencv import cv2
from streamdream.media.sample_files import CLIP, PHOTO, sample_file

from . import clips
from .metrics import Picture

FootageKind = Callable[[int, int, int], list[Picture]]
"""(frames, height, width) -> that many uint8 RGB pictures [height, width, 3], or fewer where a clip is shorter.
Raises MissingPackage without gradio, whose pictures are used, and SourceError for a clip that cannot be read."""

CLIPS = {"highway": "highway.mp4", "clouds": "clouds.mp4"}
"""Traffic before a fixed camera, and a plume of ash over a volcano, in time lapse."""
CLIPS_VARIABLE = "STREAMDREAM_CLIPS"
PORTRAIT, TOWER, CHEETAH = "images/groot.jpeg", "images/tower.jpg", "images/cheetah.jpg"
"""Pictures of gradio: a figure's head and shoulders 910x512, the Eiffel tower 377x600, a running cheetah 502x343."""

PAN_PERIOD = 240
"""Frames of a pan to the right and back."""
WAVES = 9
READ_NOISE, SHOT_NOISE = 12.0, 1.6
"""Standard deviation of a sensor's noise in grey levels: the first, and the second times the root of the level."""
TEXT = ("When the network sees a cloud that looks a little like a bird, it makes the cloud look more like a bird. The "
        "next look finds the bird more surely still, and so on, until a detailed bird has come from nowhere. ")


def all_footage(folder: str = "") -> dict[str, FootageKind]:
    """Return the kinds by name; ``folder`` has the files of CLIPS, those that are missing there are left out."""
    found = {name: Path(folder) / file for name, file in CLIPS.items() if folder and (Path(folder) / file).is_file()}
    return {**{name: partial(video, path) for name, path in found.items()},
            "world": world, "face": face, "handheld": handheld, "water": water, "noise": noise, "animation": animation}


def video(path: Path, frames: int, height: int, width: int) -> list[Picture]:
    """Return the first frames of a clip, cropped to the shape that is asked for and scaled."""
    return clips.read(str(path), frames, height, width, crop=True)


def world(frames: int, height: int, width: int) -> list[Picture]:
    """The sample clip: a turning globe before black."""
    return video(sample_file(CLIP), frames, height, width)


def face(frames: int, height: int, width: int) -> list[Picture]:
    """A portrait, panned: scikit-image's astronaut where it is installed, else a picture of gradio."""
    spec = importlib.util.find_spec("skimage")
    astronaut = Path(spec.origin).parent / "data" / "astronaut.png" if spec and spec.origin else Path()
    path = astronaut if astronaut.is_file() else sample_file(PORTRAIT)
    photo = _cover(read_image(str(path)), height, width, 1.2)
    pans = (0.5 - 0.5 * np.cos(2 * np.pi * index / PAN_PERIOD) for index in range(frames))
    across, down = photo.shape[1] - width, photo.shape[0] - height
    return [_view(photo, height, width, (across * (0.1 + 0.8 * pan), down * (0.2 + 0.2 * pan))) for pan in pans]


def handheld(frames: int, height: int, width: int) -> list[Picture]:
    """A photograph through a camera held in the hand: it shakes, rolls, sways to and fro, and goes nearer and back."""
    photo = _cover(read_image(str(sample_file(TOWER))), height, width, 1.6)
    middle = np.array([photo.shape[1], photo.shape[0]]) / 2
    pictures = []
    for index, (x, y, roll, zoom) in zip(range(frames), _shake(4), strict=False):
        turn = 2 * np.pi * index / PAN_PERIOD
        sway = 0.12 * height * np.array([np.sin(turn), np.sin(2 * turn)])
        centre = middle + sway + 0.04 * height * np.array([x, y])
        matrix = cv2().getRotationMatrix2D((float(centre[0]), float(centre[1])), 3 * roll, 1.1 * (1 + 0.1 * zoom))
        matrix[:, 2] += np.array([width, height]) / 2 - centre
        pictures.append(cv2().warpAffine(photo, matrix, (width, height), flags=cv2().INTER_CUBIC,
                                         borderMode=cv2().BORDER_REFLECT_101))
    return pictures


def water(frames: int, height: int, width: int) -> list[Picture]:
    """A photograph under rippled water, refracted by the slope of moving waves, which also glint.

    Waves in deep water: angular frequency √(g k), height ∝ their length.
    """
    photo = _cover(read_image(str(sample_file(PHOTO))), height, width, 1.1).astype(np.float32)
    random = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    lengths = height * np.geomspace(0.08, 0.5, WAVES)
    directions = random.normal(0.4, 0.7, WAVES)
    phases = random.uniform(0, 2 * np.pi, WAVES)
    wave_numbers = 2 * np.pi / lengths
    pictures = []
    for index in range(frames):
        slope_x, slope_y = np.zeros_like(x), np.zeros_like(y)
        for k, direction, phase in zip(wave_numbers, directions, phases, strict=True):
            along = np.cos(direction) * x + np.sin(direction) * y
            slope = np.cos(k * along - 0.9 * np.sqrt(k / height * 240) * index + phase) / np.sqrt(WAVES)
            slope_x, slope_y = slope_x + slope * np.cos(direction), slope_y + slope * np.sin(direction)
        depth = 0.018 * height
        bent = cv2().remap(photo, (x + 0.05 * width + depth * slope_x).astype(np.float32),
                           (y + 0.05 * height + depth * slope_y).astype(np.float32), cv2().INTER_LINEAR)
        glint = 70 * np.clip(slope_x - 0.6, 0, 1) + 12 * slope_x
        pictures.append(_to_levels(bent + glint[..., None]))
    return pictures


def noise(frames: int, height: int, width: int) -> list[Picture]:
    """A still photograph through a sensor in the dark: new noise in each frame, stronger where it is bright."""
    photo = 0.7 * _cover(read_image(str(sample_file(CHEETAH))), height, width, 1).astype(np.float32)
    deviation = np.sqrt(READ_NOISE**2 + SHOT_NOISE**2 * photo)
    return [_to_levels(photo + deviation * np.random.default_rng((2, index)).standard_normal(photo.shape, np.float32))
            for index in range(frames)]


def animation(frames: int, height: int, width: int) -> list[Picture]:
    """Flat shapes that move, in five colours without shades, beside a page of text that rolls up."""
    page_width = width * 2 // 5
    page = _text_page(height, page_width)
    pictures = []
    for index in range(frames):
        picture: Picture = np.full((height, width, 3), (247, 208, 112), np.uint8)
        for points, color in _shapes(index, height, width - page_width):
            # with three binary digits after the point, so that slow shapes move evenly
            cv2().fillPoly(picture, [np.rint(points * 8).astype(np.int32)], color, cv2().LINE_AA, 3)
        picture[:, width - page_width:] = np.roll(page, -int(index * height / 240), axis=0)[:height]
        pictures.append(picture)
    return pictures


Outline = NDArray[np.float64]
"""[N, 2] positions (x, y) in pixels."""


def _shapes(index: int, height: int, width: int) -> Iterator[tuple[Outline, tuple[int, int, int]]]:
    """Yield outlines [N, 2] in pixels and colours: a sun that sinks and rises, hills, a star, a sliding card."""
    circle = np.linspace(0, 2 * np.pi, 73)[:-1]
    turn = index * 2 * np.pi / PAN_PERIOD

    def disc(x: float, y: float, radius: NDArray[np.float64] | float, angles: Outline) -> Outline:
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        outline: Outline = radius * height * around + np.array([x * width, y * height])
        return outline

    yield disc(0.5, 0.4 + 0.25 * np.sin(turn), 0.2, circle), (240, 96, 64)
    yield disc(0.3 + 0.1 * np.sin(turn), 1.15, 0.5, circle), (48, 120, 104)
    yield disc(0.9 - 0.2 * np.sin(turn), 1.2, 0.5, circle), (32, 84, 110)
    points = np.arange(10) * np.pi / 5 + 2 * turn
    spikes = np.where(np.arange(10) % 2, 0.05, 0.12)[:, None]
    yield disc(0.25 + 0.2 * np.cos(3 * turn), 0.25, spikes, points), (255, 255, 255)
    left = (0.5 + 0.6 * np.sin(2 * turn)) * width
    card = np.array([[0, 0.62], [0.3, 0.62], [0.3, 0.8], [0, 0.8]]) * height
    yield card + np.array([left, 0]), (60, 40, 80)


def _text_page(height: int, width: int) -> Picture:
    """Return black text on white, at least ``height`` lines; it may be rolled round."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(8, height // 16)
    font = ImageFont.load_default(size)
    lines: list[str] = []
    line = ""
    for word in (TEXT * 4).split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) > width - size:
            lines, longer = [*lines, line], word
        line = longer
    needed = -(-height * 5 // 4 // (size * 3 // 2))  # lines of text that fill the picture and a bit
    page = Image.new("RGB", (width, max(needed, len(lines)) * (size * 3 // 2)), "white")
    draw = ImageDraw.Draw(page)
    for number in range(page.height // (size * 3 // 2)):
        draw.text((size // 2, number * (size * 3 // 2)), lines[number % len(lines)], "black", font)
    return np.asarray(page)


def _shake(count: int) -> Iterator[NDArray[np.float64]]:
    """Yield ``count`` smooth random values, -1..1, frame by frame: sums of sines, 0.2 to 2.5 Hz at 30 fps."""
    random = np.random.default_rng(0)
    rates = 2 * np.pi / 30 * np.geomspace(0.2, 2.5, 6)[:, None] * random.uniform(0.9, 1.1, (6, count))
    sizes = rates[0] / rates / np.sum(rates[0] / rates, axis=0)
    phases = random.uniform(0, 2 * np.pi, (6, count))
    index = 0
    while True:
        yield np.sum(sizes * np.sin(rates * index + phases), axis=0)
        index += 1


def _cover(photo: Picture, height: int, width: int, margin: float) -> Picture:
    """Scale and crop the middle of a picture to ``margin`` times the size that is asked for."""
    tall, wide = round(height * margin), round(width * margin)
    result: Picture = clips.crop_to(photo, tall, wide)
    interpolation = cv2().INTER_AREA if result.shape[0] > tall else cv2().INTER_CUBIC
    result = cv2().resize(result, (wide, tall), interpolation=interpolation)
    return result


def _view(photo: Picture, height: int, width: int, corner: tuple[float, float]) -> Picture:
    """Return the part of a picture whose left upper corner is at a position (x, y), which need not be whole pixels."""
    matrix = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]], np.float32)
    result: Picture = cv2().warpAffine(photo, matrix, (width, height), flags=cv2().INTER_CUBIC,
                                       borderMode=cv2().BORDER_REFLECT_101)
    return result


def _to_levels(picture: NDArray[np.floating]) -> Picture:
    result: Picture = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return result


FOOTAGE = all_footage(os.environ.get(CLIPS_VARIABLE, ""))
"""The kinds that this machine has. Set STREAMDREAM_CLIPS before the import, or call ``all_footage``."""
