"""The cookie by which a visitor's files and dreams are known in all their tabs, after a reload and a lost network.

It is no login: it is random, and whoever invents one is a visitor without files.
"""
from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

COOKIE = "streamdream_visitor"
"""Without a dash, so that a proxy such as nginx has a variable of it, by which a visitor stays with one server."""
KEPT_SECONDS = 90 * 86400
"""How long a browser keeps it after the last visit."""
VALUE = re.compile(r"[A-Za-z0-9_-]{32}")
IN_HEADER = re.compile(rf"(?:^|[; ]){COOKIE}=({VALUE.pattern})(?:;|$)")


def new_value() -> str:
    return secrets.token_urlsafe(24)


def read(cookie_header: str) -> str:
    """Return the value in a Cookie header; "" if there is none, or none of ours."""
    found = IN_HEADER.search(cookie_header)
    return found[1] if found else ""


def visitor_of(cookies: Mapping[str, Any], session: str = "") -> str:
    """Return the name of the visitor with these cookies. It is a digest, so it may be stored and logged.

    Browsers without the cookie are known by ``session``, a Gradio session; without that, "" is returned.
    """
    value = str(cookies.get(COOKIE, ""))
    if not VALUE.fullmatch(value):
        return f"session {session}" if session else ""
    return hashlib.sha256(value.encode()).hexdigest()[:32]
