"""Damage of one kind each: (bytes, chance, suffix) -> bytes. The same chance gives the same damage."""
from __future__ import annotations

import contextlib
import io
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random

from fuzz.chunks import find, with_right_crcs

WHOLE = -1
"""The number of a seed file that is not damaged."""
Mutator = Callable[[bytes, Random, str], bytes]
STACKED = 0.25
"""How often further damage is done."""
HEADER_BYTES, HEADER_SHARE = 1500, 0.6
"""Most damage is done where a file describes itself; the rest is mostly samples."""
NUMBERS = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0x3FFFFFFF,
           1 << 40, (1 << 63) - 1, 1 << 63, -2)
SIZES = (1, 3, 16_384, 32_767, 65_535, 30_000, 100_000, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF)
"""Of pictures, in pixels."""
TABLES = {b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"stss", b"elst", b"tkhd", b"mdhd", b"mvhd", b"hdlr", b"stsd",
          b"avcC", b"hvcC", b"esds", b"avih", b"strh", b"strf", b"idx1", b"VP8X", b"ANIM", b"ANMF", b"IHDR", b"iCCP"}
"""Chunks that are chosen more often than others."""
TEXT_VALUES = ("nan", "-nan", "inf", "-inf", "NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "9" * 30, "9" * 400,
               "9" * 5000, "0x7fffffffffffffff", "null", "true", "[]", "{}", '""', '"\\u0000"', '"\\u001b[31m"',
               '"' + "a" * 9000 + '"', '"\\ud800"', "1979-05-27T07:32:00Z", "[1, 2]", '{"a" = 1}', '"mixed3:nan"',
               '"1:2:3:4"', '"²"', "1_0")


def place(data: bytes, chance: Random) -> int:
    """An offset, most often at the beginning or the end."""
    size = len(data)
    if chance.random() > HEADER_SHARE or size <= 2 * HEADER_BYTES:
        return chance.randrange(size)
    return chance.randrange(HEADER_BYTES) if chance.random() < 0.75 else size - 1 - chance.randrange(HEADER_BYTES)


def flip_bits(data: bytes, chance: Random, suffix: str) -> bytes:
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20, 100))):
        result[place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(result)


def noise(data: bytes, chance: Random, suffix: str) -> bytes:
    at, size = place(data, chance), chance.choice((1, 2, 4, 8, 32, 200))
    part = chance.choice((chance.randbytes(size), bytes(size), b"\xff" * size))
    return data[:at] + part + data[at + size:]


def truncate(data: bytes, chance: Random, suffix: str) -> bytes:
    return data[:chance.choice((place(data, chance), chance.randrange(64), len(data) - 1 - chance.randrange(64)))]


def splice(data: bytes, chance: Random, suffix: str) -> bytes:
    """A block is left out, doubled, or moved."""
    at, size = place(data, chance), chance.choice((1, 4, 16, 100, 1000))
    block, to = data[at:at + size], place(data, chance)
    if chance.random() < 0.3:
        return data[:at] + data[at + size:]
    return data[:to] + block * chance.choice((1, 1, 50)) + data[to:]


def numbers(data: bytes, chance: Random, suffix: str) -> bytes:
    """Numbers of 1, 2, 4 or 8 bytes become extreme."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _put_number(result, place(data, chance), chance)
    return bytes(result)


def _put_number(result: bytearray, at: int, chance: Random, values: tuple[int, ...] = NUMBERS, size: int = 0) -> None:
    size = min(size or chance.choice((1, 2, 4, 4, 8)), len(result) - at)
    value = chance.choice(values) & ((1 << 8 * size) - 1)
    result[at:at + size] = value.to_bytes(size, chance.choice(("big", "little")))


def chunk_order(data: bytes, chance: Random, suffix: str) -> bytes:
    """A chunk is left out, doubled, moved, or swapped with another."""
    found = find(data, suffix)
    if not found:
        return splice(data, chance, suffix)
    one, two = sorted((chance.choice(found), chance.choice(found)), key=lambda chunk: chunk.start)
    first, second = data[one.start:one.end], data[two.start:two.end]
    manner = chance.randrange(4)
    if manner == 0:
        return data[:one.start] + data[one.end:]
    if manner == 1:
        return data[:two.start] + first * chance.choice((1, 1, 30)) + data[two.start:]
    if two.start >= one.end:
        return data[:one.start] + second + data[one.end:two.start] + first + data[two.end:]
    return data[:one.end] + second + data[one.end:]


def chunk_sizes(data: bytes, chance: Random, suffix: str) -> bytes:
    """The stated size of a chunk lies."""
    found = find(data, suffix)
    if not found:
        return numbers(data, chance, suffix)
    result = bytearray(data)
    for chunk in chance.sample(found, min(len(found), chance.choice((1, 1, 3)))):
        size = chunk.size_end - chunk.size_at
        true = chunk.end - chunk.start
        value = chance.choice((*NUMBERS, true - 1, true + 1, true * 2, len(data), 8)) & ((1 << 8 * size) - 1)
        result[chunk.size_at:chunk.size_end] = value.to_bytes(size, "big" if chunk.big else "little")
    return _right(bytes(result), chance, suffix)


def chunk_numbers(data: bytes, chance: Random, suffix: str) -> bytes:
    """Numbers within a chunk become extreme: counts, times, offsets, sizes of pictures."""
    found = [chunk for chunk in find(data, suffix) if chunk.leaf and chunk.end > chunk.body]
    if not found:
        return numbers(data, chance, suffix)
    result, special = bytearray(data), [chunk for chunk in found if chunk.kind in TABLES]
    for _ in range(chance.choice((1, 1, 2, 4))):
        chunk = chance.choice(special if special and chance.random() < 0.6 else found)
        size = chunk.end - chunk.body
        if size <= 8:  # a whole number, as Matroska has them
            _put_number(result, chunk.body, chance, size=size)
        else:
            step = chance.choice((1, 2, 4))
            _put_number(result, chunk.body + chance.randrange(0, min(size, 400), step), chance)
    return _right(bytes(result), chance, suffix)


def picture_sizes(data: bytes, chance: Random, suffix: str) -> bytes:
    """Wherever 64 and 48 stand beside each other, or alone, as a width and a height, they become huge."""
    result, spots = bytearray(data), []
    for big in (">", "<"):
        for form in ("HH", "II", "HHH"):
            values = (64, 48) if form != "HHH" else (48, 64, 0)
            spots += [(match.start(), struct.calcsize(form) // len(form), big)
                      for match in re.finditer(re.escape(struct.pack(big + form, *values)), data[:1 << 16])]
    spots += [(match.start() + 2, 1, ">") for match in re.finditer(rb"[\xb0\xba]\x81[\x40\x30]", data[:1 << 16])]
    spots += [(match.start() + 1, 2, ">") for match in re.finditer(rb"\xff[\xc0-\xc2]\0\x11\x08\0\x30\0\x40", data)]
    if not spots:
        return chunk_numbers(data, chance, suffix)
    for at, size, order in chance.sample(spots, min(len(spots), 2)):
        for field in (at, at + size) if chance.random() < 0.7 else (at,):
            value = chance.choice(SIZES) & ((1 << 8 * size) - 1)
            result[field:field + size] = value.to_bytes(size, "big" if order == ">" else "little")
    return _right(bytes(result), chance, suffix)


def nest(data: bytes, chance: Random, suffix: str) -> bytes:
    """A chunk within itself, thousands deep, or many thousands beside each other."""
    masters = [chunk for chunk in find(data, suffix) if not chunk.leaf]
    if not masters:
        return splice(data, chance, suffix)
    chunk, count = chance.choice(masters), chance.choice((20, 300, 20_000))
    if chance.random() < 0.5:
        return data[:chunk.body] + data[chunk.start:chunk.body] * count + data[chunk.body:]
    return data[:chunk.start] + data[chunk.start:chunk.body] * count + data[chunk.start:]


def _right(data: bytes, chance: Random, suffix: str) -> bytes:
    return with_right_crcs(data) if suffix == "png" and chance.random() < 0.85 else data


def text_values(data: bytes, chance: Random, suffix: str) -> bytes:
    """A value of TOML or JSON becomes another kind or extreme, also within a recipe in a binary file."""
    pattern = rb'": ?("[^"\n]*"|[\w.+-]+)' if suffix == "jsonl" else rb'\n[a-z_]+ = ("[^"\n]*"|[\w.+-]+)'
    found = list(re.finditer(pattern, data))
    if not found:
        return numbers(data, chance, suffix)
    for match in sorted(chance.sample(found, min(len(found), chance.choice((1, 1, 3)))), key=lambda m: -m.start()):
        value = chance.choice(TEXT_VALUES).encode()
        if suffix in ("mkv", "png"):  # in place, so that the file around it stays whole
            size = match.end(1) - match.start(1)
            value = value[:size].ljust(size)
        data = data[:match.start(1)] + value + data[match.end(1):]
    return _right(data, chance, suffix)


def text_shapes(data: bytes, chance: Random, suffix: str) -> bytes:
    """Nested deeply, of many parts, with odd characters, or with lines in another order."""
    lines, depth = data.split(b"\n"), chance.choice((10, 900, 3000, 20_000))
    dots = min(depth, 30_000)
    shapes = ([b'{"a":' * depth, b"[" * depth, b'{"format": "streamdream settings 1", "set": ' + b"[" * depth,
               b'{"seconds": 1, "set": {"%s": 1}}' % (b"x" * depth)] if suffix == "jsonl" else
              [b"steps = " + b"[" * depth, b"a" + b".a" * dots + b" = 1",
               b"[" + b"a." * dots + b"b]", b"steps = " + b"{a=" * depth, b"x" * depth + b" = 1",
               b'layers = """' + b"a\\\n" * depth])
    lines.insert(chance.randrange(len(lines)), chance.choice(
        [*shapes, b"\xff\xfe\0", b"\0", "²\u202e = 1".encode(), chance.choice(lines)]))
    if chance.random() < 0.3:
        chance.shuffle(lines)
    return b"\n".join(lines)


def zip_members(data: bytes, chance: Random, suffix: str) -> bytes:
    """A member of a .pth is damaged, and packed again so that the archive around it is right."""
    if suffix != "pth":
        return noise(data, chance, suffix)
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        names = [info.filename for info in old.infolist()]
        pickled = next(name for name in names if name.endswith("data.pkl"))
        chosen = pickled if chance.random() < 0.7 else chance.choice(names)
        damage = chance.choice((flip_bits, noise, truncate, splice, numbers))
        for name in names:
            content = old.read(name)
            new.writestr(name, damage(content, chance, "") if name == chosen and content else content)
    return result.getvalue()


BYTES: tuple[Mutator, ...] = (flip_bits, noise, truncate, splice, numbers)
CHUNKS: tuple[Mutator, ...] = (chunk_order, chunk_sizes, chunk_numbers, picture_sizes, nest)
TEXT: tuple[Mutator, ...] = (text_values, text_values, text_shapes, flip_bits, truncate, splice)


def mutators_of(seed: str) -> tuple[Mutator, ...]:
    """Those that mean something to a seed file."""
    if seed in ("preset", "track"):
        return TEXT
    if seed.startswith("recipe"):
        return (text_values, text_values, flip_bits, chunk_order, chunk_numbers, truncate)
    if seed in ("safetensors", "h5"):
        return BYTES
    if seed == "pth":
        return (*BYTES, zip_members, zip_members)
    if seed in ("gif", "tiff"):
        return (*BYTES, picture_sizes)
    return (*BYTES, *CHUNKS, chunk_numbers, picture_sizes)


def mutate(data: bytes, seed: str, suffix: str, number: int, run_seed: int) -> tuple[bytes, str]:
    """Mutant ``number`` of a seed file, and the name of what was done to it."""
    if number == WHOLE:
        return data, "whole"
    chance, kinds = Random(f"{run_seed} {seed} {number}"), mutators_of(seed)
    kind = kinds[number % len(kinds)]
    damaged = kind(data, chance, suffix)
    with contextlib.suppress(Exception):  # what looks for parts need not find them in a damaged file
        while damaged and chance.random() < STACKED:
            damaged = chance.choice(kinds)(damaged, chance, suffix)
    return damaged, kind.__name__


