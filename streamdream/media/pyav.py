"""The differences between PyAV 18 (Python 3.11) and 19 (Python 3.12 and later), and a fault of both."""
from __future__ import annotations

import ctypes
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

NATIVE_LAYOUTS = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}
"""For that many channels."""


def open_av(target: Any, mode: Literal["r", "w"] = "r", **options: Any) -> Any:
    """Call ``av.open`` so that metadata which is not UTF-8 survives a copy, with its odd bytes as surrogates.

    PyAV 19 does that by itself and has no option for it. Raises what ``av.open`` raises.
    """
    import av

    if int(av.__version__.partition(".")[0]) < 19:
        options["metadata_errors"] = "surrogateescape"
    container = av.open(target, mode, **options)
    for stream in container.streams.audio if mode == "r" else ():
        _replace_custom_layout(stream.codec_context)
    return container


def side_data(picture: Any, kind: str) -> bytes | None:
    """Of a decoded frame, by FFmpeg's name of the kind, such as ``DISPLAYMATRIX``; None where there is none."""
    try:
        stored = picture.side_data.get(kind)
    except ValueError:  # PyAV 18 reads none at all where it does not know the kind of one
        return None
    return None if stored is None else bytes(stored)


def side_data_kinds(picture: Any) -> set[str]:
    """FFmpeg's names of what a decoded frame has; those that PyAV knows."""
    try:
        return {getattr(data, "type", data).name for data in picture.side_data}  # PyAV 19 gives the kinds themselves
    except ValueError:  # as above
        return set()


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


def _replace_custom_layout(context: Any) -> None:
    """Give a sound decoder one of FFmpeg's own channel layouts where the file has the channels in another order.

    PyAV frees the list of such an order twice, for each look at it and for each decoded frame, which ends the process.
    """
    if context is None:
        return
    layout = context.layout
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))  # never freed: that would be the first of the two times
    if "(" in layout.name:  # as "8 channels (FL+FR+FC+LFE+SL+SR+BL+BR)"; also those in FFmpeg's order without a name
        context.layout = NATIVE_LAYOUTS.get(layout.nb_channels, f"{layout.nb_channels}c")
