"""Put boxes into an mp4 that FFmpeg's muxer does not write. The index is behind the pictures, so no offset moves."""
from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from support.inputs.write import Sound, Video, write

HEADER = 8
SAMPLE_TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
EXTRA = {b"stsd": 8, b"avc1": 78, b"meta": 4}
"""Bytes of a box before the boxes in it."""
SPHERICAL = b"\xff\xcc\x82\x63\xf8\x55\x4a\x93\x88\x14\x58\x7a\x02\x52\x1f\xdd"
SPHERICAL_XML = (b'<?xml version="1.0"?><rdf:SphericalVideo xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
                 b'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">'
                 b"<GSpherical:Spherical>true</GSpherical:Spherical><GSpherical:Stitched>true</GSpherical:Stitched>"
                 b"<GSpherical:StitchingSoftware>test</GSpherical:StitchingSoftware>"
                 b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType></rdf:SphericalVideo>")


def insert(data: bytes, parents: Sequence[bytes], kind: bytes, body: bytes) -> bytes:
    """Add a box at the end of the first box of that path."""
    start, end = 0, len(data)
    for parent in parents:
        place = start
        while data[place + 4:place + 8] != parent:
            place += struct.unpack_from(">I", data, place)[0]
            assert place < end, f"no {parent!r}"
        start, end = place + HEADER + EXTRA.get(parent, 0), place + struct.unpack_from(">I", data, place)[0]
    grown = bytearray(data)
    added = struct.pack(">I", HEADER + len(body)) + kind + body
    start, level = 0, 0
    for parent in parents:
        place = start
        while data[place + 4:place + 8] != parent:
            place += struct.unpack_from(">I", data, place)[0]
        struct.pack_into(">I", grown, place, struct.unpack_from(">I", data, place)[0] + len(added))
        start, level = place + HEADER + EXTRA.get(parent, 0), level + 1
    return bytes(grown[:end] + added + grown[end:])


def edit_clean_aperture(path: Path) -> None:
    """Of the picture of 96x64 only the middle 80x48 are meant to be shown."""
    write(path, Video())
    numbers = struct.pack(">8I", 80, 1, 48, 1, 0, 1, 0, 1)
    path.write_bytes(insert(path.read_bytes(), (*SAMPLE_TABLE, b"avc1"), b"clap", numbers))


def make_spherical(path: Path) -> None:
    """A video all around, of a 360° camera."""
    write(path, Video(), Sound())
    path.write_bytes(insert(path.read_bytes(), (b"moov", b"trak"), b"uuid", SPHERICAL + SPHERICAL_XML))


def make_spatial_sound(path: Path) -> None:
    """An iPhone's second sound track, of a kind that no decoder knows."""
    write(path, Video(), Sound(), Sound(hertz=880))
    data = bytearray(path.read_bytes())
    entry = [place for place in range(len(data))
             if data[place:place + 4] == b"mp4a" and b"stsd" in data[place - 20:place]]
    data[entry[-1]:entry[-1] + 4] = b"apac"
    inner = data.find(b"wave", entry[-1])
    if inner >= 0:
        data[inner:inner + 4] = b"wavX"
    path.write_bytes(bytes(data))


def truncate(path: Path, share: float) -> None:
    """Leave only the first ``share`` of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
