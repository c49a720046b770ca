"""List the modes of a camera on Linux by the three enumeration requests of linux/videodev2.h."""
from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

ENUM_FORMATS, ENUM_SIZES, ENUM_INTERVALS = 0xC0405602, 0xC02C564A, 0xC034564B  # VIDIOC_ENUM_FMT, _FRAMESIZES, ...
CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
DISCRETE = 1  # V4L2_FRMSIZE_TYPE_DISCRETE and V4L2_FRMIVAL_TYPE_DISCRETE; the others are ranges
FORMAT = struct.Struct("=II4x32s4s16x")  # struct v4l2_fmtdesc: index, type, (flags,) description, pixelformat
SIZE = struct.Struct("=I4sI6I8x")  # v4l2_frmsizeenum: index, pixel_format, type; width, height | min, max, step each
INTERVAL = struct.Struct("=I4sIII6I8x")  # v4l2_frmivalenum: index, pixel_format, width, height, type; fractions of a s
MAX_ENTRIES = 256
"""Of one enumeration; a broken driver may never end it."""

Query = Callable[[int, bytearray], bool]
"""Send a request with its structure, which the driver fills in; False when there is no such entry."""


def ioctl_query(descriptor: int) -> Query:
    """The query function of an open device."""
    import fcntl

    def query(request: int, data: bytearray) -> bool:
        try:
            fcntl.ioctl(descriptor, request, data)
        except OSError:
            return False
        return True

    return query


def modes(query: Query) -> Iterator[tuple[str, int, int, tuple[float, ...]]]:
    """Format, width, height and rates; the maximum of a range of sizes."""
    for index in range(MAX_ENTRIES):
        data = bytearray(FORMAT.pack(index, CAPTURE, b"", b""))
        if not query(ENUM_FORMATS, data):
            return
        pixels = FORMAT.unpack(data)[3]
        for width, height in _sizes(query, pixels):
            yield pixels.decode("ascii", "replace").strip(), width, height, tuple(_rates(query, pixels, width, height))


def _sizes(query: Query, pixels: bytes) -> Iterator[tuple[int, int]]:
    for index in range(MAX_ENTRIES):
        data = bytearray(SIZE.pack(index, pixels, *[0] * 7))
        if not query(ENUM_SIZES, data):
            return
        kind, width, max_width, _, _, max_height, _ = SIZE.unpack(data)[2:]
        if kind != DISCRETE:
            yield max_width, max_height
            return
        yield width, max_width  # a discrete size has its height there


def _rates(query: Query, pixels: bytes, width: int, height: int) -> Iterator[float]:
    for index in range(MAX_ENTRIES):
        data = bytearray(INTERVAL.pack(index, pixels, width, height, *[0] * 7))
        if not query(ENUM_INTERVALS, data):
            return
        kind, numerator, denominator = INTERVAL.unpack(data)[4:7]
        if numerator:
            yield round(denominator / numerator, 2)
        if kind != DISCRETE:
            return
