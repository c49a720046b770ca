"""Networks as node tables. ``registry.py`` lists them, ``network.py`` runs a table, ``fetch.py`` stores weights."""
from __future__ import annotations

from streamdream.models.model import EMBEDDED_INCEPTION_V3, EMBEDDED_INCEPTION_V3_SHA256, Model, WeightSource
from streamdream.models.registry import MODELS, get

__all__ = ["EMBEDDED_INCEPTION_V3", "EMBEDDED_INCEPTION_V3_SHA256", "MODELS", "Model", "WeightSource", "get"]
