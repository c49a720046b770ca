"""Our scripts and styles, under addresses that change with them, so that browsers may keep them for good."""
from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

from . import bundle

ASSETS = Path(__file__).parents[1] / "assets"
ROUTE = "streamdream"
"""Path of the folder, relative to the page."""
WORDS, HTML_WORDS = re.compile(r"STRINGS\.(\w+)"), re.compile(r"\[\[(\w+\.\w+)\]\]")
"""Where a script takes the words of a part of the page, and HTML one of them."""
BUNDLES = ("frame.js", "live.js", "panel.js")
"""Scripts that a browser gets with all that they import."""


@cache
def version() -> str:
    """Return a hash of the files in the folder itself, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in ASSETS.iterdir() if path.is_file()):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)} ".encode() + data)
    return digest.hexdigest()[:12]


def url(name: str) -> str:
    """Return the address of a file, relative to the page. Scripts import each other from the same folder."""
    return f"{ROUTE}/{version()}/{name}"


@cache
def script(name: str) -> str:
    """Return one of ``BUNDLES`` with all that it imports."""
    return bundle.join(Path(name).stem, {path.stem: path.read_text(encoding="utf-8") for path in ASSETS.glob("*.js")})


@cache
def text(name: str) -> str:
    """Return a file for use in the page, with the addresses of other files and the words of ``strings.js``."""
    from . import strings

    text = (ASSETS / name).read_text(encoding="utf-8").replace(f'"{ROUTE}/', f'"{ROUTE}/{version()}/')
    text = WORDS.sub(lambda match: json.dumps(strings.section(match[1]), ensure_ascii=False), text)
    return HTML_WORDS.sub(lambda match: strings.html(match[1]), text)


def component_script(name: str) -> str:
    """Return the ``js_on_load`` of a component. It calls ``becomeReady`` of ``early_clicks.js``."""
    return text("early_clicks.js") + text(name)
