"""Where streamdream keeps what it can make or fetch again, and the engines among it."""
from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from streamdream.errors import SinkError
from streamdream.system.atomic_file import write_file
from streamdream.system.cache_dir import cache_dir

Engine = TypeVar("Engine")
SUFFIX, INDEX_SUFFIX = ".engine", ".recipe"
MAX_CACHE_BYTES = 4_000_000_000
"""Of all engines together; beyond it, those go first that were not used for longest."""
MAX_HEADER_BYTES = 1 << 16
"""Bytes; it is read one by one."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedEngine:
    """An engine in a file: one line of JSON (what it was made of, and the digest of the rest), then its bytes."""

    path: Path
    build_key: dict[str, str]
    size_bytes: int


def load_or_build(made_of: Mapping[str, str], load: Callable[[bytes], Engine], build: Callable[[], bytes]) -> Engine:
    """The engine made of exactly that: from its file, else built and stored.

    ``load`` may raise anything over bytes that it cannot use; they are then built once more. A folder that cannot be
    written, or a full disk, costs the storing only. Two processes may build the same: the later file stays.
    """
    try:
        return _load(made_of, load)
    except FileNotFoundError:
        pass
    except Exception as error:
        log.warning(
            "the stored engine %s cannot be used (%s); it is built anew", file_stem(made_of), _first_line(error)
        )
    data = build()
    engine = load(data)
    _write(made_of, data)
    return engine


def load_by_trace_key(recipe: Mapping[str, str], load: Callable[[bytes], Engine]) -> Engine | None:
    """The engine that was noted for ``recipe``, if it is still here and can be used."""
    try:
        return _load(json.loads(_index_path(recipe).read_text()), load)
    except FileNotFoundError:
        return None
    except Exception as error:  # it is built anew, and that is told
        log.debug("what was noted of an engine is of no use: %s", _first_line(error))
        return None


def write_index(recipe: Mapping[str, str], made_of: Mapping[str, str]) -> bool:
    """That what ``recipe`` leads to is the engine of ``made_of``, and that it is sound. False, if it was not kept."""
    if _engine_path(made_of).exists():
        with contextlib.suppress(OSError, SinkError):
            _replace(_index_path(recipe), json.dumps(dict(made_of)).encode())
            return True
    return False


def load_measurement(made_of: Mapping[str, str]) -> dict[str, Any] | None:
    """What was stored by ``store_measurement`` for exactly that; None where there is nothing, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_measurement_path(made_of).read_text())
        if found["made_of"] == dict(made_of) and isinstance(found["figures"], dict):
            figures: dict[str, Any] = found["figures"]
            return figures
    return None


def store_measurement(made_of: Mapping[str, str], figures: Mapping[str, Any]) -> None:
    """Keeps JSON values for later runs. A folder that cannot be written costs the storing only."""
    try:
        _replace(_measurement_path(made_of), json.dumps({"made_of": dict(made_of), "figures": dict(figures)}).encode())
    except OSError as error:
        log.debug("a measurement cannot be stored: %s", error)


def _measurement_path(made_of: Mapping[str, str]) -> Path:
    return cache_dir("measurements") / f"{file_stem(made_of)}.json"


def file_stem(made_of: Mapping[str, str]) -> str:
    """Short and readable, with a digest of everything in it."""
    digest = hashlib.sha256(_header(made_of)).hexdigest()[:24]
    return "-".join(part for part in (made_of.get("backend", ""), made_of.get("size", ""), digest) if part)


def list_engines() -> list[CachedEngine]:
    """All engines that are kept, the one used last first."""
    found = []
    for path in cache_dir("engines").glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError, ValueError):
            with path.open("rb") as file:
                head = json.loads(file.readline())
            found.append((path.stat().st_mtime, CachedEngine(path, head["made_of"], path.stat().st_size)))
    return [engine for _, engine in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _header(made_of: Mapping[str, str]) -> bytes:
    return json.dumps(dict(made_of), sort_keys=True).encode()


def _engine_path(made_of: Mapping[str, str]) -> Path:
    return cache_dir("engines") / f"{file_stem(made_of)}{SUFFIX}"


def _index_path(recipe: Mapping[str, str]) -> Path:
    return cache_dir("engines") / f"{file_stem(recipe)}{INDEX_SUFFIX}"


def _load(made_of: Mapping[str, str], load: Callable[[bytes], Engine]) -> Engine:
    """From its file. Raises FileNotFoundError, and whatever else for one that is cut short, damaged or another's."""
    path = _engine_path(made_of)
    with path.open("rb", buffering=0) as file:  # a buffered one copies 20 MB, and holds the interpreter for 30 ms
        head, data = json.loads(file.readline(MAX_HEADER_BYTES)), file.readall()
    if head["made_of"] != dict(made_of) or head["sha256"] != hashlib.sha256(data).hexdigest():
        raise ValueError("it is damaged")
    engine = load(data)
    with contextlib.suppress(OSError):
        path.touch()  # it was used
    return engine


def _write(made_of: Mapping[str, str], data: bytes) -> None:
    path, head = _engine_path(made_of), {"made_of": dict(made_of), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        _replace(path, json.dumps(head).encode() + b"\n" + data)
    except (OSError, SinkError) as error:
        log.warning("the engine cannot be kept in %s (%s), so the next run builds it again", path.parent,
                    getattr(error, "strerror", None) or error)
    _prune(path)


def _replace(path: Path, data: bytes) -> None:
    """Nobody ever finds half of it. Raises OSError or SinkError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(str(path), data, overwrite=True)


def _prune(keep: Path) -> None:
    """Engines beyond LARGEST_BYTES go, and notes of engines that are gone."""
    total = 0
    for engine in list_engines():
        total += engine.size_bytes
        if total > MAX_CACHE_BYTES and engine.path != keep:
            with contextlib.suppress(OSError):
                engine.path.unlink()
    for path in cache_dir("engines").glob(f"*{INDEX_SUFFIX}"):
        with contextlib.suppress(OSError, ValueError):
            if not _engine_path(json.loads(path.read_text())).exists():
                path.unlink()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
