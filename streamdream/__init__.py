"""streamdream: live and video Deep Dream. The names below load their modules when they are first used."""
from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "DreamSettings": "settings",
    "StreamSettings": "settings",
    "RenderSettings": "settings",
    "StreamdreamError": "errors",
    "Frame": "media.frame",
    "DreamState": "dream.dreamer",
    "DreamOptions": "dream.options",
    "Dreamer": "dream.dreamer",
    "build_dreamer": "dream.build",
    "render_video": "render.pipeline",
    "open_source": "media.sources.video",
    "open_sink": "media.sinks.registry",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamdream' has no attribute {name!r}")
    return getattr(importlib.import_module(f"streamdream.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
