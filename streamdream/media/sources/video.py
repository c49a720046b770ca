"""Read frames from files, network streams and test patterns by PyAV.

``open_source`` chooses the type by the name; a new type is one more row of ``SOURCES``. Pictures are read by
``picture_sequence.py``.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from streamdream.errors import UsageError
from streamdream.media.frame import Frame
from streamdream.media.hardware_decoding import IN_SOFTWARE, Hwaccel
from streamdream.media.hdr_metadata import HdrMetadata
from streamdream.media.input_container import ColorTags, TimeRange, open_container, open_file
from streamdream.media.picture_files import is_picture_input
from streamdream.media.sources.av_source import AvSource
from streamdream.media.sources.picture_sequence import open_pictures
from streamdream.media.sources.pipe import STDIN, is_pipe, open_pipe
from streamdream.media.timestamps import SourcePosition

URL_TIMEOUT_SECONDS = 15.0


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
    transparent: bool
    """Whether the first ``Frame.picture`` is not opaque everywhere; its format may have alpha all the same."""
    pixel_aspect: Fraction
    """Width of a pixel by its height."""
    last_duration: Fraction
    """Seconds that the last frame lasts; 0 before it was delivered, or when unknown."""
    warnings: list[str]
    """One line for each fault; grows while reading."""

    @property
    def decoder(self) -> str:
        """What decodes it now: ``hardware_decoding.SOFTWARE``, or FFmpeg's type of a device, such as cuda."""

    @property
    def decoder_reason(self) -> str:
        """Why software does, where a device might."""

    @property
    def constant_rate(self) -> bool:
        """Whether all frames come at ``rate``, as far as that is known from the first ones."""

    @property
    def hdr_metadata(self) -> HdrMetadata | None:
        """Of the first picture."""

    def __iter__(self) -> Iterator[Frame]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Source: ...
    def __exit__(self, *error: object) -> None: ...


class FileSource(Source, Protocol):
    """One that a render can go on with."""

    def deliver_pictures(self, image_height: int, image_width: int) -> None:
        """Give each frame its ``picture``, too, and an ``image`` of that size. To be called before the first frame."""

    def resume_at(self, position: SourcePosition, index: int, checksum: int | None) -> None:
        """Go on with frame ``index``, counted from the start of the range: the one at ``position``, whose picture has
        that ``picture_checksum``, if it is known. Raises SourceError when it is not there.
        """

    def __enter__(self) -> FileSource: ...


@dataclass(frozen=True)
class SourceType:
    """``open`` returns the source for a name that ``matches``."""

    matches: Callable[[str], bool]
    open: Callable[[str, TimeRange, str, Hwaccel], AvSource]
    """``deinterlace`` and ``hwaccel`` are its last arguments."""


def _open_file(name: str, span: TimeRange, deinterlace: str, hwaccel: Hwaccel) -> AvSource:
    return AvSource(name, lambda **options: open_file(name, **options), span, deinterlace, hwaccel=hwaccel)


def _open_url(name: str, span: TimeRange, deinterlace: str, hwaccel: Hwaccel) -> AvSource:
    return AvSource(name, lambda **options: open_container(name, f"cannot open {name}", timeout=URL_TIMEOUT_SECONDS,
                                                           **options), span, deinterlace, hwaccel=hwaccel)


def _open_pipe(name: str, span: TimeRange, deinterlace: str, hwaccel: Hwaccel) -> AvSource:
    source = AvSource("the standard input" if name == STDIN else name, lambda: open_pipe(name), span, deinterlace,
                      is_seekable=False, hwaccel=hwaccel)
    if source.has_sound:
        source.warnings.append(f"the sound of {source.name} is left out: sound is copied from files")
    return source


def _open_lavfi(name: str, span: TimeRange, deinterlace: str, hwaccel: Hwaccel) -> AvSource:
    graph, failure = name.partition(":")[2], f"not a filter graph: {name}"
    return AvSource(name, lambda: open_container(graph, failure, UsageError, format="lavfi"), span, deinterlace)


SOURCES: dict[str, SourceType] = {
    "lavfi": SourceType(lambda name: name.startswith("lavfi:"), _open_lavfi),
    "url": SourceType(lambda name: "://" in name, _open_url),
    "pipe": SourceType(is_pipe, _open_pipe),
    "file": SourceType(lambda name: True, _open_file),
}
"""In order; the first match is used."""


def open_source(name: str, start: float = 0, duration: float = math.inf, end: float = math.inf,
                deinterlace: str = "auto", rate: float = 0, hwaccel: Hwaccel = IN_SOFTWARE) -> FileSource:
    """Open ``lavfi:GRAPH``, a URL, ``-`` (the standard input), a file, which may be a pipe, or pictures: a folder,
    ``%04d.png``, ``*.png``, or what ``picture_files.join_list`` makes of a list; ``rate`` is of those, 0 for 25/s.

    ``start`` and ``end`` are seconds of the input, ``duration`` counts from ``start``. With a start, frame times count
    from it; without, they are those of the input. ``deinterlace`` is one of ``deinterlace.MODES``; ``hwaccel`` says
    what decodes. Raises SourceError, UsageError or MissingPackage.
    """
    span = TimeRange.of(start, duration, end)
    if not is_pipe(name) and is_picture_input(name):
        return open_pictures(name, span, rate)
    if rate:
        raise UsageError(f"-r is for pictures without times; {name} has its own")
    kind = next(source_type for source_type in SOURCES.values() if source_type.matches(name))
    return kind.open(name, span, deinterlace, hwaccel)
