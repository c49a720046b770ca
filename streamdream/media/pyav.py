"""The differences between PyAV 18 (Python 3.11) and 19 (Python 3.12 and later), and a fault of both."""
from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal


def open_av(target: Any, mode: Literal["r", "w"] = "r", **options: Any) -> Any:
    """Call ``av.open`` so that metadata which is not UTF-8 survives a copy, with its odd bytes as surrogates.

    PyAV 19 does that by itself and has no option for it. Raises what ``av.open`` raises.
    """
    import av

    if int(av.__version__.partition(".")[0]) < 19:
        options["metadata_errors"] = "surrogateescape"
    return av.open(target, mode, **options)


def side_data(picture: Any, kind: str) -> bytes | None:
    """Of a decoded frame, by FFmpeg's name of the kind, such as ``DISPLAYMATRIX``; None where there is none."""
    try:
        stored = picture.side_data.get(kind)
    except ValueError:  # PyAV 18 reads none at all where it does not know the kind of one
        return None
    return None if stored is None else bytes(stored)


def pads_all_hidden() -> bool:
    """Whether FFmpeg states all that an edit list hides as the delay of a copied stream, as version 8 does."""
    import av

    return int(av.__version__.partition(".")[0]) >= 19


def fraction(value: Any, default: Fraction = Fraction(0)) -> Fraction:
    """A rational of PyAV (``Fraction`` or its own class; ``None`` or 0 when unset) -> Fraction."""
    return Fraction(value.numerator, value.denominator) if value else default


def copy_times(picture: Any, into: Any) -> None:
    """Give a picture the times of another one; those that a decoder gives at its end have no time base."""
    into.pts, into.dts, into.duration = picture.pts, picture.dts, picture.duration
    if picture.time_base is not None:
        into.time_base = picture.time_base


def demux(container: Any, *streams: Any) -> Iterator[Any]:
    """``container.demux``, which raises IndexError at the end where streams appeared in the middle of the file."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        return
