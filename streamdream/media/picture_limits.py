"""How large a picture a file may hold: a small file that claims a huge one is damaged, or made to fill the memory."""
from __future__ import annotations

from streamdream.errors import SourceError

ANY_FILE_PIXELS = 8192 * 4320
"""What a file of any size may hold: 8K."""
PIXELS_PER_BYTE = 100
"""Of a larger picture; photographs and videos have far fewer."""
MAX_VIDEO_PIXELS = 1 << 26
"""Decoder, queues and encoder hold dozens of pictures."""


def max_pixels(file_bytes: int, at_most: int = MAX_VIDEO_PIXELS) -> int:
    """Of a picture in a file of that size; 0 or less is an unknown one."""
    return min(at_most, max(ANY_FILE_PIXELS, PIXELS_PER_BYTE * file_bytes)) if file_bytes > 0 else at_most


def check_pixels(name: str, width: int, height: int, limit: int) -> None:
    """Raises SourceError for a picture of more than ``limit`` pixels."""
    if width * height > limit:
        raise SourceError(f"{name} claims pictures of {width}x{height}, too many for a file of its size")
