"""The words of the page. They are all in ``assets/strings.js``, which the browser reads, too."""
from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "assets" / "strings.js"
PREFIX = "export default "


@cache
def section(name: str) -> dict[str, Any]:
    """Return the words of a part of the page. Raises KeyError."""
    text = SCRIPT.read_text(encoding="utf-8")
    words: dict[str, dict[str, Any]] = json.loads(text[text.index(PREFIX) + len(PREFIX):].rstrip().removesuffix(";"))
    return words[name]


def text(key: str, **values: object) -> str:
    """Return the words of ``section.name``, with ``{value}`` filled in. Raises KeyError."""
    part, name = key.split(".", 1)
    return str(section(part)[name]).format(**values)


def html(key: str, **values: object) -> str:
    """Return ``text``, escaped for HTML."""
    return escape(text(key, **values))
