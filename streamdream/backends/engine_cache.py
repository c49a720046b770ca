"""Files of engines and measurements in the cache folder, named by the digest of what identifies them."""
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
"""What identifies an engine, or a measurement; see ``cached_engine``."""
ENGINE_SUFFIX, INDEX_SUFFIX = ".engine", ".index"
MAX_CACHE_BYTES = 4_000_000_000
"""Of all engines together; beyond it the least recently used are evicted."""
MAX_HEADER_BYTES = 1 << 16
"""The header is read byte by byte."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedEngine:
    """An engine in a file: one line of JSON (its build key, and the digest of the rest), then its bytes."""

    path: Path
    build_key: Key
    size_bytes: int


@dataclass(frozen=True)
class Timing:
    """Seconds of a step: the median of some of each."""

    eager_seconds: float
    engine_seconds: float


# --- engines ----------------------------------------------------------------------------------------------------------

def load_or_build(build_key: Mapping[str, str], load: Callable[[bytes], Engine], build: Callable[[], bytes]) -> Engine:
    """The engine of exactly that key: from its file, else built and stored.

    ``load`` may raise anything over bytes that it cannot use; they are then built once more. A folder that cannot be
    written, or a full disk, costs only the storing. Where two processes build the same, the later file stays.
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
    """The engine that the index has for ``trace_key``, where it is still there and can be used."""
    build_key = _read_index(trace_key).get("build_key")
    if not isinstance(build_key, dict):
        return None
    try:
        return _load(build_key, load)
    except FileNotFoundError:
        return None
    except Exception as error:  # it is built again, and ``load_or_build`` warns
        log.debug("the engine of the index cannot be used: %s", _first_line(error))
        return None


def write_index(trace_key: Mapping[str, str], build_key: Mapping[str, str]) -> bool:
    """Store that ``trace_key`` leads to the engine of ``build_key``, which is verified. False where it is not kept."""
    return _engine_path(build_key).exists() and _write_index(trace_key, {"build_key": dict(build_key)})


def load_timing(trace_key: Mapping[str, str]) -> Timing | None:
    """What ``store_timing`` stored for that key."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        timing = _read_index(trace_key)["timing"]
        return Timing(float(timing["eager_seconds"]), float(timing["engine_seconds"]))
    return None


def store_timing(trace_key: Mapping[str, str], timing: Timing) -> None:
    """Keep it in the index, where there is an entry for that key."""
    entry = _read_index(trace_key)
    if entry:
        _write_index(trace_key, entry | {"timing": asdict(timing)})


def list_engines() -> list[CachedEngine]:
    """All engines that are stored, the most recently used first."""
    engines = []
    for path in cache_dir("engines").glob(f"*{ENGINE_SUFFIX}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with path.open("rb") as file:
                header = json.loads(file.readline(MAX_HEADER_BYTES))
            engines.append((path.stat().st_mtime, CachedEngine(path, header["build_key"], path.stat().st_size)))
    return [engine for _, engine in sorted(engines, key=lambda pair: pair[0], reverse=True)]


# --- measurements -----------------------------------------------------------------------------------------------------

def load_measurement(key: Mapping[str, str]) -> dict[str, Any] | None:
    """What ``store_measurement`` stored for exactly that key; None where there is nothing, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(_measurement_path(key).read_text())
        if stored["key"] == dict(key) and isinstance(stored["figures"], dict):
            figures: dict[str, Any] = stored["figures"]
            return figures
    return None


def store_measurement(key: Mapping[str, str], figures: Mapping[str, Any]) -> None:
    """Keep JSON values for later runs. A folder that cannot be written costs only the storing."""
    try:
        _replace(_measurement_path(key), json.dumps({"key": dict(key), "figures": dict(figures)}).encode())
    except (OSError, SinkError) as error:
        log.debug("a measurement cannot be stored: %s", error)


# --- files ------------------------------------------------------------------------------------------------------------

def file_stem(key: Mapping[str, str]) -> str:
    """Short and readable, with a digest of everything in the key."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:24]
    return "-".join(part for part in (key.get("backend", ""), key.get("size", ""), digest) if part)


def _engine_path(build_key: Mapping[str, str]) -> Path:
    return cache_dir("engines") / f"{file_stem(build_key)}{ENGINE_SUFFIX}"


def _index_path(trace_key: Mapping[str, str]) -> Path:
    return cache_dir("engines") / f"{file_stem(trace_key)}{INDEX_SUFFIX}"


def _measurement_path(key: Mapping[str, str]) -> Path:
    return cache_dir("measurements") / f"{file_stem(key)}.json"


def _read_index(trace_key: Mapping[str, str]) -> dict[str, Any]:
    """The entry for that key; empty where there is none, or it is damaged."""
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
    """From its file. Raises FileNotFoundError, and anything else for one that is truncated, damaged or another's."""
    path = _engine_path(build_key)
    with path.open("rb", buffering=0) as file:  # a buffered one copies 20 MB, and holds the GIL for 30 ms
        header, data = file.readline(MAX_HEADER_BYTES), file.readall()
    expected = {"build_key": dict(build_key), "sha256": hashlib.sha256(data).hexdigest()}
    if header != _encode_header(expected):
        raise ValueError("it is damaged")
    engine = load(data)
    with contextlib.suppress(OSError):
        path.touch()  # it was used
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
    """Nobody ever reads half of it. Raises OSError or SinkError."""
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
