"""Read frames from files, network streams, image sequences and test patterns, all by PyAV.

``open_source`` chooses the type by the name; a new type is one more row of ``SOURCES``.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeVar

from streamdream.errors import SourceError, StreamdreamError, UsageError, error_text
from streamdream.media.decoder import VideoDecoder
from streamdream.media.frame import Frame, picture_checksum
from streamdream.media.input_container import (
    ColorTags,
    TimeRange,
    clock_origin,
    glob_files,
    is_glob,
    is_pattern,
    open_container,
    open_file,
    sequence_files,
    stated_end,
)
from streamdream.media.pyav import fraction
from streamdream.media.timestamps import SourcePosition, TimestampRepair

Item = TypeVar("Item")
URL_TIMEOUT_SECONDS = 15.0
DEFAULT_RATE = Fraction(25)
"""Frames per second of an input without a rate, such as a sequence of pictures."""
SEEK_MARGINS_SECONDS = (0, 2, 20)
"""How far before the start to seek, in turn, while a poor index leads to a picture after it."""
RESUME_MARGINS_SECONDS = (2, 20)
"""The same, to go on within a file: near an open group of pictures the first few cannot be decoded."""
CLOCK_RESET_SECONDS = 1


class Source(Protocol):
    """Give frames, once, in order; ``close`` it when done (or use it as a context manager)."""

    name: str
    width: int
    """Of the upright picture, as ``height`` is; the same for all frames."""
    height: int
    rate: Fraction
    """Average frames per second."""
    time_base: Fraction
    """Seconds in one unit of ``Frame.pts``."""
    frame_count: int
    """An estimate for the progress display, within the requested range; 0 when unknown."""
    color: ColorTags
    pixel_format: str
    """Of ``Frame.picture``; "rgb24" where frames have an image only."""
    pixel_aspect: Fraction
    """Width of a pixel by its height."""
    last_duration: Fraction
    """Seconds that the last frame lasts; 0 before it was delivered, or when unknown."""
    warnings: list[str]
    """One line for each fault; grows while reading."""

    def __iter__(self) -> Iterator[Frame]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Source: ...
    def __exit__(self, *error: object) -> None: ...


class AvSource:
    """A container that PyAV can open, as a ``Source``. The constructor decodes the first picture.

    ``open`` returns an av container; it is called again when seeking fails. Raises SourceError when there is no video
    in it or nothing can be decoded, UsageError when ``span`` starts after the last frame.
    """

    def __init__(self, name: str, open: Callable[[], Any], span: TimeRange) -> None:
        self.name = name
        self.warnings: list[str] = []
        self.last_duration = Fraction(0)
        self._open, self._span = open, span
        self._skipped = 0
        """Frames of the range that were left out."""
        self.pixel_format = "rgb24"
        self._delivers_pictures = False
        self._position: SourcePosition | None = None
        """Of the last picture that was taken."""
        self._open_stream()
        try:
            self.time_base = self._decoder.time_base
            self.rate = fraction(self._stream.average_rate) or fraction(self._stream.guessed_rate) or DEFAULT_RATE
            self._step = 1 / self.rate / self.time_base
            self._window = span.ticks(clock_origin(self._container), self.time_base)
            self._next = self._first()
            self._describe(self._next[0])
        except BaseException:
            self._container.close()
            raise

    def _open_stream(self) -> None:
        self._container = self._open()
        try:
            self._decoder = VideoDecoder(self._container, self.name)
        except SourceError:
            self._container.close()
            raise
        self._stream = self._decoder.stream
        self._stream.thread_type = "AUTO"

    def _describe(self, picture: Any) -> None:
        """Take the properties of all frames from the first picture."""
        self._size = self._image_size = picture.width, picture.height
        self._rotation = self._decoder.describe(picture)
        self.width, self.height = self._size[::-1] if self._rotation.transpose else self._size
        self.pixel_aspect, self.color = self._decoder.pixel_aspect, self._decoder.color
        self.frame_count = self._estimate()

    def deliver_pictures(self, image_height: int, image_width: int) -> None:
        """Give each frame its ``picture``, too, and an ``image`` of that size. To be called before the first frame."""
        picture, _ = self._next
        self._delivers_pictures = True
        self._image_size = (image_height, image_width) if self._rotation.transpose else (image_width, image_height)
        self.pixel_format = self._decoder.to_planar(picture, self._rotation, self._size).format.name

    def _estimate(self) -> int:
        stated = stated_end(self._container, self._stream)
        ends = [end for end in (stated and stated - clock_origin(self._container), self._span.end) if end is not None]
        if not ends:
            return 0
        start = (self._stream.start_time or 0) * self.time_base
        rate = self._stream.frames / (stated - start) if stated and stated > start else Fraction(0)
        return max(round((min(ends) - self._span.start) * (rate or self.rate)), 1)

    # Reading: packets -> pictures -> pictures with a timestamp -> frames.

    def __iter__(self) -> Iterator[Frame]:
        (picture, pts), self._next = self._next, (None, 0)
        last, count = 0, self._skipped
        while picture is not None and pts < self._window.end:
            last, count = pts, count + 1
            self.last_duration = (picture.duration or self._step) * self.time_base
            yield self._frame(picture, pts)
            picture, pts = self._take()
        if picture is not None and count:
            self.last_duration = min(self.last_duration, Fraction(self._window.end - last) * self.time_base)
        elif count:
            self._check_completeness(last * self.time_base, count)

    def _frame(self, picture: Any, pts: int) -> Frame:
        pts -= self._window.shift
        seconds = float(pts * self.time_base)
        if (picture.width, picture.height) != self._size:
            self._warn_once(f"{self.name} changes its size; all frames are made {self.width}x{self.height}")
        time_base = self.time_base.numerator, self.time_base.denominator
        image = self._decoder.to_rgb(picture, self._rotation, self._image_size)
        planar = None
        if self._delivers_pictures:
            planar = self._decoder.to_planar(picture, self._rotation, self._size, self.pixel_format)
        return Frame(image, seconds, pts, time_base, self._position, planar)

    def _warn_once(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _take(self) -> tuple[Any, int]:
        picture = next(self._pictures, None)
        if picture is None:
            return None, 0
        self._position = self._clock.position(picture.pts)
        return picture, self._clock(picture.pts)

    def _first(self) -> tuple[Any, int]:
        """The first picture of the range and its timestamp."""
        picture, pts = self._seek_to_start()
        while picture is not None and pts < self._window.first:
            picture, pts = self._take()
        if picture is None:
            raise self._no_frames_error()
        if pts >= self._window.end:
            raise UsageError(f"{self.name} has no frame between {float(self._span.start):g} and "
                             f"{float(self._span.end or 0):g} s")
        return picture, pts

    def _seek_to_start(self) -> tuple[Any, int]:
        """A picture at or before the start, or the first one of the input."""
        from av import FFmpegError

        for margin in SEEK_MARGINS_SECONDS if self._span.start else ():
            target = max(int(self._window.first - margin / self.time_base), self._stream.start_time or 0)
            try:
                self._container.seek(target, stream=self._stream)
            except FFmpegError:
                break
            picture, pts = self._restart()
            if picture is not None and picture.pts is not None and pts <= self._window.first:
                return picture, pts
        if self._span.start:
            self._reopen()
        return self._restart()

    def _restart(self) -> tuple[Any, int]:
        self._start_decoding()
        return self._take()

    def _start_decoding(self) -> None:
        self._broken, self._decoder.damaged, self._last_dts = "", 0, -math.inf
        backwards = f"{self.name} has timestamps that run backwards; they were repaired"
        self._clock = TimestampRepair(
            self._step, CLOCK_RESET_SECONDS / self.time_base, lambda: self._warn_once(backwards)
        )
        self._pictures = self._decode()

    def resume_at(self, position: SourcePosition, index: int, checksum: int) -> None:
        """Go on with frame ``index``, counted from the start of the range: the one at ``position``, whose picture has
        that ``picture_checksum``. All before it are left out.

        It is looked for behind a seek, where the index of the file may be poor, and otherwise by decoding all that
        comes before. Raises SourceError when it is not there.
        """
        self._skipped = index
        for margin in RESUME_MARGINS_SECONDS if position.raw_pts is not None else ():
            if self._seek_near(position, margin) and self._matches(checksum):
                return
        self._reopen()
        self._next = self._first()
        for _ in range(index):
            self._next = self._take()
        if not self._matches(checksum):
            raise SourceError(f"{self.name} decodes into other pictures than before")

    def _seek_near(self, position: SourcePosition, margin: float) -> bool:
        """Decode from a keyframe at least ``margin`` seconds before the position up to it; False if it is not met."""
        from av import FFmpegError

        assert position.raw_pts is not None
        target = position.raw_pts - int(margin / self.time_base)
        if target <= (self._stream.start_time or 0):
            return False
        self._reopen()
        try:
            self._container.seek(target, stream=self._stream)
        except FFmpegError:
            return False
        self._start_decoding()
        for picture in self._pictures:
            if picture.pts == position.raw_pts:
                self._clock.restore(position)
                self._position = position
                self._next = picture, self._clock(picture.pts)
                return True
            if picture.pts is not None and picture.pts > position.raw_pts + CLOCK_RESET_SECONDS / self.time_base:
                break
        return False

    def _matches(self, checksum: int) -> bool:
        picture, pts = self._next
        return picture is not None and picture_checksum(self._frame(picture, pts)) == checksum

    def _reopen(self) -> None:
        color, pixel_aspect = self._decoder.color, self._decoder.pixel_aspect
        self._container.close()
        self._open_stream()
        self._decoder.color, self._decoder.pixel_aspect = color, pixel_aspect

    def _decode(self) -> Iterator[Any]:
        """All pictures from the current position on; damage is counted, not raised."""
        for packet in self._demux():
            yield from self._decoder.decode(packet)

    def _demux(self) -> Iterator[Any]:
        """All packets from the current position on, then None, which flushes the decoder."""
        from av import FFmpegError

        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is not None:
                    self._last_dts = packet.dts
                if packet.size:
                    yield packet
        except FFmpegError as error:
            self._broken = error_text(error)
        yield None

    def _no_frames_error(self) -> StreamdreamError:
        start, origin = self._span.start, clock_origin(self._container)
        last = (self._clock.last or 0) * self.time_base - origin
        end = stated_end(self._container, self._stream)
        length = last if end is None else end - origin
        if start >= length and self._clock.last is not None:
            if self._container.format.name.endswith("_pipe"):
                return UsageError(f"{self.name} is a single picture: it has no frame at {float(start):g} s")
            return UsageError(f"the start at {float(start):g} s is beyond the end of {self.name}, "
                              f"which lasts {float(length):.4g} s")
        if self._clock.last is not None and not self._broken and not self._decoder.damaged:
            return UsageError(f"{self.name} has no frame at or after {float(start):g} s; its last one is at "
                              f"{float(last):.4g} s")
        return SourceError(f"{self.name} is damaged: nothing in it could be decoded")

    def _check_completeness(self, last: Fraction, count: int) -> None:
        """Warn at the end of the input when something is missing. ``last`` is the time of the last frame in s."""
        reached = last + self.last_duration
        if reached >= self._window.end * self.time_base:
            return
        stated = stated_end(self._container, self._stream) or reached
        index: Any = self._stream.index_entries if "mov" in self._container.format.name else ()
        # The index of an mp4 is exact. A stated end is not: the last frame may last long.
        missing = index[-1].timestamp > self._last_dts if index else stated > reached + max(Fraction(1), 10 / self.rate)
        if self._broken or missing:
            length = float(reached - clock_origin(self._container))
            self.warnings.append(f"{self.name} is damaged after {length:.1f} s; the {count} frames before were kept")
        elif stated > last:
            self.last_duration = stated - last
        if self._decoder.damaged:
            self.warnings.append(f"{self._decoder.damaged} damaged packets of {self.name} were skipped")

    def close(self) -> None:
        self._pictures = iter(())
        self._next = None, 0
        self._container.close()

    def __enter__(self) -> AvSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class SourceType:
    """``open`` returns the source for a name that ``matches``."""

    matches: Callable[[str], bool]
    open: Callable[[str, TimeRange], AvSource]


def _open_file(name: str, span: TimeRange) -> AvSource:
    return AvSource(name, lambda: open_file(name), span)


def _open_url(name: str, span: TimeRange) -> AvSource:
    return AvSource(name, lambda: open_container(name, f"cannot open {name}", timeout=URL_TIMEOUT_SECONDS), span)


def _open_lavfi(name: str, span: TimeRange) -> AvSource:
    graph, failure = name.partition(":")[2], f"not a filter graph: {name}"
    return AvSource(name, lambda: open_container(graph, failure, UsageError, format="lavfi"), span)


def _open_sequence(name: str, span: TimeRange) -> AvSource:
    numbers = sorted(sequence_files(name))
    if not numbers:
        raise UsageError(f"no pictures match {name}")
    options = {"start_number": str(numbers[0]), "framerate": str(DEFAULT_RATE), "protocol_whitelist": "file"}
    path, failure = str(Path(name).absolute()), f"{name} cannot be read"
    gap = min(set(range(numbers[0], numbers[-1] + 2)) - set(numbers))
    ends = [end for end in (span.end, (gap - numbers[0]) / DEFAULT_RATE) if end is not None]
    source = AvSource(name, lambda: open_container(path, failure, format="image2", options=options),
                      TimeRange(span.start, min(ends)))
    if gap < numbers[-1]:
        source.warnings.append(f"picture {gap} of {name} is missing; all after it are left out")
    return source


def _open_glob(name: str, span: TimeRange) -> AvSource:
    if not glob_files(name):
        raise UsageError(f"no pictures match {name}")
    options = {"pattern_type": "glob", "framerate": str(DEFAULT_RATE), "protocol_whitelist": "file"}
    path, failure = str(Path(name).absolute()), f"{name} cannot be read"
    return AvSource(name, lambda: open_container(path, failure, format="image2", options=options), span)


SOURCES: dict[str, SourceType] = {
    "lavfi": SourceType(lambda name: name.startswith("lavfi:"), _open_lavfi),
    "url": SourceType(lambda name: "://" in name, _open_url),
    "glob": SourceType(is_glob, _open_glob),
    "sequence": SourceType(lambda name: is_pattern(name) and not Path(name).exists(), _open_sequence),
    "file": SourceType(lambda name: True, _open_file),
}
"""In order; the first match is used."""


def open_source(name: str, start: float = 0, duration: float = math.inf, end: float = math.inf) -> AvSource:
    """Open ``lavfi:GRAPH``, a URL, a pattern of pictures such as ``%04d.png`` or ``*.png``, or a file.

    ``start`` and ``end`` are seconds of the input, ``duration`` counts from ``start``. With a start, frame times count
    from it; without, they are those of the input. Raises SourceError or UsageError.
    """
    span = TimeRange.of(start, duration, end)
    return next(source_type for source_type in SOURCES.values() if source_type.matches(name)).open(name, span)


