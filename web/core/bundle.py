"""Joins a script with all that it imports, so that a page makes one request for them, not one for each file.

It understands what our scripts use: ``import {a, b as c} from "./x.js"``, ``import x from``, ``export`` before a
declaration, ``export default``. Each module becomes a function that returns its exports. A module that two bundles
contain exists twice, so one that holds a state belongs to one bundle only.
"""
from __future__ import annotations

import re
from collections.abc import Mapping

IMPORT = re.compile(r'^import ([^"]+) from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class) )(\w+)|^export const ([^;]+?);$", re.MULTILINE)
NAMES = re.compile(r"(?:^|,)\s*(\w+)\s*=")
DEFAULT = "export default "


def join(name: str, sources: Mapping[str, str]) -> str:
    """Return the module ``name`` with its imports, all from ``sources``: texts by their names without ``.js``.

    Raises ValueError for a circle, KeyError for a file that is not there.
    """
    order: list[str] = []
    _visit(name, sources, order, ())
    *others, own = (_function(module, sources[module]) for module in order)
    names = ", ".join(own[1])
    return "\n".join([*(text for text, _ in others), own[0], f"export const {{ {names} }} = ${name};", ""])


def _visit(name: str, sources: Mapping[str, str], order: list[str], path: tuple[str, ...]) -> None:
    """Append the module to ``order`` after all that it imports."""
    if name in path:
        raise ValueError(f"scripts import each other: {' > '.join((*path, name))}")
    if name not in order:
        for _, imported in IMPORT.findall(sources[name]):
            _visit(imported, sources, order, (*path, name))
        order.append(name)


def _function(name: str, source: str) -> tuple[str, list[str]]:
    """Return the module as ``const $name = (() => {...})();`` and the names of its exports."""
    exported = []
    for _, declared, several in EXPORT.findall(source):
        exported += [declared] if declared else NAMES.findall(several)
    text = EXPORT.sub(lambda match: match[0].removeprefix("export "), IMPORT.sub(_import, source))
    if DEFAULT in text:
        text, exported = text.replace(DEFAULT, "const $default = ", 1), [*exported, "default: $default"]
    text = f"// {name}.js\nconst ${name} = (() => {{\n{text}\nreturn {{ {', '.join(exported)} }};\n}})();"
    return text, [each for each in exported if ":" not in each]


def _import(match: re.Match[str]) -> str:
    default, _, named = match[1].partition("{")
    parts = [part.strip().replace(" as ", ": ") for part in named.rstrip("} \n").split(",") if part.strip()]
    if default := default.strip(" ,"):
        parts.append(f"default: {default}")
    return f"const {{ {', '.join(parts)} }} = ${match[2]};"
