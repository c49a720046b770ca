"""Build a dreamer from the settings of a run: model, backend, tiles, threads."""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streamdream.settings_parsing import parse_memory

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from streamdream.backends.choose_once import BackendChoice
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.reference_images import References
    from streamdream.settings import DreamSettings, StreamSettings

TILE_MEMORY_MB = 600
"""Of a step on a processor: with more, the caches of its cores help less."""


def build_dreamer(stream: StreamSettings) -> Dreamer:
    """Return the dreamer of a run, with its model and backend; large pictures are dreamed in tiles.

    Loads PyTorch. Raises UsageError, ModelError or MissingPackage.
    ``stream.threads`` and ``stream.memory`` hold for the whole process, until the next call.
    """
    from streamdream import backends, models
    from streamdream.backends.tiled import Tiled
    from streamdream.dream.dreamer import Dreamer
    from streamdream.system import torch_threads

    torch_threads.set_process_threads(stream.threads)
    model = models.get(stream.model)
    backend = backends.create(stream.backend, model, stream.device, stream.precision)
    _limit_memory(stream, backend.device)
    tiled = Tiled(backend, _tile_memory_mb(stream, backend.device))
    return Dreamer(model, tiled, stream.field_height, stream.seed, stream.frame_path)


def choose_backend(stream: StreamSettings, image: NDArray[np.uint8], settings: DreamSettings,
                   references: References | None = None, may_build: bool = False) -> BackendChoice:
    """The backend and precision for a whole run, decided before its first frame; as ``stream.backend`` and
    ``stream.precision`` they make every run of the plan round the same.

    ``image`` is the first frame, uint8 [H, W, 3] RGB, ``settings`` and ``references`` are those that it is dreamed
    with; None reads the files that the settings name. A backend asked for by name is kept. ``auto`` becomes eager or an
    engine, whichever takes less time for a step at each octave: by stored timings, which give the same choice again.
    Where one is missing, ``may_build`` builds the engine in another process (some seconds an octave) and times both;
    else it is eager, as it is where an engine fails, which the log says.

    May set threads and memory of the process as ``build_dreamer`` does. Raises what that raises, and FieldTooSmall.
    """
    from streamdream import models
    from streamdream.backends import choose_once
    from streamdream.backends.eager import Eager
    from streamdream.backends.tiled import Tiled
    from streamdream.dream.dreamer import Dreamer, DreamState
    from streamdream.system import torch_threads

    torch_threads.set_process_threads(stream.threads)
    model = models.get(stream.model)
    if stream.backend != "auto":
        return choose_once.resolve_named(stream.backend, model, stream.device, stream.precision)
    eager = Eager(model, stream.device, stream.precision)
    _limit_memory(stream, eager.device)
    recorder = choose_once.StepRecorder(eager)
    tiled = Tiled(recorder, _tile_memory_mb(stream, eager.device))
    dreamer = Dreamer(model, tiled, stream.field_height, stream.seed)
    # one step at each octave: more would change both sums by the same factor
    dreamer.advance(DreamState(), image, replace(settings, steps=1, warmup_steps=0), references)
    return choose_once.choose(eager, stream.device, recorder.requests, may_build)


def resolve_frame_path(stream: StreamSettings) -> str:
    """The path that frames take with these settings, "device" or "processor", in place of "auto"."""
    from streamdream import backends

    if stream.frame_path != "auto" or not backends.runs_functions(stream.backend):
        return "processor" if stream.frame_path == "auto" else stream.frame_path
    return "device" if backends.choose_device(stream.device).type == "cuda" else "processor"


def _tile_memory_mb(stream: StreamSettings, device: torch.device) -> float:
    from streamdream.system import memory

    if stream.tile_memory:
        return stream.tile_memory
    return TILE_MEMORY_MB if device.type == "cpu" else memory.auto_bytes(device) / 2e6


def _limit_memory(stream: StreamSettings, device: torch.device) -> None:
    from streamdream.system import memory

    memory.set_limit(parse_memory(stream.memory), device)
