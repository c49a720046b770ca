"""The login page. It loads nothing else from the server."""
from __future__ import annotations

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>streamdream</title>
<style>
:root { color-scheme: light dark; --ground: light-dark(#f5f2ec, #110e16); --paper: light-dark(#fffdf9, #1a1621);
  --ink: light-dark(#1d1822, #f1edf5); --line: light-dark(#d9d2c6, #3a3344); --accent: light-dark(#d9411e, #ff7449); }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--ink);
  font: 16px/1.5 ui-sans-serif, system-ui, sans-serif; }
form { width: min(340px, calc(100vw - 48px)); display: grid; gap: 12px; }
h1 { margin: 0 0 8px; font-size: 28px; letter-spacing: -.02em; }
label { display: grid; gap: 4px; font-size: 14px; }
input { min-height: 46px; padding: 0 14px; border: 1px solid var(--line); border-radius: 12px; background: var(--paper);
  color: inherit; font: inherit; }
button { min-height: 48px; border: 0; border-radius: 99px; background: var(--ink); color: var(--ground); font: inherit;
  font-weight: 650; cursor: pointer; margin-top: 6px; }
p { margin: 0; color: var(--accent); min-height: 1.5em; } :focus-visible { outline: 3px solid var(--accent); }
</style>
<form method="post" action="ROOT/login"><h1>streamdream</h1>
FIELDS<p role="alert">PROBLEM</p><button>Log in</button></form></html>
"""
USER = '<label>User name<input name="user" autocomplete="username" required autofocus></label>'
PASSWORD = '<label>KIND<input name="password" type="password" autocomplete="current-password" required></label>'


def login_page(with_names: bool, wrong: bool, root: str = "") -> str:
    """Return the page, which asks for user name and password if ``with_names``, else for the token.

    ``wrong`` adds that the last attempt failed; ``root`` is the path of the app, as ``/dream``.
    """
    fields = USER + PASSWORD.replace("KIND", "Password") if with_names else PASSWORD.replace("KIND", "Token")
    problem = ("Wrong user name or password." if with_names else "Wrong token.") if wrong else ""
    return PAGE.replace("ROOT", root).replace("FIELDS", fields).replace("PROBLEM", problem)
