"""Authentication by a token, a password, or the cookie of a session that began with one of them.

A session's cookie is signed with a key derived from the secret that it began with. So it survives a restart, and ends
when that secret is changed or removed; sessions of other secrets go on.
"""
from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import re
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from streamdream.errors import UsageError

from . import passwords
from .login_queue import LoginQueue
from .revocations import EVERYBODY, SESSION_SECONDS, Revocations, now_ms

COOKIE = "streamdream"
COOKIE_PATTERN = re.compile(r"([0-9a-f]{16})\.([0-9]{1,15})\.([\w-]{16})\.([0-9a-f]{64})", re.ASCII)
"""Digest of the secret, start in ms since 1970, id, signature."""
MAX_COOKIES = 8
"""Cookies of our name that are checked in one request."""
TOKEN_NAME = "token"
"""Name of a token that was given without one."""
MIN_TOKEN_LENGTH = 16
MAX_PASSWORD_LENGTH = 1000
REMEMBER_SECONDS = 300.0
"""A verified password of a request is not verified again within this time."""
MAX_REMEMBERED = 256
WATCH_SECONDS = 2.0
"""Interval of checks for revocations by other processes."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Account:
    """A name with a secret."""

    name: str
    secret: str
    """A token, or a password's hash."""
    is_token: bool

    @property
    def key(self) -> bytes:
        return hmac.digest(b"streamdream session", f"{self.name}\n{self.secret}".encode(), "sha256")

    @property
    def digest(self) -> str:
        return hmac.new(self.key, b"digest", "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class LoginSession:
    """A login with a cookie."""

    account: Account
    began_ms: int
    session_id: str

    @property
    def cookie(self) -> str:
        signed = f"{self.account.digest}.{self.began_ms}.{self.session_id}"
        return f"{signed}.{hmac.new(self.account.key, signed.encode(), 'sha256').hexdigest()}"


def new_token() -> str:
    return secrets.token_urlsafe(24)


def parse_tokens(text: str) -> dict[str, str]:
    """``SECRET``, or several ``name:SECRET`` with commas -> secrets by name. ``new`` makes one. Raises UsageError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts and ":" not in "".join(parts):
        parts = [f"{TOKEN_NAME}:{part}" for part in parts]
    tokens: dict[str, str] = {}
    for part in parts:
        name, _, secret = part.partition(":")
        if not name or not secret or name in tokens:
            raise UsageError("--token is one secret, or several as name:secret, with commas and different names")
        tokens[name] = new_token() if secret == "new" else secret
        if len(tokens[name]) < MIN_TOKEN_LENGTH:
            raise UsageError(f"--token needs {MIN_TOKEN_LENGTH} characters or more; --token new makes one")
    return tokens


def parse_users(text: str) -> dict[str, str]:
    """``user:hash`` with commas -> hashes by name. Raises UsageError."""
    users: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        user, _, stored_hash = part.partition(":")
        if not user or not passwords.is_hash(stored_hash):
            raise UsageError("--auth is user:hash; streamdream web --hash asks for a password and prints its hash")
        users[user] = stored_hash
    return users


def check_names(tokens: Iterable[str], users: Iterable[str]) -> None:
    """Raise UsageError for a name that makes ``--revoke NAME`` ambiguous."""
    if both := set(tokens) & set(users):
        raise UsageError(f"--token and --auth both name {min(both)}; --revoke needs names that differ")
    if EVERYBODY in {*tokens, *users}:
        raise UsageError(f"{EVERYBODY} cannot be the name of a user or token: --revoke {EVERYBODY} means everybody")


class Authentication:
    """The accounts of a server and their sessions; on one event loop. What verifies passwords raises TooManyLogins."""

    def __init__(self, token: str, auth: str, revocations: Revocations, counts: Counter[str]) -> None:
        self._tokens = [Account(name, secret, True) for name, secret in parse_tokens(token).items()]
        self._users = {name: Account(name, stored_hash, False) for name, stored_hash in parse_users(auth).items()}
        self._by_digest = {account.digest: account for account in (*self._tokens, *self._users.values())}
        self._revocations, self._counts = revocations, counts
        self._queue = LoginQueue()
        self._remembered: OrderedDict[bytes, tuple[Account, float]] = OrderedDict()
        self._memory_key = secrets.token_bytes(32)
        self._open: set[tuple[Account | LoginSession, Callable[[], object]]] = set()
        if self.is_needed:
            revocations.note_secrets(self._by_digest)

    @property
    def is_needed(self) -> bool:
        """Whether a login is required."""
        return bool(self._by_digest)

    @property
    def has_users(self) -> bool:
        return bool(self._users)

    async def identify(self, headers: Iterable[tuple[bytes, bytes]], address: str) -> Account | LoginSession | None:
        """Return who sent a request, or None. One valid credential is enough: a proxy may add its own beside ours."""
        values = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        for value in values:
            kind, _, secret = value.partition(" ")
            if kind.lower() == "bearer" and (account := self.find_token(secret.strip())):
                return account
        if session := self.find_session(headers):
            return session
        for value in values:
            if value[:6].lower() == "basic " and (account := await self._check_basic(value[6:].strip(), address)):
                return account
        return None

    # --- secrets ------------------------------------------------------------------------------------------------------

    def find_token(self, secret: str) -> Account | None:
        """Return the account of a token, or None. Takes the same time for every secret of one length."""
        data = secret.encode("utf-8", "replace")
        accounts = [account for account in self._tokens if hmac.compare_digest(data, account.secret.encode())]
        return accounts[0] if accounts and not self._is_revoked(accounts[0]) else None

    async def check_password(self, user: str, password: str, address: str) -> Account | None:
        """Return the account of a user, or None. Slow on purpose, also for unknown users, against guessing."""
        if not self._users:
            return None
        account = self._users.get(user)
        stored_hash = account.secret if account else passwords.DUMMY_HASH
        is_right = await self._queue.check(address, partial(passwords.verify_password, password[:MAX_PASSWORD_LENGTH],
                                                                   stored_hash))
        if not is_right or account is None or self._is_revoked(account):
            self._counts["wrong passwords"] += 1
            log.info("a login failed", extra={"facts": {"address": address}})
            return None
        return account

    async def _check_basic(self, text: str, address: str) -> Account | None:
        if not self._users:
            return None
        key = hmac.digest(self._memory_key, text.encode("latin-1", "replace"), "sha256")
        account, until_seconds = self._remembered.get(key, (None, 0.0))
        if account is not None and time.monotonic() < until_seconds:
            self._remembered.move_to_end(key)
            return None if self._is_revoked(account) else account
        try:
            user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        account = await self.check_password(user, password, address)
        if account is not None:
            self._remembered[key] = account, time.monotonic() + REMEMBER_SECONDS
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return account

    def _is_revoked(self, account: Account) -> bool:
        return self._revocations.is_secret_revoked(account.name, account.digest)

    # --- sessions -----------------------------------------------------------------------------------------------------

    def begin_session(self, account: Account) -> LoginSession:
        return LoginSession(account, now_ms(), secrets.token_urlsafe(12))

    def find_session(self, headers: Iterable[tuple[bytes, bytes]]) -> LoginSession | None:
        """Return the session of the first valid cookie, or None."""
        cookies = [part.strip() for name, value in headers if name == b"cookie"
                   for part in value.decode("latin-1").split(";")]
        values = [part.removeprefix(COOKIE + "=") for part in cookies if part.startswith(COOKIE + "=")]
        for value in values[:MAX_COOKIES]:
            if (session := self._parse_cookie(value)) and self._is_valid(session):
                return session
        return None

    def _parse_cookie(self, value: str) -> LoginSession | None:
        parts = COOKIE_PATTERN.fullmatch(value)
        account = self._by_digest.get(parts[1]) if parts else None
        if parts is None or account is None:
            return None
        session = LoginSession(account, int(parts[2]), parts[3])
        return session if hmac.compare_digest(session.cookie, value) else None

    def _is_valid(self, session: LoginSession) -> bool:
        return (now_ms() - session.began_ms < SESSION_SECONDS * 1000 and not self._is_revoked(session.account)
                and not self._revocations.is_session_revoked(session.session_id, session.account.name,
                                                             session.began_ms))

    def end_session(self, session: LoginSession, everywhere: bool = False) -> None:
        """Log a session out, or ``everywhere`` all sessions of its account. Blocks while a file is written."""
        if everywhere:
            self._revocations.end_sessions(session.account.name)
        else:
            self._revocations.end_session(session.session_id, session.account.name, session.began_ms)

    # --- open requests ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def keep_open(self, identity: Account | LoginSession, end: Callable[[], object]) -> Iterator[None]:
        """Call ``end`` if ``identity`` is revoked within it."""
        self._open.add((identity, end))
        try:
            yield
        finally:
            self._open.discard((identity, end))

    def is_valid(self, identity: Account | LoginSession) -> bool:
        return self._is_valid(identity) if isinstance(identity, LoginSession) else not self._is_revoked(identity)

    def close_revoked(self) -> None:
        """End the open requests and sockets of revoked logins."""
        for identity, end in list(self._open):
            if not self.is_valid(identity):
                end()

    async def watch(self) -> None:
        """Check for revocations by other processes, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if await asyncio.to_thread(self._revocations.refresh):
                self.close_revoked()
