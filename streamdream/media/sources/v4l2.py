"""What a camera on Linux can do: the three questions of linux/videodev2.h, asked until it has no more answers."""
from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

ENUM_FORMATS, ENUM_SIZES, ENUM_INTERVALS = 0xC0405602, 0xC02C564A, 0xC034564B  # VIDIOC_ENUM_FMT, _FRAMESIZES, ...
CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
DISCRETE = 1  # V4L2_FRMSIZE_TYPE_DISCRETE and V4L2_FRMIVAL_TYPE_DISCRETE; the others are ranges
FORMAT = struct.Struct("=II4x32s4s16x")  # struct v4l2_fmtdesc: index, type, (flags,) description, pixelformat
SIZE = struct.Struct("=I4sI6I8x")  # v4l2_frmsizeenum: index, pixel_format, type; width, height | least, most, step each
INTERVAL = struct.Struct("=I4sIII6I8x")  # v4l2_frmivalenum: index, pixel_format, width, height, type; fractions of a s
MAX_ENTRIES = 256
"""Answers to one question; a driver that goes on for ever is not believed."""

Query = Callable[[int, bytearray], bool]
"""Sends a request with its structure, which it fills in. False: there is no such entry."""


def ioctl_query(descriptor: int) -> Query:
    """An open device."""
    import fcntl

    def ask(request: int, data: bytearray) -> bool:
        try:
            fcntl.ioctl(descriptor, request, data)
        except OSError:
            return False
        return True

    return ask


def modes(ask: Query) -> Iterator[tuple[str, int, int, tuple[float, ...]]]:
    """Format, width, height and rates; of a size that is free between two, the most."""
    for index in range(MAX_ENTRIES):
        data = bytearray(FORMAT.pack(index, CAPTURE, b"", b""))
        if not ask(ENUM_FORMATS, data):
            return
        pixels = FORMAT.unpack(data)[3]
        for width, height in _sizes(ask, pixels):
            yield pixels.decode("ascii", "replace").strip(), width, height, tuple(_rates(ask, pixels, width, height))


def _sizes(ask: Query, pixels: bytes) -> Iterator[tuple[int, int]]:
    for index in range(MAX_ENTRIES):
        data = bytearray(SIZE.pack(index, pixels, *[0] * 7))
        if not ask(ENUM_SIZES, data):
            return
        kind, width, most_wide, _, _, most_high, _ = SIZE.unpack(data)[2:]
        if kind != DISCRETE:
            yield most_wide, most_high
            return
        yield width, most_wide  # a discrete size is width, height


def _rates(ask: Query, pixels: bytes, width: int, height: int) -> Iterator[float]:
    for index in range(MAX_ENTRIES):
        data = bytearray(INTERVAL.pack(index, pixels, width, height, *[0] * 7))
        if not ask(ENUM_INTERVALS, data):
            return
        kind, numerator, denominator = INTERVAL.unpack(data)[4:7]
        if numerator:
            yield round(denominator / numerator, 2)
        if kind != DISCRETE:
            return
