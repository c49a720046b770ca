"""Import Gradio without the type stubs that it writes into its own package at each start: a third of the time."""
from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_stubs() -> Iterator[None]:
    """Within it, Gradio finds no source file of a component, and so writes no stub (``component_meta.py``)."""
    find = inspect.getfile

    def getfile(thing: Any) -> str:
        if type(thing).__name__ == "ComponentMeta":
            raise OSError("no stub is wanted")
        return find(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = find


def load() -> None:
    """Import Gradio so, and without telemetry. Later imports find it loaded."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))  # local counts load pandas for each event
    with without_stubs():
        import gradio  # noqa: F401
