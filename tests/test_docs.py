"""The documents: every command line parses, every link and path exists, every example runs as it stands."""
from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from streamdream_bench import readme

import streamdream
from streamdream import RenderSettings, cli, models, open_sink, open_source, settings
from streamdream.cli import settings_page
from streamdream.cli.argument_parser import Parser

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks/README.md"])
"""Documents about the program as it is. CHANGELOG.md and the notebook also tell of what was."""
NOTEBOOK = sorted(ROOT.glob("docs/notebook/*.md"))
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_current = pytest.mark.parametrize("page", CURRENT, ids=name_of)


class Parsed(Exception):
    """Ends a command where it would begin to work."""


@pytest.fixture
def parsing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands stop once their flags are parsed and their settings are checked."""
    parse = Parser.parse
    names = {item.name for group in settings.GROUPS for item in dataclasses.fields(group)}

    def parse_only(self: Parser, argv: Sequence[str]) -> Any:
        args = vars(parse(self, argv))
        preset = args.get("preset", "")
        if "preset" in args and "." not in preset:  # else a file
            settings.resolve({name: text for name, text in args.items() if name in names}, {}, preset)
        raise Parsed

    monkeypatch.setattr(Parser, "parse", parse_only)


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every ``streamdream ...`` in code blocks and in inline code."""
    blocks = [body.replace("\\\n", " ") for _, body in FENCE.findall(text)]
    inline = INLINE.findall(FENCE.sub("", text))
    for line in [*(line for block in blocks for line in block.splitlines()), *inline]:
        for part in re.split(r"&&|;|\bdo\b", line.partition(" #")[0]):
            begin = re.match(r"\s*(?:\S+/)?streamdream (?=[a-z-])", part)
            if begin is None:
                continue
            words = shlex.split(re.split(r" [>|] ", part[begin.end():])[0])
            yield [word for word in words if word != "..."]


@each_current
@pytest.mark.usefixtures("parsing_only")
def test_every_command_line_has_only_flags_that_exist(page: Path) -> None:
    for argv in commands(page.read_text(encoding="utf-8")):
        if argv[0] in ("--help", "--version"):
            continue
        assert argv[0] in cli.COMMANDS, argv
        if len(argv) == 1:  # only named
            continue
        try:
            with pytest.raises((Parsed, SystemExit)):
                cli._dispatch(argv)
        except Exception as error:
            pytest.fail(f"streamdream {shlex.join(argv)}: {error}")


@each_current
def test_every_flag_that_is_named_exists(page: Path) -> None:
    known = {flag for name in cli.COMMANDS for flag in flags_of(name)} | {"--help", "--version", "--debug"}
    foreign = {"--index-url", "--target", "--gpus"}  # pip's and Docker's
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", " ".join(INLINE.findall(page.read_text(encoding="utf-8")))))
    assert named <= known | foreign


def flags_of(command: str) -> list[str]:
    flags: list[str] = []

    class Collector(Parser):
        def parse(self, argv: Sequence[str]) -> Any:
            flags.extend(flag for action in self._actions for flag in action.option_strings)
            raise Parsed

    with pytest.raises(Parsed):
        cli.COMMANDS[command](Collector(command), [])
    return flags


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOK], ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        target, _, heading = "".join(link).partition("#")
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), target
        if heading:
            assert heading in headings(path.read_text(encoding="utf-8")), f"{target}#{heading}"


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_current
def test_every_file_of_ours_that_is_named_exists(page: Path) -> None:
    packages = [path.name for path in (ROOT / "streamdream").iterdir() if path.is_dir()]
    pattern = rf"(?:streamdream|web|benchmarks|tests|docs|{'|'.join(packages)})/[\w/.-]*"
    for path in INLINE.findall(page.read_text(encoding="utf-8")):
        if re.fullmatch(pattern, path):
            assert (ROOT / path).exists() or (ROOT / "streamdream" / path).exists(), path


@each_current
def test_every_make_target_and_extra_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE)) <= set(targets)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for names in re.findall(r"streamdream\[([\w,-]+)\]", text) for name in names.split(",")}
    assert named <= set(extras)


def test_architecture_names_functions_of_the_files_beside_them() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    ways = text[text.index("## One frame's way in"):text.index("## Where is it?")]
    rows = [INLINE.findall(row) for row in ways.splitlines() if row.startswith("|")]
    assert sum(map(len, rows)) > 50
    for words in rows:
        files = [word for word in words if re.search(r"/\w+\.(py|js)$", word)]
        code = "".join((ROOT / ("" if file.startswith("web/") else "streamdream") / file).read_text(encoding="utf-8")
                       for file in files)
        for name in {part for word in words if re.fullmatch(r"[A-Za-z_]+(\.[a-z_]+)?", word) and word != "render"
                     for part in word.split(".")}:
            assert re.search(rf"^ *(?:def|class) {name}\b|^{name}\b.*=", code, re.MULTILINE), f"{name}: {files}"


def test_architecture_has_the_layers_of_the_import_contracts_in_their_order() -> None:
    layers, web_layers = (contract["layers"] for contract in tomllib.loads(
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers")
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    stated: dict[str, set[str]] = {}
    for layer, names in re.findall(r"^\| (\d+) \| (`.*?`) \|", text.partition("## ")[0], re.MULTILINE):
        modules = {name.removesuffix("/").removesuffix(".py") for name in INLINE.findall(names)}
        kind = "web" if all(name.startswith("web/") for name in modules) else ""
        stated.setdefault(kind + layer, set()).update(modules)
    beside = {"streamdream/__init__", "streamdream/presets"}  # no modules
    packages = {"streamdream_web": "web", "streamdream_bench": "benchmarks"}
    assert {layer: names - beside for layer, names in stated.items()} == {
        **{str(number): {packages.get(name, name).replace(".", "/") for name in layer.split(" | ")}
           for number, layer in enumerate(reversed(layers), 1)},
        **{f"web{number}": {f"web/{name}" for name in layer.split(" | ")}
           for number, layer in enumerate(reversed(web_layers), 1)}}


def test_the_settings_page_is_up_to_date() -> None:
    stored = (ROOT / settings_page.PAGE).read_text(encoding="utf-8")
    assert stored == settings_page.page(), "make docs writes it anew"


def test_the_speed_tables_are_made_of_the_result_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path, text in readme.pages().items():
        assert path.read_text(encoding="utf-8") == text, "make docs writes it anew"
    stored = {path.stem for path in readme.RESULTS.glob("*.json")} - {"scaling"}  # of docs/cluster.md
    assert stored <= set(readme.COLUMNS) and set(readme.COLUMNS) - stored <= set(readme.GPU)


def test_the_table_of_networks_is_that_of_the_registry() -> None:
    lines = (ROOT / "docs/models.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip("` ") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    shown = {cells[0]: (cells[2], cells[3], cells[4] == "fetched") for cells in rows if len(cells) == 5}
    assert shown == {row.name: (row.default_layers, row.licence, bool(row.sources)) for row in models.MODELS.values()}


def test_the_examples_in_python_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_source("lavfi:testsrc=size=192x144:rate=10:duration=0.4") as source, \
            open_sink("clip.mp4", source, RenderSettings()) as sink:
        for frame in source:
            sink.write(frame.image, frame)
    examples = [body for language, body in FENCE.findall((ROOT / "docs/python.md").read_text(encoding="utf-8"))
                if language == "python"]
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "dream.mp4").stat().st_size and (tmp_path / "dream.png").stat().st_size


def test_python_lists_the_public_names_and_none_is_a_module() -> None:
    names = re.findall(r"^\| `(\w+)", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(names) == set(streamdream.__all__) - {"__version__"}
    for name in [*names, *names]:  # a package of the same name takes a name's place once it is imported
        assert not isinstance(getattr(streamdream, name), ModuleType), name


def test_the_short_documents_stay_short() -> None:
    for name, lines in {"README.md": 150, "CONTRIBUTING.md": 60}.items():
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= lines, name
