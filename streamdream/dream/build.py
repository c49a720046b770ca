"""Build a dreamer from the settings of a run: model, backend, tiles, threads."""
from __future__ import annotations

from typing import TYPE_CHECKING

from streamdream.settings_parsing import parse_memory

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.settings import StreamSettings


def build_dreamer(stream: StreamSettings) -> Dreamer:
    """Return the dreamer of a run, with its model and backend; large pictures are dreamed in tiles.

    Loads PyTorch. Raises UsageError, ModelError or MissingPackage.
    ``stream.threads`` and ``stream.memory`` hold for the whole process, until the next call.
    """
    from streamdream import backends, models
    from streamdream.backends.tiled import Tiled
    from streamdream.dream.dreamer import Dreamer
    from streamdream.system import memory, torch_threads

    torch_threads.set_process_threads(stream.threads)
    model = models.get(stream.model)
    backend = Tiled(backends.create(stream.backend, model, stream.device, stream.precision), stream.tile_memory)
    memory.set_limit(parse_memory(stream.memory), backend.device)
    return Dreamer(model, backend, stream.field_height, stream.seed)
