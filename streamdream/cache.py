"""Where streamdream keeps what it can make or fetch again, and the engines among it."""
from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Engine = TypeVar("Engine")
SUFFIX = ".engine"
LARGEST_BYTES = 4_000_000_000
"""Of all engines together; beyond it, those go first that were not used for longest."""
log = logging.getLogger(__name__)


def folder(kind: str) -> Path:
    """``kind`` in $STREAMDREAM_CACHE, or in the platform's cache folder; it need not exist."""
    if moved := os.environ.get("STREAMDREAM_CACHE"):
        return Path(moved).expanduser() / kind
    import platformdirs

    return Path(platformdirs.user_cache_dir("streamdream", appauthor=False)) / kind


@dataclass(frozen=True)
class Stored:
    """An engine in a file: one line of JSON (what it was made of, and the digest of the rest), then its bytes."""

    path: Path
    made_of: dict[str, str]
    size_bytes: int


def load_or_build(made_of: Mapping[str, str], load: Callable[[bytes], Engine], build: Callable[[], bytes]) -> Engine:
    """The engine made of exactly that: from its file, else built and stored.

    ``load`` may raise anything over bytes that it cannot use; they are then built once more. A folder that cannot be
    written, or a full disk, costs the storing only. Two processes may build the same: the later file stays.
    """
    path = folder("engines") / f"{name_of(made_of)}{SUFFIX}"
    data = _read(path, made_of)
    if data is not None:
        try:
            engine = load(data)
        except Exception as error:
            log.warning("the stored engine %s cannot be used (%s); it is built anew", path.name, _first_line(error))
        else:
            with contextlib.suppress(OSError):
                path.touch()  # it was used
            return engine
    data = build()
    engine = load(data)
    _write(path, made_of, data)
    return engine


def name_of(made_of: Mapping[str, str]) -> str:
    """Short and readable, with a digest of everything in it."""
    digest = hashlib.sha256(_line(made_of)).hexdigest()[:24]
    return "-".join(part for part in (made_of.get("backend", ""), made_of.get("size", ""), digest) if part)


def stored() -> list[Stored]:
    """All engines that are kept, the one used last first."""
    found = []
    for path in folder("engines").glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError, ValueError):
            with path.open("rb") as file:
                head = json.loads(file.readline())
            found.append((path.stat().st_mtime, Stored(path, head["made_of"], path.stat().st_size)))
    return [engine for _, engine in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _line(made_of: Mapping[str, str]) -> bytes:
    return json.dumps(dict(made_of), sort_keys=True).encode()


def _read(path: Path, made_of: Mapping[str, str]) -> bytes | None:
    """The engine's bytes; None where there is no file, or one that is cut short, damaged or another's."""
    try:
        with path.open("rb") as file:
            head, data = json.loads(file.readline()), file.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("the stored engine %s cannot be read (%s); it is built anew", path.name, _first_line(error))
        return None
    try:
        whole = head["made_of"] == dict(made_of) and head["sha256"] == hashlib.sha256(data).hexdigest()
    except (KeyError, TypeError):
        whole = False
    if not whole:
        log.warning("the stored engine %s is damaged; it is built anew", path.name)
        return None
    return data


def _write(path: Path, made_of: Mapping[str, str], data: bytes) -> None:
    """Under a name of this process first, then renamed: nobody ever finds half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    head = {"made_of": dict(made_of), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(json.dumps(head).encode() + b"\n" + data)
        partial.replace(path)
    except OSError as error:
        log.warning("the engine cannot be kept in %s (%s), so the next run builds it again", path.parent,
                    error.strerror or error)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    _prune(path)


def _prune(keep: Path) -> None:
    total = 0
    for engine in stored():
        total += engine.size_bytes
        if total > LARGEST_BYTES and engine.path != keep:
            with contextlib.suppress(OSError):
                engine.path.unlink()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
