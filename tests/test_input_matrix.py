"""Files as phones, cameras, editors and archives make them: each is rendered, and what must hold of it holds.

``support/inputs`` has the rows; docs/formats.md is made of them. The core runs always, all in ``make soak``.
"""
from __future__ import annotations

from pathlib import Path

import pytest
from av.codec.codec import UnknownCodecError
from PIL import UnidentifiedImageError
from support.commands import here
from support.inputs import INPUTS, page
from support.inputs.chart import chart
from support.inputs.holds import HOLDS, check
from support.inputs.rendered import Rendered
from support.inputs.row import Input
from support.inputs.write import BT2020, MILLISECOND, Sound, Text, Video, write

DREAMED = ("hlg.mov → mp4", "turned.ts → mp4", "joined.ts → mp4", "photo_%03d.jpg → mp4", "two-languages.mkv → mp4")
"""These are also dreamed, in earnest."""
OF_COLORS = {"colors", "lossless"}


def run(row: Input, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Rendered:
    output = folder / "out"
    output.mkdir()
    try:
        sources = row.prepare(folder)
    except UnknownCodecError as missing:
        pytest.skip(f"this FFmpeg has no encoder {missing} to make the input")
    said = here(capsys, *row.arguments(sources, row.output(output)), *more)
    return Rendered(sources[0], row.output(output), said.returncode, said.stderr)


@pytest.mark.parametrize("key", [pytest.param(key, marks=() if row.core else pytest.mark.soak)
                                 for key, row in INPUTS.items()])
def test_a_file_as_people_have_it_becomes_what_it_should(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = INPUTS[key]
    check(run(row, tmp_path, capsys), row.holds)


@pytest.mark.parametrize("key", DREAMED)
def test_it_holds_of_a_dream_too(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = INPUTS[key]
    made = run(row, tmp_path, capsys, "--strength", "0.2")
    check(made, {name: value for name, value in row.holds.items() if name not in OF_COLORS})


def test_the_matrix_has_many_rows_and_each_knows_its_checks() -> None:
    assert len({row.name for row in INPUTS.values()}) >= 80
    assert sum(row.core for row in INPUTS.values()) >= 30
    for row in INPUTS.values():
        cases = row.holds.get("either", (row.holds,))
        assert all(set(case) <= set(HOLDS) and case for case in cases), row.key
        assert row.about and row.becomes


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """A render that is wrong in everything: upside down, of other colours, times, sound, texts and words."""
    folder = tmp_path_factory.mktemp("wrong")
    source = write(folder / "source.mkv", Video(), Sound(), Text("subrip"))
    irregular = (300, 310, 470, 480, 1000)
    output = write(folder / "wrong.mkv",
                   Video("ffv1", "yuv420p", size=(72, 48), first=3, frames=5, tick=MILLISECOND, times=irregular,
                         color=BT2020, picture=lambda number, size: chart(number, size)[::-1, ::-1, ::-1]),
                   Sound("flac", seconds=1.5, hertz=900, start=0.9), Text("subrip", ((300, 500, "bye"),)),
                   chapters=("another",), tags={"title": "another"})
    return Rendered(source, output, 0, "warning: it rains")


@pytest.mark.parametrize("name", list(HOLDS))
def test_every_check_fails_on_a_render_that_is_wrong_in_everything(name: str, wrong: Rendered) -> None:
    """A check that nothing fails proves nothing."""
    cases = [case for row in INPUTS.values() for case in row.holds.get("either", (row.holds,))]
    value = next(case[name] for case in cases if case.get(name) not in (None, (1, 1)))
    with pytest.raises((AssertionError, UnidentifiedImageError)):
        HOLDS[name](wrong, value)


def test_the_table_of_formats_is_up_to_date() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "make docs writes it anew"
