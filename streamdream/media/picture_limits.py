"""How large a picture a file may hold: a small file that claims a huge one is damaged, or made to fill the memory."""
from __future__ import annotations

from streamdream.errors import SourceError

ANY_FILE_PIXELS = 8192 * 4320
"""What a file of any size may hold: 8K."""
PIXELS_PER_BYTE = 100
"""Of a larger picture; photographs and videos have far fewer."""
MAX_PIXELS = 1 << 26
"""Of a video: decoder, queues and encoder hold dozens of pictures."""


def max_pixels(file_bytes: int) -> int:
    """Of a picture of a video file of that size; 0 or less is an unknown one."""
    return min(MAX_PIXELS, max(ANY_FILE_PIXELS, PIXELS_PER_BYTE * file_bytes)) if file_bytes > 0 else MAX_PIXELS


def check_pixels(name: str, width: int, height: int, limit: int) -> None:
    """Raises SourceError for a picture of more than ``limit`` pixels."""
    if width * height > limit:
        raise SourceError(f"{name} claims pictures of {width}x{height}, too many for a file of its size")
