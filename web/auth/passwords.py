"""Password hashes: scrypt (RFC 7914) with a salt, as text without characters that a shell would interpret."""
from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

COST, BLOCK, PARALLEL = 2**15, 8, 1
"""32 MB and about 0.1 s for each check."""
MAX_MEMORY_BYTES = 128 * 2**20


def hash_password(password: str) -> str:
    """Return the hash of a password, for ``--auth user:HASH``."""
    salt = secrets.token_bytes(16)
    return f"scrypt.{COST}.{_text(salt)}.{_text(_digest(password, salt, COST))}"


def verify_password(password: str, stored_hash: str) -> bool:
    """Return whether the hash is that of the password; False if it is no hash."""
    try:
        kind, cost, salt, digest = stored_hash.split(".")
        if kind != "scrypt" or not 2**10 <= int(cost) <= 2**17:
            return False
        return hmac.compare_digest(_digest(password, _bytes(salt), int(cost)), _bytes(digest))
    except ValueError:
        return False


def is_hash(text: str) -> bool:
    return bool(re.fullmatch(r"scrypt\.[0-9]{4,6}\.[\w-]+\.[\w-]+", text, re.ASCII))


def _digest(password: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=BLOCK, p=PARALLEL, maxmem=MAX_MEMORY_BYTES, dklen=32)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


DUMMY_HASH = f"scrypt.{COST}.{_text(bytes(16))}.{_text(bytes(32))}"
"""The hash of no password: it is compared for an unknown user, so that the answer takes as long."""
