"""What can be seen of a weight file without reading it: that it begins, and goes on, as its format does."""
from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

MAX_HEADER_BYTES = 1 << 24
PICKLE = b"\x80\x02"
"""What a ``.pth`` of PyTorch before 1.6 begins with, which does not tell its length; later ones are zip archives."""


def find_fault(path: Path) -> str:
    """"" for a file that looks like its suffix, else what is wrong, as in ``is damaged or truncated``.

    A few milliseconds: sizes and headers are compared, contents are not. Loading the weights checks the rest.
    """
    try:
        with path.open("rb") as file:
            whole = CHECKS[path.suffix](file, path.stat().st_size)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    return "" if whole else "is damaged or truncated"


def _safetensors(file: IO[bytes], size: int) -> bool:
    header_bytes = int.from_bytes(file.read(8), "little")
    if header_bytes > min(size, MAX_HEADER_BYTES):
        return False
    header = json.loads(file.read(header_bytes))
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return bool(size == 8 + header_bytes + end)


def _pytorch(file: IO[bytes], size: int) -> bool:
    return file.read(2) == PICKLE or zipfile.is_zipfile(file)


def _hdf5(file: IO[bytes], size: int) -> bool:
    start = file.read(64)  # the superblock: its version, and further on the address of the file's end
    at = 28 if start[8] >= 2 else 40 + 4 * start[8]
    return start.startswith(b"\x89HDF\r\n\x1a\n") and int.from_bytes(start[at:at + 8], "little") <= size


def _protobuf(file: IO[bytes], size: int) -> bool:
    """Whether the fields of the outermost message fill the file."""
    while file.tell() < size:
        number, wire_type = divmod(_varint(file), 8)
        if number == 0:
            return False
        if wire_type == 0:
            _varint(file)
        elif wire_type in (1, 5):
            file.seek(8 if wire_type == 1 else 4, 1)
        elif wire_type == 2:
            file.seek(_varint(file), 1)
        else:
            return False
    return 0 < size == file.tell()


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("no number")


CHECKS: dict[str, Callable[[IO[bytes], int], bool]] = {
    ".safetensors": _safetensors,
    ".pth": _pytorch,
    ".pt": _pytorch,
    ".h5": _hdf5,
    ".caffemodel": _protobuf,
    ".pb": _protobuf,
}
"""By suffix, as in ``fetch.SUFFIXES``: (the file at its beginning, its size in bytes) -> whether it looks whole."""
