"""A HEIC photograph: a HEVC picture in HEIF boxes, as phones write it, and an ICC profile of another RGB."""
from __future__ import annotations

import struct
from pathlib import Path

import av

from support.inputs.chart import SIZE
from support.inputs.write import Video, write

ADOBE_RGB = {b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087),
             b"bXYZ": (0.14919, 0.06322, 0.74457)}
"""Primaries, adapted to D50."""


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def write_heic(path: Path) -> None:
    """The chart as HEIC."""
    single = {"x265-params": "bframes=0"}  # with them the times of so few pictures are undefined
    write(path, Video("libx265", frames=1, codec_tag="hvc1", options=single), format="mp4")
    movie = path.read_bytes()
    place = movie.index(b"hvcC") - 4
    configuration = movie[place:place + struct.unpack_from(">I", movie, place)[0]]
    with av.open(str(path)) as source:
        picture = next(bytes(packet) for packet in source.demux(video=0) if packet.size)
    path.write_bytes(_heif(configuration, picture))


def _heif(configuration: bytes, picture: bytes) -> bytes:
    kind = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    color = box(b"colr", b"nclx", struct.pack(">HHHB", 6, 6, 6, 0))
    properties = box(b"ipco", configuration, full_box(b"ispe", struct.pack(">II", *SIZE)), color)
    associations = full_box(b"ipma", struct.pack(">IHBBBB", 1, 1, 3, 0x81, 0x02, 0x03))

    def meta(offset: int) -> bytes:
        return full_box(
            b"meta", full_box(b"hdlr", bytes(4), b"pict", bytes(13)), full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iloc", struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, len(picture))),
            full_box(b"iinf", struct.pack(">H", 1), full_box(b"infe", struct.pack(">HH", 1, 0), b"hvc1\0", version=2)),
            box(b"iprp", properties, associations))

    offset = len(kind) + len(meta(0)) + 8
    return kind + meta(offset) + box(b"mdat", picture)


def adobe_rgb() -> bytes:
    """An ICC profile of Adobe RGB (1998): a wider green, and a gamma of 2.2."""
    tags = {b"wtpt": _xyz(0.9505, 1.0, 1.0891), **{name: _xyz(*color) for name, color in ADOBE_RGB.items()},
            b"desc": b"desc" + bytes(4) + struct.pack(">I", 6) + b"Adobe\0" + bytes(78),
            b"cprt": b"text" + bytes(4) + b"CC0\0",
            **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)))}
    table, data, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s12s4s", 128 + len(table) + len(data), bytes(4), 0x02400000, b"mntr", b"RGB ",
                         b"XYZ ", bytes(12), b"acsp")
    return header + bytes(28) + _xyz(0.9642, 1.0, 0.8249)[8:] + bytes(48) + table + data


def _xyz(*numbers: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(number * 65536) for number in numbers))
