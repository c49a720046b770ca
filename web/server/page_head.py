"""The head of the page's HTML, in which Gradio's template names Gradio, and nothing that this app needs."""
from __future__ import annotations

import re

from jinja2.ext import Extension

from ..core import assets, strings

FOREIGN = re.compile(r'\s*<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>')
DESCRIPTION = strings.html("frame.description")
STYLES = ("app.css", "live.css", "panel.css", "looks.css")
IF_LIVE = """{% if config.components | selectattr("props.elem_id", "equalto", "live-page") | selectattr("props.visible")
| first is defined %}LINKS{% endif %}"""
"""If the tab Live comes first."""
HEADING = "{% set heading = config.pop('heading', '') %}"
"""Takes it out of the config, which becomes a part of the page, too."""


class PageHead(Extension):
    """Puts ``html`` into Gradio's template, also for programs that preview a link and run no script."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        source = FOREIGN.sub("", source).replace("</head>", html() + "</head>", 1)
        return HEADING + source.replace("<gradio-app", "{{ heading | safe }}<gradio-app", 1)


def html() -> str:
    """Return the template of what the head gets. A browser loads the tab Live while Gradio's own scripts start."""
    live = f'<link rel="modulepreload" href="{assets.url("live.js")}">'
    return ('<meta property="og:title" content="streamdream"><meta property="og:type" content="website">'
            f'<meta property="og:description" content="{DESCRIPTION}"><meta name="description" content="{DESCRIPTION}">'
            f'<link rel="icon" href="{assets.url("icon.svg")}" type="image/svg+xml">'
            f'<link rel="apple-touch-icon" href="{assets.url("icon-180.png")}">'
            '<meta name="theme-color" content="#f5f2ec">'
            '<link rel="manifest" href="manifest.json" crossorigin="use-credentials">'
            + "".join(f'<link rel="stylesheet" href="{assets.url(name)}">' for name in STYLES)
            + f'<script type="module" src="{assets.url("frame.js")}"></script>'
            + IF_LIVE.replace("LINKS", live + '<link rel="preload" href="live/facts" as="fetch" crossorigin>'))
