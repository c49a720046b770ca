"""The head of the page: title, theme, log out; the operator's banner, and terms that a visitor agrees to once.

It stands before Gradio's part of the page, whose ``main`` may hold no banner, and is there before Gradio is loaded.
"""
from __future__ import annotations

import hashlib
from html import escape
from typing import TYPE_CHECKING

from ..core import strings

if TYPE_CHECKING:
    from streamdream.settings import WebSettings


def html(web: WebSettings, terms: str) -> str:
    """Return the HTML of the head; ``assets/frame.js`` makes it work."""
    say = strings.html
    banner = f'<p class="sd-banner" role="note">{escape(web.banner)}</p>' if web.banner else ""
    return f"""<header class="sd-top"><a class="sd-skip" href="#">{say("frame.skip")}</a>
<div class="sd-head"><span class="sd-mark" aria-hidden="true"></span><h1>streamdream</h1>
{_logout() if web.auth or web.token else ""}
<button type="button" class="sd-theme" aria-label="{say("frame.dark")}" title="{say("frame.dark")}">
<span aria-hidden="true">◐</span></button></div>{banner}
<noscript><p class="sd-banner">{say("frame.no_script")}</p></noscript></header>
{_terms(terms) if terms else ""}"""


def _logout() -> str:
    return (f'<form class="sd-logout" method="post" action="logout"><button>{strings.html("frame.log_out")}</button>'
            "</form>")


def _terms(text: str) -> str:
    version = hashlib.sha256(text.encode()).hexdigest()[:16]  # other terms are shown again
    return f"""<dialog class="sd-terms" aria-labelledby="sd-terms-title" data-version="{version}">
<h2 id="sd-terms-title">{strings.html("terms.title")}</h2><div class="sd-terms-text" tabindex="0">{escape(text)}</div>
<button type="button" autofocus>{strings.html("terms.agree")}</button></dialog>"""

