"""Where streamdream keeps what it can make again: engines, weights, measurements."""
from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def cache_dir(kind: str) -> Path:
    """``kind`` in $STREAMDREAM_CACHE, or in the platform's cache folder; it need not exist."""
    if moved := os.environ.get("STREAMDREAM_CACHE"):
        return Path(moved).expanduser() / kind
    import platformdirs

    return Path(platformdirs.user_cache_dir("streamdream", appauthor=False)) / kind
