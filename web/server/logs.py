"""The log of the server: text lines or JSON lines, both with the facts that belong to a message."""
from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LOGGERS = ("streamdream", "streamdream_web", "uvicorn.error")
QUIET = ("ASGI callable returned without", "Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket",
         "Cancel %s running task")
"""Harmless errors and warnings of uvicorn: our own line reports the event, or the server is shutting down."""


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", ...facts}``."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
            **getattr(record, "facts", {})}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """``message (name value, ...)``; control characters are shown, not written."""

    def format(self, record: logging.LogRecord) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in getattr(record, "facts", {}).items())
        line = time.strftime("%H:%M:%S ") + record.getMessage() + (f" ({facts})" if facts else "")
        line = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def is_reported(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(QUIET)


def configure_logging(kind: str, debug: bool = False) -> None:
    """Write the log to stderr from here on. ``kind`` is a name of ``settings.LOGS``; ``debug`` adds tracebacks."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    for name in LOGGERS:
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.DEBUG if debug else logging.WARNING if name.startswith("uvicorn") else logging.INFO)
        if not debug:
            log.addFilter(is_reported)
