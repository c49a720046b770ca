"""A small network whose weights tests fetch from a server of their own."""
from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save

from streamdream import models
from streamdream.models import Model, WeightSource, fetch
from streamdream.models.download import Limits
from streamdream.models.nodes import Concat
from streamdream.models.weights.random import random_weights

QUICK = Limits(stall_seconds=1.0, attempts=3)
IMPATIENT = Limits(stall_seconds=0.3, attempts=3)
"""For servers that stall."""
TABLE = models.get("bvlc_googlenet").nodes()[:8]
"""The first layers: small files, the same code."""
WEIGHTS = save(random_weights(TABLE))
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()


def stem(*sources: WeightSource) -> Model:
    """Return a network of the first layers of GoogLeNet; its last block is what they end with."""
    table = [*TABLE, Concat("stem", (TABLE[-1].name,))]
    return replace(models.get("bvlc_googlenet"), name="stem", nodes=lambda: table, sources=sources)


def run_fetch(model: Model, limits: Limits = QUICK) -> tuple[Path, list[str], list[tuple[int, int]]]:
    """Fetch; return the file, the messages, and each progress as bytes done and in all."""
    messages: list[str] = []
    steps: list[tuple[int, int]] = []
    return (fetch.fetch(model, messages.append, lambda done, total: steps.append((done, total)), limits), messages,
            steps)


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")
