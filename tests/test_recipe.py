"""The recipe in a dream: in every kind of file, beside what the input brings, read back, and read from strangers."""
from __future__ import annotations

import json
import tomllib
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.jobs.file_inspection import InspectionLimits
from streamdream_web.jobs.queue import JobQueue
from streamdream_web.jobs.upload import Upload
from streamdream_web.jobs.uploads import Uploads
from support import web_jobs
from support.clips import Clip, make
from support.commands import fails, here

from streamdream import __version__, settings
from streamdream.backends import Backend
from streamdream.media import images, metadata
from streamdream.media.input_container import TimeRange
from streamdream.settings import DreamSettings

SMALL = ("--field-height", "72", "--layers", "mixed0", "--warmup-steps", "1", "--backend", "eager", "--seed", "7",
         "--precision", "fp32")
TAGS = {"title": "A walk", "artist": "Ann", "comment": "by day", "date": "2020"}
STEPS = 3


@pytest.fixture(scope="module")
def walk(folder: Path) -> str:
    return make(folder / "walk.mp4", Clip(3, (96, 72), metadata=TAGS))


@pytest.fixture()
def here_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tags_of(path: str) -> dict[str, str]:
    with av.open(path) as file:
        return {key.lower(): value for key, value in file.metadata.items()}


def remux(source: str, target: str) -> None:
    """As ``ffmpeg -c copy``."""
    with av.open(source) as before, av.open(target, "w") as after:
        after.metadata.update(before.metadata)
        stream: Any = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)


def carrying(path: str, text: str) -> str:
    """A clip with a recipe of that text."""
    return make(Path(path), Clip(2, (96, 72), metadata={"comment": f"{metadata.MARK}\n{text}"}))


@pytest.mark.parametrize("output", ["d.mp4", "d.mkv", "d.webm", "d_%02d.png", "d_%02d.jpg", *(
    pytest.param(name, marks=pytest.mark.soak) for name in ("d.m4v", "d.mov", "d_%02d.webp"))])
def test_every_kind_of_file_carries_its_recipe(output: str, walk: str, here_in: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "render", walk, "-o", output, *SMALL, "--steps", STEPS)
    assert result.returncode == 0 and "warning" not in result.stderr, result.stderr
    for path in [*here_in.iterdir()]:
        printed = here(capsys, "recipe", path.name).stdout
        values = tomllib.loads(printed)
        assert (values["steps"], values["seed"], values["layers"]) == (STEPS, 7, "mixed0")
        assert (values["backend"], values["precision"]) == ("eager", "fp32")
        assert f"made by streamdream {__version__}" in printed
        (here_in / "mine.toml").write_text(printed)
        assert settings.resolve({}, {}, "mine.toml").dream.steps == STEPS
    if "%" not in output:
        assert TAGS.items() <= tags_of(output).items()


def test_a_recipe_survives_remuxing_and_is_replaced_by_the_next_dream(walk: str, here_in: Path,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    here(capsys, "render", walk, "-o", "a.mp4", *SMALL, "--steps", STEPS)
    for source, target in (("a.mp4", "b.mkv"), ("b.mkv", "c.mp4"), ("c.mp4", "d.mp4")):
        remux(source, target)
    assert tomllib.loads(here(capsys, "recipe", "d.mp4").stdout)["steps"] == STEPS
    here(capsys, "render", "b.mkv", "-o", "e.mkv", *SMALL, "--steps", 1)
    assert tomllib.loads(here(capsys, "recipe", "e.mkv").stdout)["steps"] == 1
    assert sum(value.startswith(metadata.MARK) for value in tags_of("e.mkv").values()) == 1


def test_what_the_input_says_under_the_tag_of_the_recipe_stays(here_in: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    own = dict.fromkeys(metadata.TAGS, "its own")
    make(Path("one.mp4"), Clip(2, (96, 72), metadata={metadata.TAGS[0]: "its own"}))
    make(Path("all.mp4"), Clip(2, (96, 72), metadata=own))
    here(capsys, "render", "one.mp4", "-o", "a.mp4", *SMALL)
    assert tags_of("a.mp4")[metadata.TAGS[0]] == "its own" and here(capsys, "recipe", "a.mp4").returncode == 0
    result = here(capsys, "render", "all.mp4", "-o", "b.mp4", *SMALL)
    assert own.items() <= tags_of("b.mp4").items() and "the output has no recipe" in result.stderr
    fails(here(capsys, "recipe", "b.mp4"), 2, "b.mp4 carries no recipe")


@pytest.mark.parametrize("name", ["d.png", pytest.param("d.jpg", marks=pytest.mark.soak),
                                  pytest.param("d.webp", marks=pytest.mark.soak)])
def test_a_recipe_dreams_the_same_picture_again(name: str, lion: NDArray[np.uint8], here_in: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    images.write_image("lion.png", np.ascontiguousarray(lion[:100, :100]))
    (here_in / "far").mkdir()
    images.write_image("far/mask.png", np.full((20, 20, 3), 200, np.uint8))
    made = here(capsys, "image", "lion.png", "-o", name, "--octaves", 1, "--mask", "far/mask.png", *SMALL)
    assert made.returncode == 0, made.stderr
    assert b"far" not in Path(name).read_bytes()  # no folders
    fails(here(capsys, "image", "lion.png", "-o", "again.png", "--preset", name), 2, "needs the file mask.png (sha256",
          "for --mask, which is not in the current folder")
    images.write_image("mask.png", np.full((20, 20, 3), 200, np.uint8))
    again = here(capsys, "image", "lion.png", "-o", f"again_{name}", "--preset", name)
    assert again.returncode == 0 and "warning" not in again.stderr, again.stderr
    assert Path(f"again_{name}").read_bytes() == Path(name).read_bytes()
    images.write_image("mask.png", np.full((20, 20, 3), 100, np.uint8), overwrite=True)
    other = here(capsys, "image", "lion.png", "-o", "other.png", "--preset", name)
    assert "warning: mask.png is not the file of the recipe" in other.stderr
    found = json.loads(here(capsys, "recipe", name, "--json").stdout)
    assert found["settings"]["mask"] == "mask.png" and len(found["sha256"]["mask.png"]) == 16


def test_a_zoom_and_a_settings_track_are_in_the_recipe(lion: NDArray[np.uint8], walk: str, here_in: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    images.write_image("lion.png", np.ascontiguousarray(lion[:100, :100]))
    here(capsys, "image", "lion.png", "-o", "zoom.mp4", "-t", "0.1", "--zoom", 1.5, *SMALL)
    assert tomllib.loads(here(capsys, "recipe", "zoom.mp4").stdout)["zoom"] == 1.5
    here(capsys, "render", walk, "-o", "a.mkv", *SMALL, "--record-settings", "show.jsonl", "--strength", 0.5)
    here(capsys, "render", walk, "-o", "b.mkv", *SMALL, "--settings-track", "show.jsonl")
    assert "# --settings-track: show.jsonl, sha256 " in here(capsys, "recipe", "b.mkv").stdout
    again = here(capsys, "render", walk, "-o", "c.mkv", "--preset", "b.mkv", "--record-settings", "again.jsonl")
    first = json.loads(Path("again.jsonl").read_text().splitlines()[0])
    assert again.returncode == 0 and first["set"]["strength"] == 0.5
    Path("show.jsonl").unlink()
    fails(here(capsys, "render", walk, "-o", "d.mkv", "--preset", "b.mkv"), 2, "show.jsonl", "for --settings-track")


def test_a_flag_wins_over_a_recipe_and_needs_no_file_of_it(walk: str, here_in: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    carrying("a.mp4", 'guide = "lost.jpg"\nkeep = 0.5\n')
    printed = here(capsys, "render", "--preset", "a.mp4", "--print-config", "--guide", walk, "--keep", 0.25).stdout
    assert tomllib.loads(printed)["guide"] == walk and tomllib.loads(printed)["keep"] == 0.25
    fails(here(capsys, "render", walk, "-o", "a.mp4", "-y", "--preset", "a.mp4", "--guide", walk), 2,
          "would overwrite --preset a.mp4")


@pytest.mark.parametrize(("text", "message"), [
    ("layers = ", "its recipe is damaged"),
    ("\x01\x02\x7f", "its recipe is damaged"),
    ("steps = " + "[" * 20_000, "its recipe is damaged"),
    ("a." * 20_000 + "b = 1", "its recipe is damaged"),
    ("#" * 65_000, "its recipe is longer than 60000 bytes"),
    ('octaves = "two"', "--octaves is 'two', but must be a whole number"),
    ("octaves = 99", "--octaves is 99, but must be 1..12"),
    ("layers = [1, 2]", "--layers is no text, number or switch"),
    ("layers" + ".a" * 900 + " = 1", "--layers is no text, number or switch"),
    ('layers = "' + "x" * 5000 + '"\nkeep = "' + "y" * 5000 + '"', "--keep is 'yyy"),
    ('backend = "magic"', "unknown backend 'magic'"),
    ('layers = "mixed3\\u001b[2J"', "control characters"),
    ('guide = "/etc/passwd"', "names files without folders"),
    ('guide = "../x.jpg"', "names files without folders"),
    ('sound = "lavfi:x"', "names files without folders"),
    ('playlist = "mixed3@2; mixed4 style=/x/y.jpg@3"', "names files without folders"),
    ('[recipe]\nsettings_track = "../show.jsonl"', "names files without folders"),
    ('mask = "lost.png"', "needs the file lost.png for --mask"),
    ('playlist = "guide=lost.png"', "needs the file lost.png for --guide"),
])
def test_a_recipe_of_a_stranger_is_refused_in_one_line(text: str, message: str, walk: str, here_in: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    carrying("a.mkv", text)
    result = here(capsys, "render", walk, "-o", "b.mp4", "--preset", "a.mkv")
    fails(result, 2, "a.mkv", message)
    assert len(result.stderr) < 500 and not Path("b.mp4").exists()


def test_keys_that_are_no_settings_of_a_dream_are_ignored_with_one_warning(here_in: Path,
                                                                           capsys: pytest.CaptureFixture[str]) -> None:
    carrying("a.mkv", 'keep = 0.5\nhost = "0.0.0.0"\nauth = "x"\n"\\u001b" = 1\ndevice = "cuda"\nrecipe = 3\n')
    for arguments in (("render", "--preset", "a.mkv", "--print-config"), ("recipe", "a.mkv")):
        result = here(capsys, *arguments)
        assert result.returncode == 0 and tomllib.loads(result.stdout)["keep"] == 0.5
        assert result.stderr.count("\n") == 1 and "'host', 'auth', '\\x1b', 'device'" in result.stderr


@pytest.mark.parametrize(("name", "data", "code", "message"), [
    ("a.png", b"\x89PNG\r\n\x1a\n" + b"\xff" * 50, 2, "a.png carries no recipe"),
    ("a.jpg", b"\xff\xd8\xff\xe1\x00\x20Exif\0\0MM\0*" + b"\xff" * 50, 2, "a.jpg carries no recipe"),
    ("a.webp", b"RIFF\x10\0\0\0WEBP" + b"\xff" * 50, 2, "a.webp carries no recipe"),
    ("a.mp4", b"Dear diary" * 50, 1, "a.mp4 is damaged, or not a video"),
])
def test_a_file_without_a_recipe(name: str, data: bytes, code: int, message: str, here_in: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_bytes(data)
    fails(here(capsys, "recipe", name), code, message)


def test_a_damaged_recipe_is_none_without_a_word_of_the_library(lion: NDArray[np.uint8], tmp_path: Path) -> None:
    whole = images.encode_image(lion, ".jpg", "a.jpg", recipe="a recipe")
    entries = b"\0\x01\x87\x69"  # in the first directory of its Exif
    assert entries in whole
    path = tmp_path / "a.jpg"
    path.write_bytes(whole.replace(entries, b"\0\x09\x87\x69", 1))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert metadata.read_recipe(str(path)) == ""
    assert not said


def test_files_that_are_not_there(here_in: Path, walk: str, capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "recipe", "lost.mp4"), 2, "no such file: lost.mp4")
    fails(here(capsys, "render", walk, "-o", "a.mp4", "--preset", "lost.png"), 2, "no such file: lost.png")
    fails(here(capsys, "recipe", walk), 2, "carries no recipe")
    fails(here(capsys, "recipe"), 2, "the file is missing")


def test_downloads_of_the_page_carry_recipes_with_the_names_of_the_visitor(eager: Backend, walk: str,
                                                                          tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", InspectionLimits(50, 60, 10**6))
    line = JobQueue("tests", tmp_path / "jobs", max_jobs=2, max_per_visitor=2, work_of=web_jobs.work_of(eager))
    data = images.encode_image(np.full((96, 96, 3), 90, np.uint8), ".png", "x")
    guide, picture = (uploads.take(data, name) for name in ("flowers.png", "sky.png"))
    clip = uploads.take(Path(walk).read_bytes(), "walk.mp4")
    dream = DreamSettings(layers="mixed0", warmup_steps=1, octaves=1)

    def text_of(upload: Upload, span: TimeRange) -> str:
        job = web_jobs.wait_for(web_jobs.submit(line, upload, dream, span, {"guide": guide}, 72))
        assert job.result, job.error
        return metadata.read_recipe(str(job.result))

    try:
        texts = [text_of(picture, TimeRange()), text_of(clip, TimeRange(end=Fraction(1, 20)))]
    finally:
        line.close()
        uploads.close()
    for text in texts:
        values = tomllib.loads(text)
        assert (values["guide"], values["seed"], values["field_height"]) == ("flowers.png", 5, 72)
        assert "flowers.png" in values["recipe"]["sha256"] and guide.token not in text
