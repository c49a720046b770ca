"""Real pictures and clips, which come with gradio."""
from __future__ import annotations

from pathlib import Path

from streamdream_bench import clips


def gradio_asset(name: str) -> Path:
    return Path(clips.gradio_asset(name))
