"""Subtitles become the kind of text that the output holds; those that are pictures are kept or named."""
from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from support.sink_outputs import copy
from support.tracks import codecs, film, texts_of

from streamdream.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
TEXTS = ((100, 500, r"{\i1}hello{\i0}\Nworld"), (600, 900, "überall 日本"))
KINDS = {"subrip": "mkv", "ass": "mkv", "webvtt": "webm", "mov_text": "mp4"}
HELD = {"mp4": {"mov_text"}, "mov": {"mov_text"}, "mkv": {"subrip", "ass", "webvtt"}, "webm": {"webvtt"}}
CONVERTED = {"mp4": "mov_text", "mov": "mov_text", "mkv": "subrip", "webm": "webvtt"}


@pytest.fixture(scope="module")
def films(folder: Path) -> dict[str, str]:
    return {kind: film(folder / f"{kind}.{suffix}", texts=TEXTS, text_codec=kind,
                       video_codec="libvpx" if suffix == "webm" else "mpeg4") for kind, suffix in KINDS.items()}


@pytest.mark.parametrize("suffix", list(HELD))
@pytest.mark.parametrize("kind", list(KINDS))
def test_texts_are_there_at_their_times(tmp_path: Path, films: dict[str, str], kind: str, suffix: str) -> None:
    sink = copy(films[kind], tmp_path / f"a.{suffix}")
    kept = kind in HELD[suffix]
    assert codecs(tmp_path / f"a.{suffix}", "subtitle") == [kind if kept else CONVERTED[suffix]]
    lines = [line for line in sink.warnings if "is converted to" in line]
    assert len(lines) == (not kept) and all(f"(subtitle {kind}" in line for line in lines)
    found = texts_of(tmp_path / f"a.{suffix}")
    assert [(start, end) for start, end, _ in found] == [(0.1, 0.5), (0.6, 0.9)]
    plain = [re.sub(r"\{[^}]*\}|\n", "", text) for *_, text in found]
    assert plain == ["helloworld", "überall 日本"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_text_at_the_start_of_the_part_is_shown(tmp_path: Path, films: dict[str, str], suffix: str) -> None:
    for kind in ("subrip", "mov_text"):
        copy(films[kind], tmp_path / f"a.{suffix}", RenderSettings(start=0.3, duration=0.5), overwrite=True)
        found = [time for start, end, _ in texts_of(tmp_path / f"a.{suffix}") for time in (start, end)]
        assert found == pytest.approx([0, 0.2, 0.3, 0.6], abs=0.01)


def test_texts_that_overlap_begin_when_they_should(tmp_path: Path) -> None:
    path = film(tmp_path / "in.mkv", texts=((100, 700, "one"), (400, 1000, "two")))
    copy(path, tmp_path / "a.mp4")
    assert [(start, text) for start, _, text in texts_of(tmp_path / "a.mp4")] == [(0.1, "one"), (0.4, "two")]


@pytest.mark.parametrize(("suffix", "kept"), [("mkv", True), ("mp4", False), ("webm", False), ("avi", False)])
def test_pictures_are_kept_or_named(tmp_path: Path, suffix: str, kept: bool) -> None:
    path = str(tmp_path / "in.mkv")
    with av.open(film(tmp_path / "made.mkv")) as file, av.open(path, "w") as output:
        video = output.add_stream_from_template(file.streams.video[0], opaque=True)
        pictures = output.add_mux_stream("hdmv_pgs_subtitle")
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        picture: Any = av.Packet(b"\x80\x00\x00")
        picture.pts = picture.dts = 1100
        picture.duration, picture.time_base, picture.stream = 100, Fraction(1, 1000), pictures
        output.mux(picture)
    sink = copy(path, tmp_path / f"a.{suffix}")
    assert len(codecs(tmp_path / f"a.{suffix}", "subtitle")) == kept
    assert len(sink.warnings) == (not kept)
    assert kept or "(subtitle hdmv_pgs_subtitle)" in sink.warnings[0]
