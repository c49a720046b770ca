"""Where ``system/tensor_cache.py`` was, for the imports that still name it."""
from streamdream.system.tensor_cache import CACHE_SIZE, cached_tensor, note_use, record_uses

__all__ = ["CACHE_SIZE", "cached_tensor", "note_use", "record_uses"]
