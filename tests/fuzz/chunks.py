"""Find the parts that files are made of, so that a mutator can swap them and falsify what they say of themselves."""
from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_DEPTH, MAX_CHUNKS = 9, 4000


@dataclass(frozen=True)
class Chunk:
    """Of a file: bytes ``start`` to ``end``, of which the contents begin at ``body``; its size is written in the bytes
    ``size_at`` to ``size_end``, big- or little-endian.
    """

    kind: bytes
    start: int
    body: int
    end: int
    size_at: int
    size_end: int
    big: bool = True
    leaf: bool = True


BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"edts", b"dinf", b"ilst", b"moof", b"traf", b"mvex"}
ENTRIES = {b"stsd": 8, b"meta": 4, b"hvc1": 78, b"avc1": 78, b"mp4a": 28, b"hev1": 78}
"""Boxes whose contents begin with so many bytes before the boxes within."""


def boxes(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Chunk]:
    while start + 8 <= end and depth < MAX_DEPTH:
        size, kind = struct.unpack_from(">I4s", data, start)
        stop = start + size if 8 <= size <= end - start else end
        inner = start + 8 + (0 if kind in BOXES else ENTRIES.get(kind, -1))
        yield Chunk(kind, start, start + 8, stop, start, start + 4, leaf=inner < start + 8)
        if inner >= start + 8:
            yield from boxes(data, inner, stop, depth + 1)
        start = stop


def riff(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Chunk]:
    while start + 8 <= end and depth < MAX_DEPTH:
        kind, size = struct.unpack_from("<4sI", data, start)
        stop = min(start + 8 + size + size % 2, end)
        nested = kind in (b"RIFF", b"LIST")
        yield Chunk(kind, start, start + 8, stop, start + 4, start + 8, big=False, leaf=not nested)
        if nested:
            yield from riff(data, start + 12, stop, depth + 1)
        start = stop


EBML_MASTERS = {number.to_bytes((number.bit_length() + 7) // 8, "big") for number in (
    0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB, 0xB7,
    0x1254C367, 0x7373, 0x67C8, 0x1941A469, 0x61A7, 0x1043A770, 0x45B9, 0xB6, 0x80, 0x114D9B74, 0x4DBB, 0x75A1, 0xA6,
    0x63C0, 0x55B0)}


def ebml_number(data: bytes, at: int, keep_marker: bool) -> tuple[int, int]:
    """(value, length in bytes)"""
    length = 9 - data[at].bit_length() if data[at] else 8
    value = int.from_bytes(data[at:at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def ebml(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Chunk]:
    while start + 2 <= end and depth < MAX_DEPTH:
        _, id_length = ebml_number(data, start, True)
        size_at = start + id_length
        if size_at >= end:
            return
        size, length = ebml_number(data, size_at, False)
        body = size_at + length
        kind, stop = data[start:size_at], min(body + size, end)
        yield Chunk(kind, start, body, stop, size_at, body, leaf=kind not in EBML_MASTERS)
        if kind in EBML_MASTERS:
            yield from ebml(data, body, stop, depth + 1)
        start = stop


def png(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Chunk]:
    start += 8
    while start + 12 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        stop = min(start + 12 + size, end)
        yield Chunk(kind, start, start + 8, stop, start, start + 4)
        start = stop


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_right_crcs(data: bytes) -> bytes:
    """A PNG file whose chunks were changed, with checksums that are right again: else nobody looks into them."""
    result = bytearray(data)
    for chunk in png(data, 0, len(data)):
        struct.pack_into(">I", result, chunk.end - 4, zlib.crc32(data[chunk.start + 4:chunk.end - 4]))
    return bytes(result)


def jpeg(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Chunk]:
    at = start + 2
    while at + 4 <= end and data[at] == 0xFF:
        size = int.from_bytes(data[at + 2:at + 4], "big")
        stop = min(at + 2 + size, end)
        yield Chunk(data[at:at + 2], at, at + 4, stop, at + 2, at + 4)
        if data[at + 1] == 0xDA:  # what follows is the picture
            return
        at = stop


def packets(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Chunk]:
    """Of an MPEG transport stream; nothing says how long they are."""
    for at in range(start, end - 187, 188):
        yield Chunk(b"ts", at, at + 1, at + 188, at + 1, at + 5)


def protobuf(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Chunk]:
    """Fields with a length; those that look like messages are entered."""
    while start < end and depth < 5:
        key, body = _varint(data, start, end)
        size_at = body
        if key % 8 == 0:
            _, start = _varint(data, body, end)
            continue
        if key % 8 in (1, 5):
            start = body + (8 if key % 8 == 1 else 4)
            continue
        size, body = _varint(data, body, end)
        if key % 8 != 2 or body + size > end:
            return
        leaf = size > 4096 or depth > 2
        yield Chunk(b"%d" % (key >> 3), start, body, body + size, size_at, body, big=False, leaf=leaf)
        if size <= 4096 or depth < 1:
            yield from protobuf(data, body, body + size, depth + 1)
        start = body + size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at


FINDERS: dict[str, Callable[[bytes, int, int], Iterator[Chunk]]] = {
    "mp4": boxes, "mov": boxes, "mkv": ebml, "webm": ebml, "avi": riff, "webp": riff, "png": png, "jpg": jpeg,
    "ts": packets, "caffemodel": protobuf, "pb": protobuf}


def find(data: bytes, suffix: str) -> list[Chunk]:
    """The chunks of a file, in order; none in a format that has none."""
    finder = FINDERS.get(suffix)
    found = [] if finder is None else list(finder(data, 0, len(data)))
    return found[:MAX_CHUNKS]
