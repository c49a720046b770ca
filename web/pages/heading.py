"""The head of the page: title, theme, log out; the operator's banner, and terms that a visitor agrees to once."""
from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamdream.settings import WebSettings

HEADING = """<header class="sd-head"><span class="sd-mark" aria-hidden="true"></span><h1>streamdream</h1>
LOGOUT<button type="button" class="sd-theme" aria-label="Dark or light theme" title="Dark or light theme">◐</button>
</header>"""
LOGOUT = '<form class="sd-logout" method="post" action="logout"><button>Log out</button></form>'
SCRIPT = """
const stored = localStorage.getItem("streamdream-theme");
if (stored && !location.search.includes("__theme")) document.body.classList.toggle("dark", stored === "dark");
element.querySelector(".sd-theme").addEventListener("click", () =>
  localStorage.setItem("streamdream-theme", document.body.classList.toggle("dark") ? "dark" : "light"));
const terms = element.querySelector(".sd-terms");
if (terms && localStorage.getItem("streamdream-terms") !== terms.dataset.version) {
  terms.addEventListener("cancel", (event) => event.preventDefault());   // Escape is no consent
  terms.querySelector("button").addEventListener("click", () => {
    localStorage.setItem("streamdream-terms", terms.dataset.version);
    terms.close();
  });
  terms.showModal();
}
"""
BANNER = '<p class="sd-banner" role="note">TEXT</p>'
TERMS = """<dialog class="sd-terms" aria-labelledby="sd-terms-title" data-version="VERSION">
<h2 id="sd-terms-title">Terms of use</h2><div class="sd-terms-text" tabindex="0">TEXT</div>
<button type="button" autofocus>I agree</button></dialog>"""


def template(web: WebSettings, terms: str) -> str:
    """Return the template of Gradio's HTML component: the title, and the operator's banner and terms, if any."""
    version = hashlib.sha256(terms.encode()).hexdigest()[:16]  # other terms are shown again
    banner = BANNER.replace("TEXT", as_text(web.banner)) if web.banner else ""
    shown = TERMS.replace("VERSION", version).replace("TEXT", as_text(terms)) if terms else ""
    return HEADING.replace("LOGOUT", LOGOUT if web.auth or web.token else "") + banner + shown


def as_text(text: str) -> str:
    """Escape text for HTML and for a template, in which ``${...}`` and ``{{...}}`` are code."""
    return "".join(f"&#{ord(sign)};" if sign in "&<>\"'`${}\\" else sign for sign in text)
