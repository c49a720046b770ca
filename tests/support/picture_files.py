"""Makes what cameras and phones write: turned pictures, wide colours, HEIC files."""
from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CORNERS: list[tuple[int, ...]] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
"""Colours of an upright chart: left and right of its upper half, then of the lower."""
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_270}
ORIENTATIONS = (1, *TURNS)


def chart(width: int = 60, height: int = 40) -> Image.Image:
    image = Image.new("RGB", (width, height))
    for number, color in enumerate(CORNERS):
        left, top = number % 2 * width // 2, number // 2 * height // 2
        image.paste(color, (left, top, left + width // 2, top + height // 2))
    return image


def stored_as(orientation: int, width: int = 60, height: int = 40) -> Image.Image:
    """The chart as a camera stores it that writes this number of Exif."""
    image = chart(width, height)
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def display_p3(gamma: float = 0.0) -> bytes:
    """An ICC profile of the primaries of Display P3, with the curve of sRGB, or a power."""
    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def text(kind: bytes, value: str) -> bytes:
        data = value.encode("utf-16-be")
        return kind + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(map(number, values))

    values = (gamma,) if gamma else (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    curve = b"para" + bytes(4) + struct.pack(">HH", 0 if gamma else 3, 0) + b"".join(map(number, values))
    tags = {b"desc": text(b"mluc", "Display P3"), b"cprt": text(b"mluc", "CC0"), b"wtpt": xyz(0.9642, 1, 0.82491),
            b"rXYZ": xyz(0.51512, 0.2412, -0.00105), b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
            b"bXYZ": xyz(0.1571, 0.06657, 0.78407), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = (struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x04000000, b"mntr", b"RGB ", b"XYZ ")
              + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
              + xyz(0.9642, 1, 0.82491)[8:] + bytes(48))
    return header + struct.pack(">I", len(tags)) + table + body


def heic(kind: str) -> bytes:
    """The chart, 128x96, as a phone writes it.

    ``plain``; ``turned``: stored on its side, with a rotation of its own and one in Exif; ``deep``: of 10 bits;
    ``grid``: of four tiles.
    """
    image = chart(128, 96)
    exif = Image.Exif()
    if kind == "turned":
        image = image.transpose(Image.Transpose.ROTATE_90)  # counter-clockwise
        exif[0x0112] = 6
    tiles = [image] if kind != "grid" else [image.crop((x, y, x + 64, y + 48)) for y in (0, 48) for x in (0, 64)]
    coded = [_hevc(np.asarray(tile), "yuv420p10le" if kind == "deep" else "yuv420p") for tile in tiles]
    boxes = [_box(b"hvcC", coded[0][0]), _full(b"ispe", struct.pack(">II", *tiles[0].size))]
    items = [(b"hvc1", data) for _, data in coded]
    properties = [[1, 2] for _ in items]
    references = b""
    if kind == "grid":
        boxes.append(_full(b"ispe", struct.pack(">II", *image.size)))
        items.append((b"grid", struct.pack(">BBBBHH", 0, 0, 1, 1, *image.size)))
        properties.append([3])
        references = _box(b"dimg", struct.pack(">HH4H", 5, 4, 1, 2, 3, 4))
    primary = len(items)
    if kind == "turned":
        boxes.append(_box(b"irot", b"\x03"))  # three quarters of a turn counter-clockwise
        properties[0].append(3)
        items.append((b"Exif", bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")))
        properties.append([])
        references = _box(b"cdsc", struct.pack(">HHH", 2, 1, 1))
    return _heif(items, properties, boxes, references, primary)


def tiled_heic(width: int, height: int, side: int = 512) -> bytes:
    """A picture of that size, on its side, in Display P3, as phones write it: the same noisy tile again and again."""
    columns, rows = -(-width // side), -(-height // side)
    noise = np.random.default_rng(1).integers(0, 40, (side, side, 3), np.uint8)
    configuration, data = _hevc(noise + np.asarray(chart(side, side)) // 2, "yuv420p")
    count = columns * rows
    boxes = [_box(b"hvcC", configuration), _full(b"ispe", struct.pack(">II", side, side)),
             _full(b"ispe", struct.pack(">II", width, height)), _box(b"irot", b"\x03"),
             _box(b"colr", b"prof", display_p3())]
    items = [(b"hvc1", data)] * count + [(b"grid", struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height))]
    references = _box(b"dimg", struct.pack(f">HH{count}H", count + 1, count, *range(1, count + 1)))
    return _heif(items, [[1, 2]] * count + [[3, 4, 5]], boxes, references, count + 1)


def _hevc(image: NDArray[np.uint8], pixels: str) -> tuple[bytes, bytes]:
    """The decoder's configuration, and a key frame."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        options = {"x265-params": "log-level=none:qp=10:pools=none:bframes=0"}
        stream: Any = output.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], pixels
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24").reformat(
            format=pixels, dst_colorspace=5, dst_color_range=1)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as container:
        video = container.streams.video[0]
        packet = next(packet for packet in container.demux(video) if packet.size)
        return bytes(video.codec_context.extradata or b""), bytes(packet)


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _full(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24), *parts)


def _heif(items: list[tuple[bytes, bytes]], properties: list[list[int]], boxes: list[bytes], references: bytes,
          primary: int) -> bytes:
    def meta(start: int) -> bytes:
        places = b""
        for number, (_, data) in enumerate(items, 1):
            places += struct.pack(">HHHII", number, 0, 1, start, len(data))
            start += len(data)
        kinds = b"".join(_full(b"infe", struct.pack(">HH4s", number, 0, kind) + b"\0", version=2)
                         for number, (kind, _) in enumerate(items, 1))
        uses = b"".join(struct.pack(">HB", number, len(used)) + bytes(0x80 | index for index in used)
                        for number, used in enumerate(properties, 1))
        return _full(b"meta", _full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
                     _full(b"pitm", struct.pack(">H", primary)),
                     _full(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)), places),
                     _full(b"iinf", struct.pack(">H", len(items)), kinds),
                     _full(b"iref", references) if references else b"",
                     _box(b"iprp", _box(b"ipco", *boxes),
                          _full(b"ipma", struct.pack(">I", len(properties)), uses)))

    kind = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    start = len(kind) + len(meta(0)) + 8
    return kind + meta(start) + _box(b"mdat", *(data for _, data in items))
