"""Wait until a condition holds; fail when it does not within a time."""
from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 20.0, about: Callable[[], object] = lambda: "") -> float:
    """Return the seconds that it took; a failure shows ``about()``."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"it did not happen in {seconds} s; {about()}"
        time.sleep(0.01)
    return time.monotonic() - began
