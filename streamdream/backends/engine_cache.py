"""Files of engines and measurements in the cache folder, named by the digests of their keys."""
from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from streamdream.errors import SinkError
from streamdream.system.atomic_file import write_file
from streamdream.system.cache_dir import cache_dir

Engine = TypeVar("Engine")
Key = dict[str, str]
"""Identifies an engine or a measurement; see ``cached_engine``."""
ENGINE_SUFFIX, INDEX_SUFFIX = ".engine", ".index"
MAX_CACHE_BYTES = 4_000_000_000
"""Maximum size of all engines; above it the least recently used are evicted."""
MAX_HEADER_BYTES = 1 << 16
"""The unbuffered file is read byte by byte up to the end of the header."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedEngine:
    """An engine file: one line of JSON (the build key, and the digest of the rest), then the bytes of the engine."""

    path: Path
    build_key: Key
    size_bytes: int


@dataclass(frozen=True)
class Timing:
    """Median time of a step of each."""

    eager_seconds: float
    engine_seconds: float


# --- engines ----------------------------------------------------------------------------------------------------------

def load_or_build(build_key: Mapping[str, str], load: Callable[[bytes], Engine], build: Callable[[], bytes]) -> Engine:
    """Load the engine of exactly that key from its file, else build and store it.

    ``load`` may raise any exception for invalid bytes; the engine is then built again. If it cannot be stored, this
    only warns. If two processes build the same engine, the later file replaces the other.
    """
    try:
        return _load(build_key, load)
    except FileNotFoundError:
        pass
    except Exception as error:
        log.warning("the stored engine %s cannot be used (%s); it is built again", file_stem(build_key),
                    _first_line(error))
    data = build()
    engine = load(data)
    _write(build_key, data)
    return engine


def load_by_trace_key(trace_key: Mapping[str, str], load: Callable[[bytes], Engine]) -> Engine | None:
    """Load the engine that the index has for ``trace_key``; None if it is missing or damaged."""
    build_key = _read_index(trace_key).get("build_key")
    if not isinstance(build_key, dict):
        return None
    try:
        return _load(build_key, load)
    except FileNotFoundError:
        return None
    except Exception as error:  # ``load_or_build`` builds it again, and warns
        log.debug("the engine of the index cannot be used: %s", _first_line(error))
        return None


def write_index(trace_key: Mapping[str, str], build_key: Mapping[str, str]) -> bool:
    """Map ``trace_key`` to the verified engine of ``build_key``. Return False if that engine is not stored."""
    return _engine_path(build_key).exists() and _write_index(trace_key, {"build_key": dict(build_key)})


def load_timing(trace_key: Mapping[str, str]) -> Timing | None:
    """Return what ``store_timing`` stored for that key, if anything."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        timing = _read_index(trace_key)["timing"]
        return Timing(float(timing["eager_seconds"]), float(timing["engine_seconds"]))
    return None


def store_timing(trace_key: Mapping[str, str], timing: Timing) -> None:
    """Store a timing in the index, if that has an entry for the key."""
    entry = _read_index(trace_key)
    if entry:
        _write_index(trace_key, entry | {"timing": asdict(timing)})


def list_engines() -> list[CachedEngine]:
    """Return all stored engines, the most recently used first."""
    engines = []
    for path in cache_dir("engines").glob(f"*{ENGINE_SUFFIX}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with path.open("rb") as file:
                header = json.loads(file.readline(MAX_HEADER_BYTES))
            engines.append((path.stat().st_mtime, CachedEngine(path, header["build_key"], path.stat().st_size)))
    return [engine for _, engine in sorted(engines, key=lambda pair: pair[0], reverse=True)]


# --- measurements -----------------------------------------------------------------------------------------------------

def load_measurement(key: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what ``store_measurement`` stored for exactly that key; None if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(_measurement_path(key).read_text())
        if stored["key"] == dict(key) and isinstance(stored["figures"], dict):
            figures: dict[str, Any] = stored["figures"]
            return figures
    return None


def store_measurement(key: Mapping[str, str], figures: Mapping[str, Any]) -> None:
    """Store JSON values for later runs, if the folder is writable."""
    try:
        _replace(_measurement_path(key), json.dumps({"key": dict(key), "figures": dict(figures)}).encode())
    except (OSError, SinkError) as error:
        log.debug("a measurement cannot be stored: %s", error)


# --- files ------------------------------------------------------------------------------------------------------------

def file_stem(key: Mapping[str, str]) -> str:
    """Return a short, readable file name with a digest of the whole key."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:24]
    return "-".join(part for part in (key.get("backend", ""), key.get("size", ""), digest) if part)


def _engine_path(build_key: Mapping[str, str]) -> Path:
    return cache_dir("engines") / f"{file_stem(build_key)}{ENGINE_SUFFIX}"


def _index_path(trace_key: Mapping[str, str]) -> Path:
    return cache_dir("engines") / f"{file_stem(trace_key)}{INDEX_SUFFIX}"


def _measurement_path(key: Mapping[str, str]) -> Path:
    return cache_dir("measurements") / f"{file_stem(key)}.json"


def _read_index(trace_key: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry for that key; empty if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        entry = json.loads(_index_path(trace_key).read_text())
        if isinstance(entry, dict):
            return entry
    return {}


def _write_index(trace_key: Mapping[str, str], entry: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OSError, SinkError):
        _replace(_index_path(trace_key), json.dumps(entry).encode())
        return True
    return False


def _load(build_key: Mapping[str, str], load: Callable[[bytes], Engine]) -> Engine:
    """Load an engine from its file. Raises FileNotFoundError, or any other exception for a damaged or foreign file."""
    path = _engine_path(build_key)
    with path.open("rb", buffering=0) as file:  # a buffered read copies 20 MB and holds the GIL for 30 ms
        header, data = file.readline(MAX_HEADER_BYTES), file.readall()
    expected = {"build_key": dict(build_key), "sha256": hashlib.sha256(data).hexdigest()}
    if header != _encode_header(expected):
        raise ValueError("it is damaged")
    engine = load(data)
    with contextlib.suppress(OSError):
        path.touch()  # mark as used
    return engine


def _encode_header(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True).encode() + b"\n"


def _write(build_key: Mapping[str, str], data: bytes) -> None:
    path, header = _engine_path(build_key), {"build_key": dict(build_key), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        _replace(path, _encode_header(header) + data)
    except (OSError, SinkError) as error:
        log.warning("the engine cannot be kept in %s (%s), so the next run builds it again", path.parent,
                    getattr(error, "strerror", None) or error)
    _evict(path)


def _replace(path: Path, data: bytes) -> None:
    """Replace a file atomically. Raises OSError or SinkError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(str(path), data, overwrite=True)


def _evict(newest: Path) -> None:
    """Remove engines beyond MAX_CACHE_BYTES, never the newest, and index entries whose engine is gone."""
    total = 0
    for engine in list_engines():
        total += engine.size_bytes
        if total > MAX_CACHE_BYTES and engine.path != newest:
            with contextlib.suppress(OSError):
                engine.path.unlink()
    for path in cache_dir("engines").glob(f"*{INDEX_SUFFIX}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if not _engine_path(json.loads(path.read_text())["build_key"]).exists():
                path.unlink()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
