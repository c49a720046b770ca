"""The login page. It loads nothing else from the server."""
from __future__ import annotations

from ..core import strings

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>TITLE</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --ground: light-dark(#f5f2ec, #110e16); --paper: light-dark(#fffdf9, #1a1621);
  --ink: light-dark(#1d1822, #f1edf5); --edge: light-dark(#857b72, #7d7489); --accent: light-dark(#c03511, #ff7449); }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--ink);
  font: 16px/1.5 ui-sans-serif, system-ui, sans-serif; }
form { width: min(340px, calc(100vw - 48px)); display: grid; gap: 12px; padding: 24px 0; }
h1 { margin: 0 0 8px; font-size: 28px; letter-spacing: -.02em; }
label { display: grid; gap: 4px; font-size: 14px; }
input { min-height: 46px; padding: 0 14px; border: 1px solid var(--edge); border-radius: 12px; background: var(--paper);
  color: inherit; font: inherit; }
input[aria-invalid] { border: 2px solid var(--accent); }
button { min-height: 48px; border: 1px solid transparent; border-radius: 99px; background: var(--ink);
  color: var(--ground); font: inherit; font-weight: 650; cursor: pointer; margin-top: 6px; }
p { margin: 0; color: var(--accent); min-height: 1.5em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
</style>
<main><form method="post" action="ROOT/login"><h1>streamdream</h1>
FIELDS<p id="problem" role="alert">PROBLEM</p><button>LOG_IN</button></form></main></html>
"""
FIELD = '<label>LABEL<input name="NAME" type="TYPE" autocomplete="MEANING" requiredSTATE></label>'
WRONG = ' aria-invalid="true" aria-describedby="problem"'


def login_page(with_names: bool, wrong: bool, root: str = "") -> str:
    """Return the page, which asks for user name and password if ``with_names``, else for the token.

    ``wrong`` adds that the last attempt failed; ``root`` is the path of the app, as ``/dream``.
    """
    fields = [("user", "text", "username", "user")] if with_names else []
    fields.append(("password", "password", "current-password", "password" if with_names else "token"))
    state = WRONG if wrong else ""
    html = "".join(
        FIELD.replace("LABEL", strings.html(f"login.{label}")).replace("NAME", name).replace("TYPE", kind)
        .replace("MEANING", meaning).replace("STATE", state + ("" if number else " autofocus"))
        for number, (name, kind, meaning, label) in enumerate(fields))
    problem = strings.html("login.wrong_user" if with_names else "login.wrong_token") if wrong else ""
    return (PAGE.replace("ROOT", root).replace("TITLE", strings.html("login.failed" if wrong else "login.title"))
            .replace("FIELDS", html).replace("PROBLEM", problem).replace("LOG_IN", strings.html("frame.log_in")))
