"""Engines that can be serialized: cached between runs, found without tracing, built in another process.

Two keys identify an engine, both dicts of readable entries (``engine_cache`` names files by their digests):

    trace key   what the graph is traced from: settings, network, weights, code    NAME.index ─┐
    build key   what the engine is built from: the digest of the graph             NAME.engine ◀┘

The build key is known after tracing, which takes seconds, so an index file maps the trace key to the build key.
"""
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

import streamdream
from streamdream import models
from streamdream.backends import build_process, engine_cache
from streamdream.backends.engine import EngineBackend, EngineRequest
from streamdream.backends.evictable import LoadedEngine

if TYPE_CHECKING:
    from streamdream.backends.engine import Engine
    from streamdream.backends.engine_cache import Key, Timing
    from streamdream.backends.graph import Graph

log = logging.getLogger(__name__)


class CachedEngineBackend(EngineBackend):
    """Builds an engine once per graph, size, precision, device and library versions."""

    @abstractmethod
    def serialize(self, traced: Graph) -> bytes:
        """Build the engine of a graph and return its bytes."""

    @abstractmethod
    def deserialize(self, data: bytes, shape: torch.Size) -> Engine:
        """Load an engine for pictures of ``shape`` from its bytes. May raise any exception for invalid bytes."""

    @abstractmethod
    def engine_bytes(self, engine: Engine, data_bytes: int, shape: torch.Size) -> int:
        """Estimate the memory of a loaded engine, in bytes."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that build engines, by name."""

    @property
    def device_name(self) -> str:
        """The device as ``--device`` names it."""
        return str(self.device)

    def load(self, request: EngineRequest) -> LoadedEngine | None:
        engine = engine_cache.load_by_trace_key(
            self._trace_key(request), lambda data: self._load_bytes(data, request.shape))
        return None if engine is None else replace(engine, stored=True)

    def build(self, request: EngineRequest) -> LoadedEngine:
        traced = self.trace(request)
        engine = self.build_engine(traced)
        self.verify(engine, request)
        stored = engine_cache.write_index(self._trace_key(request), self._build_key(traced))
        log.info("the engine is ready after %.1f s%s", time.time() - request.begun_seconds,
                 "; the next run finds it" if stored else "")
        return replace(engine, stored=stored)

    def build_out_of_process(self, request: EngineRequest) -> LoadedEngine:
        """Build in a child process, which finds the network by its name.

        Build in this one if the registry lacks the network or the engine cannot be stored.
        """
        if models.MODELS.get(self.model.name) is self.model:
            build_process.build_in_subprocess(build_process.BuildRequest(
                self.name, self.model.name, self.device_name, self.precision, self.threads, request.spec,
                tuple(request.shape), tuple(tuple(target.cpu() for target in of_term) for of_term in request.targets),
                request.begun_seconds))
        return self.load(request) or self.build(request)

    def build_engine(self, traced: Graph) -> LoadedEngine:
        key, shape = self._build_key(traced), traced.inputs[0].shape

        def serialize() -> bytes:
            log.info("building an engine for %s on %s in %s", key["size"], self.name, self.precision)
            return self.serialize(traced)

        return engine_cache.load_or_build(key, lambda data: self._load_bytes(data, shape), serialize)

    def load_timing(self, request: EngineRequest) -> Timing | None:
        """Return the timing that ``store_timing`` stored, if any."""
        return engine_cache.load_timing(self._trace_key(request))

    def store_timing(self, request: EngineRequest, timing: Timing) -> None:
        """Store the times of a step with eager and with the engine."""
        engine_cache.store_timing(self._trace_key(request), timing)

    def _load_bytes(self, data: bytes, shape: torch.Size) -> LoadedEngine:
        engine = self.deserialize(data, shape)
        return LoadedEngine(engine, self.engine_bytes(engine, len(data), shape))

    def _build_key(self, traced: Graph) -> Key:
        return {"graph": traced.digest, **self._environment_key(traced.inputs[0].shape)}

    def _trace_key(self, request: EngineRequest) -> Key:
        shapes = [[str((target.dtype, tuple(target.shape))) for target in of_term] for of_term in request.targets]
        return {"spec": repr(request.spec), "targets": str(shapes), "weights": self._weights_digest,
                "code": code_digest(), "network": f"{self.model.to_input} {self.model.nodes()}",
                **self._environment_key(request.shape)}

    def _environment_key(self, shape: torch.Size) -> Key:
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
    """Return a digest of the code of this package; after any change to it, graphs are traced again."""
    digest = hashlib.sha256()
    for path in sorted(Path(streamdream.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
