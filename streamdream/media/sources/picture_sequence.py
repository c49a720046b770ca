"""Pictures one after the other, as a source: files, a folder, a pattern; or one file, still or animated.

All are upright, in sRGB, and fitted into the size of the first. A damaged one is left out, and a line says so.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import SourceError, UsageError
from streamdream.media import planes
from streamdream.media.frame import Frame, picture_checksum
from streamdream.media.hardware_decoding import SOFTWARE
from streamdream.media.input_container import TimeRange, assumed_color, to_fraction
from streamdream.media.picture_decoder import (
    CONVERTED,
    Picture,
    count_pictures,
    decode,
    one_line_errors,
    open_picture,
    read_picture,
)
from streamdream.media.picture_files import SEPARATOR, describe_gaps, describe_input, is_many, picture_files
from streamdream.media.resize import letterbox, resize
from streamdream.media.timestamps import DEFAULT_RATE, SourcePosition

MAX_WARNINGS = 10
"""On damaged pictures."""
MIN_DURATION_MS, DEFAULT_DURATION_MS = 11, 100
"""A shorter one is shown as long as the default, as browsers do."""


class Pictures(Protocol):
    """What a ``PictureSource`` reads."""

    count: int
    time_base: Fraction
    rate: Fraction

    def find(self, ticks: int) -> tuple[int, int]:
        """The first picture at or after that time, and its time."""

    def label(self, number: int) -> str: ...

    def read(self, number: int) -> tuple[Picture, int]:
        """A picture, and how long it lasts, in ticks. Raises SourceError."""

    def close(self) -> None: ...


class StillPictures:
    """Files, each of which lasts one tick."""

    def __init__(self, files: Sequence[Path], rate: Fraction) -> None:
        self._files, self.count, self.rate, self.time_base = files, len(files), rate, 1 / rate

    def find(self, ticks: int) -> tuple[int, int]:
        return ticks, ticks

    def label(self, number: int) -> str:
        return str(self._files[number])

    def read(self, number: int) -> tuple[Picture, int]:
        return read_picture(self._files[number], deep=True), 1

    def close(self) -> None:
        pass


class Animation:
    """The pictures of an animated WebP or AVIF file, which has milliseconds."""

    time_base = Fraction(1, 1000)

    def __init__(self, path: str) -> None:
        self._name, self._image = path, open_picture(path)
        try:
            self._durations = self._read_durations()
        except BaseException:
            self.close()
            raise
        self.count, self.rate = len(self._durations), Fraction(1000 * len(self._durations), sum(self._durations))

    def _read_durations(self) -> list[int]:
        if self._image.format == "WEBP":
            found = webp_durations(Path(self._name).read_bytes())
        else:
            with one_line_errors(self._name):
                found = [self._load(number) for number in range(count_pictures(self._image, self._name))]
        return [DEFAULT_DURATION_MS if duration < MIN_DURATION_MS else duration for duration in found]

    def _load(self, number: int) -> int:
        self._image.seek(number)
        self._image.load()
        return int(self._image.info["duration"])

    def find(self, ticks: int) -> tuple[int, int]:
        number, time = 0, 0
        while number < self.count and time < ticks:
            time += self._durations[number]
            number += 1
        return number, time

    def label(self, number: int) -> str:
        return f"picture {number + 1} of {self._name}"

    def read(self, number: int) -> tuple[Picture, int]:
        with one_line_errors(self.label(number)):
            self._image.seek(number)
        return decode(self._image, self.label(number)), self._durations[number]

    def close(self) -> None:
        self._image.close()


def webp_durations(data: bytes) -> list[int]:
    """Of the pictures of a WebP file, in ms, by its chunks ANMF: Pillow tells them only of what it has decoded."""
    found, place = [], 12
    while place + 24 <= len(data):
        size = int.from_bytes(data[place + 4:place + 8], "little")
        if data[place:place + 4] == b"ANMF":
            found.append(int.from_bytes(data[place + 20:place + 23], "little"))
        place += 8 + size + size % 2
    return found


@dataclass(frozen=True, eq=False)
class _Next:
    """A decoded picture that is not delivered yet."""

    number: int
    pts: int
    duration: int
    picture: Picture


class PictureSource:
    """``Pictures`` as a ``Source``. The constructor decodes the first one.

    Raises SourceError when none can be read, UsageError when ``span`` starts after the last.
    """

    pixel_aspect = Fraction(1)
    constant_rate, transparent, hdr_metadata = False, False, None
    decoder, decoder_reason = SOFTWARE, ""
    last_duration = Fraction(0)

    def __init__(self, name: str, pictures: Pictures, span: TimeRange, warnings: Sequence[str] = ()) -> None:
        self.name, self._pictures, self._span = name, pictures, span
        self.warnings = list(warnings)
        self.time_base, self.rate = pictures.time_base, pictures.rate
        self.pixel_format, self._image_size = "rgb24", (0, 0)
        self._size: tuple[int, int] | None = None
        """Of the picture before, (height, width)."""
        self._left_out = 0
        try:
            self._window = span.ticks(Fraction(0), self.time_base)
            first = self._first()
        except BaseException:
            self.close()
            raise
        self._next: _Next | None = first
        self.height, self.width = first.picture.image.shape[:2]
        self.color = assumed_color(self.height)
        last = pictures.count if math.isinf(self._window.end) else min(pictures.count,
                                                                       pictures.find(int(self._window.end))[0])
        self.frame_count = max(last - first.number, 1)

    def deliver_pictures(self, image_height: int, image_width: int) -> None:
        """As of ``FileSource``. Pictures are planar RGB, with alpha or 16 bits where the first one has them."""
        self._image_size = image_height, image_width
        assert self._next is not None
        first = self._next.picture
        self.transparent = first.alpha is not None
        self.pixel_format = f"gbr{'' if first.alpha is None else 'a'}p{'' if first.deep is None else '16le'}"

    def _first(self) -> _Next:
        number, pts = self._pictures.find(int(self._window.first)) if self._span.start else (0, 0)
        if number >= self._pictures.count:
            raise self._beyond_end()
        if pts >= self._window.end:
            raise UsageError(f"{self.name} has no frame between {float(self._span.start):g} and "
                             f"{float(self._span.end or 0):g} s")
        found = self._take(number, pts)
        if found is None:
            raise SourceError(self.warnings[-1] if self._pictures.count == 1 else
                              f"no picture of {self.name} can be read; {self.warnings[-1]}")
        return found

    def _beyond_end(self) -> UsageError:
        start, count = float(self._span.start), self._pictures.count
        if count == 1:
            return UsageError(f"{self.name} is a single picture: it has no frame at {start:g} s")
        return UsageError(f"the start at {start:g} s is beyond the end of {self.name}, which lasts "
                          f"{float(count / self.rate):.4g} s")

    def _take(self, number: int, pts: int) -> _Next | None:
        """The picture of that number, or the next that can be read."""
        for index in range(number, self._pictures.count):
            try:
                picture, duration = self._pictures.read(index)
            except (SourceError, UsageError) as error:  # damaged, or gone meanwhile
                self._leave_out(str(error))
                continue
            for note in picture.notes:
                of_many = note.startswith(CONVERTED) and self._pictures.count > 1
                self._warn_once(f"{f'a picture of {self.name}' if of_many else self._pictures.label(index)} {note}")
            return _Next(index, pts, duration, picture)
        return None

    def _leave_out(self, reason: str) -> None:
        self._left_out += 1
        if self._left_out <= MAX_WARNINGS:
            self._warn_once(reason if self._pictures.count == 1 else f"{reason}; it is left out")
        elif self._left_out == MAX_WARNINGS + 1:
            self._warn_once(f"more pictures of {self.name} are damaged and left out")

    def _warn_once(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def __iter__(self) -> Iterator[Frame]:
        item, self._next = self._next, None
        while item is not None and item.pts < self._window.end:
            end = min(item.pts + item.duration, self._window.end)
            self.last_duration = Fraction(int(end) - item.pts) * self.time_base
            yield self._frame(item)
            item = self._take(item.number + 1, item.pts + item.duration)

    def _frame(self, item: _Next) -> Frame:
        size = item.picture.image.shape[:2]
        is_first, discontinuity = self._size is None, self._size not in (None, size)
        self._size = size
        if size != (self.height, self.width) and not is_first:
            self._warn_once(f"{self.name} has pictures of several sizes; all are fitted into {self.width}x{self.height}"
                            ", with bars")
        image = self._fit(item.picture.flattened)
        picture = None
        if self._image_size != (0, 0):
            picture = self._planar(item.picture)
            image = resize(image, *self._image_size)
        pts = item.pts - self._window.shift
        base = self.time_base.numerator, self.time_base.denominator
        position = SourcePosition(item.number, item.pts, Fraction(0), None)
        return Frame(image, float(pts * self.time_base), pts, base, position, picture, discontinuity)

    def _fit(self, image: NDArray[Any]) -> NDArray[Any]:
        return image if image.shape[:2] == (self.height, self.width) else letterbox(image, self.width, self.height)

    def _planar(self, picture: Picture) -> Any:
        """In ``pixel_format``, a PyAV frame."""
        has_alpha, is_deep = self.pixel_format.startswith("gbra"), self.pixel_format.endswith("16le")
        parts: NDArray[Any]
        if is_deep and picture.deep is not None and (has_alpha or picture.alpha is None):
            parts = picture.deep
        elif has_alpha and picture.alpha is not None:
            parts = np.dstack([picture.image, picture.alpha])
        else:
            parts = picture.flattened
            if picture.alpha is not None:
                self._warn_once(f"{self.name} has transparent pictures, but the first is opaque: they become black "
                                "there")
        if is_deep and parts.dtype == np.uint8:
            parts = parts.astype(np.uint16) * 257
        if has_alpha and parts.shape[2] == 3:
            parts = np.dstack([parts, np.full(parts.shape[:2], np.iinfo(parts.dtype).max, parts.dtype)])
        fitted = self._fit(parts)
        return planes.from_arrays(planes.PlanarArrays([fitted[..., part] for part in range(3 + has_alpha)],
                                                      [self.pixel_format, 2, 0, 2, 2]))

    def resume_at(self, position: SourcePosition, index: int, checksum: int | None) -> None:
        """As of ``FileSource``. Raises SourceError when another picture is there."""
        assert position.raw_pts is not None
        number = position.raw_pts
        before = next((found for found in (self._take(earlier, 0) for earlier in range(number - 1, -1, -1))
                       if found is not None and found.number < number), None)
        self._size = before.picture.image.shape[:2] if before is not None else None
        self._next = self._take(number, position.shift)
        size = self._size
        found = self._next is not None and self._next.number == number
        if self._next is None or not found or checksum not in (None, picture_checksum(self._frame(self._next))):
            raise SourceError(f"{self.name} has other pictures than before")
        self._size = size

    def close(self) -> None:
        self._pictures.close()

    def __enter__(self) -> PictureSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_pictures(name: str, span: TimeRange, rate: float = 0) -> PictureSource:
    """Open an input that ``is_picture_input``, at ``rate`` pictures a second, 0 for ``DEFAULT_RATE``.

    Raises UsageError, SourceError or MissingPackage.
    """
    shown = describe_input(name)
    if not is_many(name):
        with open_picture(name) as image:
            if image.format in ("WEBP", "AVIF") and count_pictures(image, name) > 1:
                if rate:
                    raise UsageError(f"-r is for pictures without times; those of {name} have their own")
                return PictureSource(name, Animation(name), span)
    files = picture_files(name) or [Path(name)]
    if SEPARATOR in name and (missing := [file for file in files if not file.is_file()]):
        raise UsageError(f"no such file: {missing[0]}")
    gaps = describe_gaps(name) if is_many(name) else ""
    return PictureSource(shown, StillPictures(files, to_fraction(rate) if rate else DEFAULT_RATE), span,
                         [gaps] if gaps else [])
