"""Revoked logins: sessions that were logged out, and names that an operator has revoked.

All servers of one user, or of one ``--shared-folder``, share one small file, which only that user can read. It holds no
secret: random ids of sessions, names, and digests of keys. It is read again when it has changed, so that ``streamdream
web --revoke`` reaches a running server; and a session that was logged out stays so after a restart.
"""
from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import UsageError
from streamdream.system import cache_dir

if TYPE_CHECKING:
    from streamdream.settings import WebSettings

SESSION_SECONDS = 7 * 24 * 3600
"""Lifetime of a login."""
MAX_SESSIONS_PER_NAME = 200
"""Logged-out sessions that are listed one by one; beyond it, all sessions of that name end."""
MAX_SECRETS = 1000
MAX_UNWRITTEN = 1000
EVERYBODY = "all"
log = logging.getLogger(__name__)


def path_of(web: WebSettings) -> Path:
    """Return the file that a server with these settings shares with others."""
    return (Path(web.shared_folder) if web.shared_folder else cache_dir.cache_dir("web")) / "revocations.json"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class _State:
    sessions: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Id of a session that was logged out -> its name, its start."""
    ended: dict[str, int] = field(default_factory=dict)
    """Name, or EVERYBODY -> sessions that began until then are ended."""
    revoked: dict[str, int] = field(default_factory=dict)
    """Name -> secrets that were first seen until then are refused."""
    first_seen: dict[str, int] = field(default_factory=dict)
    """Digest of a secret -> when a server first had it."""


class Revocations:
    """The state in memory and in the file; times are in milliseconds since 1970. From any thread.

    If the file cannot be written, the state is kept in memory, with a warning; without ``keep_in_memory`` raises
    UsageError.
    """

    def __init__(self, path: Path, keep_in_memory: bool = True) -> None:
        self._path, self._keep_in_memory = path, keep_in_memory
        self._read_stamp: tuple[int, int] | None = None
        self._state = _State()
        self._unwritten: list[Callable[[_State], object]] = []
        """Changes that could only be made in memory."""
        self.refresh()

    def is_session_revoked(self, session_id: str, name: str, began_ms: int) -> bool:
        ended_ms = max(self._state.ended.get(name, 0), self._state.ended.get(EVERYBODY, 0))
        return session_id in self._state.sessions or began_ms <= ended_ms

    def is_secret_revoked(self, name: str, secret_digest: str) -> bool:
        first_ms = self._state.first_seen.get(secret_digest)
        return first_ms is not None and first_ms <= self._state.revoked.get(name, 0)

    def note_secrets(self, secret_digests: Iterable[str]) -> None:
        """Record when secrets were first seen: a revoked name with a new secret, seen later, may log in again."""
        if new := [digest for digest in secret_digests if digest not in self._state.first_seen]:
            self.change(lambda state: [state.first_seen.setdefault(digest, now_ms()) for digest in new])

    def end_session(self, session_id: str, name: str, began_ms: int) -> None:
        def edit(state: _State) -> None:
            state.sessions[session_id] = name, began_ms
            if sum(other == name for other, _ in state.sessions.values()) > MAX_SESSIONS_PER_NAME:
                state.ended[name] = now_ms()

        self.change(edit)

    def end_sessions(self, name: str) -> None:
        """End all sessions of a name so far; the name may be EVERYBODY."""
        self.change(lambda state: state.ended.update({name: now_ms()}))

    def revoke(self, name: str) -> None:
        """End the sessions of a name, and refuse its present secret."""
        self.change(lambda state: (state.ended.update({name: now_ms()}), state.revoked.update({name: now_ms()})))

    def refresh(self) -> bool:
        """Read the file if it has changed. Return whether it had."""
        try:
            stamp = self._stamp()
            if stamp == self._read_stamp:
                return False
            self._read_stamp = stamp
            self._state = _parse(self._path.read_text(encoding="utf-8"))
            for edit in self._unwritten:
                edit(self._state)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("%s cannot be read (%s), so revoked logins are not known", self._path, error)
            return False
        return True

    def change(self, edit: Callable[[_State], object]) -> None:
        """Apply ``edit`` to the newest state, and write it. ``edit`` may run twice."""
        try:
            with _locked(self._path):
                self.refresh()
                edit(self._state)
                self._prune()
                self._write()
                self._unwritten.clear()
        except OSError as error:
            if not self._keep_in_memory:
                raise UsageError(f"{self._path} cannot be written: {error.strerror}; STREAMDREAM_CACHE names another "
                                 "folder") from None
            edit(self._state)
            self._unwritten = [*self._unwritten, edit][-MAX_UNWRITTEN:]
            log.warning("%s cannot be written (%s); a restart forgets who has logged out", self._path, error.strerror)

    def _prune(self) -> None:
        state, oldest_ms = self._state, now_ms() - SESSION_SECONDS * 1000
        state.sessions = {session_id: (name, began_ms) for session_id, (name, began_ms) in state.sessions.items()
                          if began_ms > max(oldest_ms, state.ended.get(name, 0), state.ended.get(EVERYBODY, 0))}
        newest = sorted(state.first_seen.items(), key=lambda item: item[1])[-MAX_SECRETS:]
        state.first_seen = dict(newest)

    def _write(self) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".revocations-")  # for its owner only
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(self._state), file)
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink()
            raise
        self._read_stamp = self._stamp()

    def _stamp(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino


def _parse(text: str) -> _State:
    state = json.loads(text)
    return _State({str(key): (str(name), int(began_ms)) for key, (name, began_ms) in state["sessions"].items()},
                  *({str(key): int(at_ms) for key, at_ms in state[part].items()}
                    for part in ("ended", "revoked", "first_seen")))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock out other threads and processes, while one small file is written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".lock").open("w") as lock:
        with contextlib.suppress(ImportError):  # Windows has none
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
