"""All words of the page are in ``assets/strings.js``, where they can be changed and translated."""
from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamdream_web
from streamdream_web.core import strings

WEB = Path(streamdream_web.__file__).parent
SCRIPTS = sorted(path for path in (WEB / "assets").glob("*.js") if path.name not in ("strings.js", "lean_qr.js"))
MODULES = [*sorted((WEB / "pages").glob("*.py")), WEB / "auth" / "login_page.py", WEB / "server" / "blocks.py"]
ARGUMENTS = {"label", "info", "placeholder", "title", "note"}
"""Named arguments that visitors read."""
CALLS = {"Accordion", "Button", "Checkbox", "Dropdown", "Error", "Info", "Radio", "Tab", "Textbox", "UsageError"}
"""Calls whose first argument visitors read."""
SHOWN = r"textContent|innerText|title|ariaLabel|placeholder|alt"
SCRIPT_WORDS = re.compile(
    rf"\b(?:{SHOWN})\s*[=:]\s*[\"'`][^\w\"'`]*[A-Za-z]{{2}}"  # node.title = "Words", {{ alt: "Words" }}
    rf"|setAttribute\(\"(?:aria-label|{SHOWN})\",\s*[\"'`][^\w\"'`]*[A-Za-z]{{2}}"
    r"|\b(?:confirm|alert|prompt|Option)\(\s*[\"'`][^\w\"'`]*[A-Za-z]{2}")
HTML_WORDS = re.compile(r">[^<>]*?[A-Za-z]*[a-z]{2}[^<>]*<|(?:title|aria-label|placeholder|alt)=\"[^\"]*[a-z]{2}")
FILLED_IN = re.compile(r"\$\{[^}]*\}|\[\[[^\]]*\]\]|\{[^}]*\}|<style>.*</style>", re.DOTALL)
NAMES = ("streamdream", ">streamdream<")


def html_words(text: str) -> list[str]:
    """Return the literal words between tags and in attributes that visitors read."""
    found = [match[0] for match in HTML_WORDS.finditer(FILLED_IN.sub("", text))]
    return [words for words in found if words not in NAMES]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_has_no_words_of_its_own(path: Path) -> None:
    lines = [re.sub(r"\$\{[^}]*\}", "", line) for line in path.read_text(encoding="utf-8").splitlines()
             if not line.lstrip().startswith("//")]
    assert [line for line in lines if SCRIPT_WORDS.search(line)] == []
    assert [words for line in lines if "</" in line or "<input" in line for words in html_words(line)] == []


@pytest.mark.parametrize("path", sorted((WEB / "assets").glob("*.html")), ids=lambda path: path.name)
def test_html_has_no_words_of_its_own(path: Path) -> None:
    assert html_words(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_has_no_words_of_its_own(path: Path) -> None:
    assert list(_literals(ast.parse(path.read_text(encoding="utf-8")))) == []


def _literals(tree: ast.AST) -> Iterator[str]:
    """Yield the literal words of Gradio's components, of errors, and of HTML."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "</" in node.value:
            yield from html_words(node.value)
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        shown = [item.value for item in node.keywords if item.arg in ARGUMENTS]
        shown += node.args[:1] if name in CALLS else []
        for part in [inner for argument in shown if not isinstance(argument, ast.Call) for inner in ast.walk(argument)]:
            text = str(part.value) if isinstance(part, ast.Constant) and part.value else ""
            if re.search("[A-Za-z]{2}", text) and text not in NAMES:
                yield text


def test_words_that_are_asked_for_exist() -> None:
    files = [*WEB.rglob("*.py"), *(WEB / "assets").glob("*.html")]
    asked = re.findall(r"(?:\[\[|strings\.(?:text|html)\(\")(\w+)\.(\w+)\b",
                       "".join(path.read_text(encoding="utf-8") for path in files))
    assert len(asked) > 100
    assert [f"{part}.{name}" for part, name in asked if name not in strings.section(part)] == []
