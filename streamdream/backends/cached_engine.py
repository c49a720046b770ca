"""Engines that are bytes: kept between runs, found again without recording anything, and built in another process."""
from __future__ import annotations

import hashlib
import logging
import time
from abc import abstractmethod
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import streamdream
from streamdream import models
from streamdream.backends import build_process
from streamdream.backends import engine_cache as kept
from streamdream.backends.engine import EngineBackend
from streamdream.backends.evictable import LoadedEngine
from streamdream.system.torch_threads import default_threads

if TYPE_CHECKING:
    from streamdream.backends import AllTargets, StepSpec
    from streamdream.backends.engine import Engine
    from streamdream.backends.graph import Graph

log = logging.getLogger(__name__)


class CachedEngineBackend(EngineBackend):
    """Builds an engine once for a graph, size, precision, device and version of everything.

    Recording a graph takes seconds, and only it tells which engine is wanted. So what it would be recorded from is
    noted beside the engine: its recipe.
    """

    @abstractmethod
    def build(self, recorded: Graph) -> bytes:
        """The engine's bytes."""

    @abstractmethod
    def deserialize(self, data: bytes, shape: torch.Size) -> Engine:
        """The engine of these bytes, for pictures of that shape. Raises anything over bytes that it cannot use."""

    @abstractmethod
    def engine_bytes(self, engine: Engine, data_bytes: int, shape: torch.Size) -> int:
        """Memory of what ``revive`` made of so many bytes."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Of what makes the engines."""

    def get_or_build(self, spec: StepSpec, picture: Tensor, targets: AllTargets = ()) -> Engine:
        return self.load_cached(spec, picture, targets) or super().get_or_build(spec, picture, targets)

    def load_cached(self, spec: StepSpec, picture: Tensor, targets: AllTargets = ()) -> Engine | None:
        engine = self._load_cached(spec, picture.shape, targets)
        return None if engine is None else self._evictable(engine, spec, targets)

    def _load_cached(self, spec: StepSpec, shape: torch.Size, targets: AllTargets) -> LoadedEngine | None:
        engine = kept.load_by_trace_key(self._trace_key(spec, shape, targets), lambda data: self._revive(data, shape))
        return None if engine is None else replace(engine, stored=True)

    def _revive(self, data: bytes, shape: torch.Size) -> LoadedEngine:
        engine = self.deserialize(data, shape)
        return LoadedEngine(engine, self.engine_bytes(engine, len(data), shape))

    def _build(self, spec: StepSpec, picture: Tensor, targets: AllTargets) -> LoadedEngine:
        recorded = self.trace(spec, picture, targets)
        engine = self.build_engine(recorded)
        self.verify(engine, spec, picture, targets)
        return replace(
            engine, stored=kept.write_index(self._trace_key(spec, picture.shape, targets), self._build_key(recorded))
        )

    def _reload(self, spec: StepSpec, picture: Tensor, targets: AllTargets) -> LoadedEngine:
        engine = self._load_cached(spec, picture.shape, targets)
        if engine is None:  # somebody has emptied the cache folder
            self._build_apart(spec, picture, targets)
            engine = self._load_cached(spec, picture.shape, targets)
        return engine or self._build(spec, picture, targets)

    def _build_apart(self, spec: StepSpec, picture: Tensor, targets: AllTargets) -> float:
        """Has it built by another process, unless that does not know the network; the seconds that it took."""
        if models.MODELS.get(self.model.name) is not self.model:
            return 0.0
        return build_process.build_in_subprocess(build_process.BuildRequest(
            self.name, self.model.name, self.device_name, self.precision, default_threads(), spec, tuple(picture.shape),
            tuple(tuple(target.cpu() for target in own) for own in targets)))

    def build_out_of_process(self, spec: StepSpec, picture: Tensor, targets: AllTargets = ()) -> tuple[Engine, float]:
        """In a process of its own, which finds the network by its name; here, where there is no such network, or
        nothing can be kept.
        """
        found, seconds = self.load_cached(spec, picture, targets), 0.0
        if found is None:
            seconds = self._build_apart(spec, picture, targets)
            found = self.load_cached(spec, picture, targets)
        if found is not None:
            return found, seconds
        engine, more = super().build_out_of_process(spec, picture, targets)
        return engine, seconds + more

    def build_engine(self, recorded: Graph) -> LoadedEngine:
        made_of = self._build_key(recorded)

        def announced() -> bytes:
            log.info("building an engine for %s on %s in %s", made_of["size"], self.name, self.precision)
            begin = time.perf_counter()
            data = self.build(recorded)
            log.info("built in %.1f s (%.1f MB); the next run finds it", time.perf_counter() - begin, len(data) / 1e6)
            return data

        return kept.load_or_build(made_of, lambda data: self._revive(data, recorded.inputs[0].shape), announced)

    @property
    def device_name(self) -> str:
        """As ``--device`` takes it."""
        return str(self.device)

    def _build_key(self, recorded: Graph) -> dict[str, str]:
        return {"graph": recorded.digest, **self._environment_key(recorded.inputs[0].shape)}

    def _trace_key(self, spec: StepSpec, shape: torch.Size, targets: AllTargets) -> dict[str, str]:
        shapes = [[str((target.dtype, tuple(target.shape))) for target in own] for own in targets]
        return {"spec": repr(spec), "targets": str(shapes), "weights": self._weights_digest, "code": code_digest(),
                "network": f"{self.model.to_input} {self.model.nodes()}", **self._environment_key(shape)}

    def _environment_key(self, shape: torch.Size) -> dict[str, str]:
        number, _, height, width = shape
        size = f"{width}x{height}" + (f"x{number}" if number > 1 else "")
        return {"backend": self.name, "size": size, "dtype": self.precision, "device": self.describe_device(),
                "torch": torch.__version__, **self.versions()}

    @cached_property
    def _weights_digest(self) -> str:
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.load_weights().items()):
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(weight.contiguous().numpy().data)
        return digest.hexdigest()


@cache
def code_digest() -> str:
    """Of all of this package's code: whatever of it changes, graphs are recorded anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(streamdream.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
