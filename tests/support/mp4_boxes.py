"""Put boxes into the description of the video of an mp4, which PyAV's muxer does not write."""
from __future__ import annotations

import struct
from pathlib import Path

PARENTS = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"]


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


def clean_aperture(width: int, height: int, right: int = 0, down: int = 0) -> bytes:
    """``clap``: the size to be shown, and how far its centre is from that of the picture, in pixels."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right, 1, down, 1))


def equirectangular() -> bytes:
    """``sv3d``: the picture is the inside of a sphere."""
    header = box(b"svhd", bytes(4) + b"test\0")
    projection = box(b"proj", box(b"prhd", bytes(16)) + box(b"equi", bytes(20)))
    return box(b"sv3d", header + projection)


def side_by_side() -> bytes:
    """``st3d``: the picture is one for each eye."""
    return box(b"st3d", bytes(4) + b"\2")


def add_boxes(path: str, *boxes: bytes) -> str:
    """To an mp4 of H.264 whose index comes last."""
    data, added = bytearray(Path(path).read_bytes()), b"".join(boxes)
    start, places = 0, []
    for kind in PARENTS:
        start = data.index(kind, start)
        places.append(start - 4)
    end = places[-1] + struct.unpack_from(">I", data, places[-1])[0]
    for place in places:
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(added))
    data[end:end] = added
    Path(path).write_bytes(data)
    return path
