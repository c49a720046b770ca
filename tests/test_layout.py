"""The packages: what is named in a string is there, and test files stand alone."""
from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamdream_bench
from streamdream_web.server import startup

import streamdream
from streamdream import backends, settings

TESTS = Path(__file__).parent


def registries() -> Iterator[str]:
    """Every ``module:NAME``."""
    yield from (f"streamdream.{module}:{name}" for name, module in streamdream._HOMES.items())
    yield from backends.BACKENDS.values()
    yield from streamdream_bench.BENCHES.values()
    yield from (f"streamdream_web.pages.{name}:" for name in startup.TABS)
    for group in settings.GROUPS:
        yield from (field.metadata["choices"] for field in dataclasses.fields(group) if field.metadata["choices"])


@pytest.mark.parametrize("place", sorted({*registries()}))
def test_a_name_in_a_registry_can_be_imported(place: str) -> None:
    module, _, name = place.partition(":")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:  # of a package that is an extra
        assert not (error.name or "streamdream").startswith("streamdream"), error
        pytest.skip(f"{error.name} is not installed")
    assert hasattr(imported, name or "__name__")


def programs(text: str) -> Iterator[ast.Module]:
    """A file, and the programs in its strings."""
    yield (tree := ast.parse(text))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            try:
                yield ast.parse(node.value)
            except SyntaxError:
                continue


def imports(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """(module, names from it), absolute ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, [alias.name for alias in node.names]


@pytest.mark.parametrize("path", sorted(TESTS.glob("test_*.py")), ids=lambda path: path.stem)
def test_a_test_file_imports_no_other_and_its_programs_import_what_is_there(path: Path) -> None:
    tests = {other.stem for other in TESTS.glob("*.py")}
    for tree in programs(path.read_text()):
        for module, names in imports(tree):
            assert module.partition(".")[0] not in tests, f"{path.name} imports {module}: move it to tests/support"
            if module.startswith("streamdream"):
                imported = importlib.import_module(module)
                for name in names:
                    assert hasattr(imported, name) or importlib.import_module(f"{module}.{name}")
