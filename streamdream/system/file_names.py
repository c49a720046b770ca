"""When two file names are one."""
from __future__ import annotations

import unicodedata


def fold_name(name: str) -> str:
    """Fold a name as a file system does that ignores case or normalizes Unicode."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
