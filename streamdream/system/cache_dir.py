"""The folders of files that can be made again: engines, weights, measurements."""
from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def cache_dir(kind: str) -> Path:
    """``kind`` in $STREAMDREAM_CACHE, or in the platform's cache folder; it need not exist."""
    if root := os.environ.get("STREAMDREAM_CACHE"):
        return Path(root).expanduser() / kind
    import platformdirs

    return Path(platformdirs.user_cache_dir("streamdream", appauthor=False)) / kind
