"""The head of the page's HTML, in which Gradio's template names Gradio, and nothing that this app needs."""
from __future__ import annotations

import re

from jinja2.ext import Extension

from ..core import assets

FOREIGN = re.compile(r'\s*<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>')
DESCRIPTION = "Deep Dream on your camera, videos and pictures"
STYLES = ("app.css", "live.css", "looks.css")
IF_LIVE = """{% if config.components | selectattr("props.elem_id", "equalto", "live-page") | selectattr("props.visible")
| first is defined %}LINKS{% endif %}"""
"""If the tab Live comes first."""


class PageHead(Extension):
    """Puts ``html`` into Gradio's template, also for programs that preview a link and run no script."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return FOREIGN.sub("", source).replace("</head>", html() + "</head>", 1)


def html() -> str:
    """Return the template of what the head gets. A browser loads the tab Live while Gradio's own scripts start."""
    live = "".join(f'<link rel="modulepreload" href="{assets.url(name)}">' for name in assets.modules("live.js"))
    return ('<meta property="og:title" content="streamdream"><meta property="og:type" content="website">'
            f'<meta property="og:description" content="{DESCRIPTION}"><meta name="description" content="{DESCRIPTION}">'
            f'<link rel="icon" href="{assets.url("icon.svg")}" type="image/svg+xml">'
            '<link rel="manifest" href="manifest.json" crossorigin="use-credentials">'
            + "".join(f'<link rel="stylesheet" href="{assets.url(name)}">' for name in STYLES)
            + IF_LIVE.replace("LINKS", live + '<link rel="preload" href="live/facts" as="fetch" crossorigin>'))
