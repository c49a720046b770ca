"""``streamdream render`` with many files, with a folder of pictures, and with ``--progress`` and ``--exec``."""
from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from support.clips import Clip, make, marked, number_of, truncated
from support.commands import fails, here
from support.sink_outputs import names

from streamdream import settings
from streamdream.cli import signals
from streamdream.media.images import write_image
from streamdream.media.sources.video import open_source
from streamdream.render.batch import Task, is_whole, plan_batch
from streamdream.render.file_render import render_file
from streamdream.render.job import RenderJob
from streamdream.render.report import RenderReport

SMALL = ("--field-height", "72", "--layers", "mixed0", "--warmup-steps", "1", "--steps", "1", "--backend", "eager")
FRAMES = 4
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def source_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make(tmp_path_factory.mktemp("clips") / "clip.mp4", Clip(FRAMES, size=(96, 72))))


@pytest.fixture()
def clips(source_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two videos, two bad ones, and what no batch may touch; the current folder is the one around it."""
    folder = tmp_path / "clips"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.mp4", "b.MOV", ".hidden.mp4", "show.partial.mp4", "deeper/c.mp4"):
        shutil.copy(source_clip, folder / name)
    (folder / "bad.mp4").write_text("Dear diary, this is no video.\n" * 40)
    (folder / "empty.mpg").touch()
    (folder / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture()
def reporter(tmp_path: Path) -> str:
    """A command for ``--exec`` that writes its arguments down."""
    program = tmp_path / "reporter.py"
    program.write_text("import json, pathlib, sys\n"
                       "pathlib.Path(sys.argv[1]).write_text(json.dumps(sys.argv[2:]))\nprint('said')\n")
    return f"'{sys.executable}' '{program}' '{tmp_path / 'ran.json'}' 'two words'"


def ran(tmp_path: Path) -> list[str]:
    """The arguments that ``reporter`` got."""
    found: list[str] = json.loads((tmp_path / "ran.json").read_text())
    return found


def test_a_folder_is_rendered_past_its_bad_files_and_a_second_run_does_what_is_missing(
        clips: Path, tmp_path: Path, capsys: Capture, reporter: str) -> None:
    command = ("render", "clips", "-o", "dreams/", *SMALL, "--exec", reporter)
    first = here(capsys, *command)
    assert first.returncode == 1
    assert names(tmp_path / "dreams") == ["a.mp4", "b.MOV"]
    table = [line.split()[:3] for line in first.stdout.splitlines()]
    assert table == [["input", "output", "result"], ["clips/a.mp4", "dreams/a.mp4", "done"],
                     ["clips/b.MOV", "dreams/b.MOV", "done"], ["clips/bad.mp4", "dreams/bad.mp4", "failed"],
                     ["clips/empty.mpg", "dreams/empty.mp4", "failed"]]
    errors = [line for line in first.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "not a video" in errors[0] and "is empty" in errors[1]
    assert ran(tmp_path) == ["two words", "1", "dreams/"]

    (tmp_path / "dreams" / "a.mp4").unlink()
    (clips / "bad.mp4").unlink()
    (clips / "empty.mpg").unlink()
    before = (tmp_path / "dreams" / "b.MOV").stat().st_mtime_ns
    second = here(capsys, *command)
    assert second.returncode == 0
    assert "dreams/b.MOV is there; -y dreams it again" in second.stderr
    assert (tmp_path / "dreams" / "b.MOV").stat().st_mtime_ns == before
    assert names(tmp_path / "dreams") == ["a.mp4", "b.MOV"]
    assert ran(tmp_path) == ["two words", "0", "dreams/"]


def test_ctrl_c_says_what_is_done_and_runs_no_command(clips: Path, tmp_path: Path, capsys: Capture, reporter: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    def render_until_ctrl_c(job: RenderJob, *arguments: Any) -> RenderReport:
        if "b.MOV" in job.input:
            raise signals.SignalReceived(signal.SIGINT)
        return render_file(job, *arguments)

    monkeypatch.setattr("streamdream.render.file_render.render_file", render_until_ctrl_c)
    result = here(capsys, "render", "clips", "-o", "dreams/", *SMALL, "--exec", reporter)
    assert result.returncode == 130
    assert "error: interrupted; 1 of 4 files are done, and the same command goes on" in result.stderr
    assert names(tmp_path / "dreams") == ["a.mp4"] and not (tmp_path / "ran.json").exists()


def test_json_has_one_line_a_file(clips: Path, capsys: Capture) -> None:
    inputs = ("clips/a.mp4", "-o", "dreams", "clips/bad.mp4", "missing.mp4", "clips/b.MOV")
    arguments = ("render", *inputs, *SMALL, "--json")
    lines = [json.loads(line) for line in here(capsys, *arguments).stdout.splitlines()]
    assert [(line["input"], line["output"]) for line in lines] == [
        ("clips/a.mp4", "dreams/a.mp4"), ("clips/bad.mp4", "dreams/bad.mp4"), ("missing.mp4", "dreams/missing.mp4"),
        ("clips/b.MOV", "dreams/b.MOV")]
    assert [line.get("frames") for line in lines] == [FRAMES, None, None, FRAMES]
    assert "not a video" in lines[1]["error"] and "no such file" in lines[2]["error"]
    again = [json.loads(line) for line in here(capsys, *arguments).stdout.splitlines()]
    assert [sorted(line) for line in again] == [
        ["input", "output", "skipped"], ["error", "input", "output"], ["error", "input", "output"],
        ["input", "output", "skipped"]]


def test_one_file_may_go_into_a_folder_that_is_there(clips: Path, capsys: Capture) -> None:
    Path("dreams").mkdir()
    result = here(capsys, "render", "clips/a.mp4", "-o", "dreams", *SMALL, "--suffix", "-dream", "--container", "mkv")
    assert result.returncode == 0 and names(Path("dreams")) == ["a-dream.mkv"]


def test_a_batch_in_which_all_fails_leaves_no_folder(clips: Path, capsys: Capture) -> None:
    assert here(capsys, "render", "clips/bad.mp4", "clips/empty.mpg", "-o", "dreams", *SMALL).returncode == 1
    assert not Path("dreams").exists()


def test_dreams_beside_their_videos_are_not_dreamed_again(clips: Path, capsys: Capture) -> None:
    (clips / "bad.mp4").unlink()
    (clips / "empty.mpg").unlink()
    for arguments in (["clips"], ["clips"], [*sorted(clips.glob("*.m*")), *clips.glob("*.M*")]):
        here(capsys, "render", *arguments, "-o", "clips", *SMALL, "--suffix", "-dream")
    assert not list(clips.glob("*-dream-dream*"))
    assert {"a-dream.mp4", "b-dream.MOV"} <= set(names(clips))
    fails(here(capsys, "render", "clips/a.mp4", "clips/a-dream.mp4", "-o", "clips", "--suffix", "-dream", "-y"), 2,
          "clips/a-dream.mp4 is the input itself")


@pytest.mark.parametrize(("arguments", "parts"), [
    (["clips/a.mp4", "clips/deeper/c.mp4", "clips/deeper/A.mp4", "-o", "dreams"], ["would both become dreams/"]),
    (["clips/a.mp4", "clips/b.MOV", "-o", "dream.mp4"], ["-o dream.mp4", "a.mp4 is no picture", "-o dreams/"]),
    (["clips", "-o", "clips"], ["is the input itself", "--suffix"]),
    (["clips", "-o", "clips", "-y"], ["is the input itself", "--suffix"]),
    (["clips/a.mp4", "linked", "-o", "dreams", "-y"], ["dreams/a.mp4 is the input itself"]),
    (["clips", "-o", "no/dreams"], ["no such folder: no"]),
    (["clips/deeper/nothing", "-o", "dreams/"], ["holds no video"]),
    (["clips/*.webm", "-o", "dreams/"], ["no file matches clips/*.webm"]),
    (["clips", "-o", "dreams", "--container", "mk"], ["container", "mkv"]),
    (["clips", "-o", "dreams", "--suffix", "../x"], ["--suffix"]),
    (["clips/a.mp4", "-o", "a.mp4", "--suffix", "x"], ["--suffix", "-o a.mp4 is a file"]),
    (["clips", "-o", "dreams", "--record-settings", "s.jsonl"], ["--record-settings is for one file"]),
    (["lavfi:testsrc=d=0.1", "clips/a.mp4", "-o", "dreams"], ["lavfi:testsrc=d=0.1 has no name"]),
    (["clips", "-o", "dream.mp4"], ["is a folder without pictures", "-o dreams/"]),
    (["clips/*.mp4", "-o", "dream.mp4"], ["which is no picture"]),
    (["clips/a.mp4", "-o", "dream.mp4", "--exec", "no-such-program -h"], ["there is no program no-such-program"]),
    (["clips/a.mp4", "-o", "dream.mp4", "--exec", "'"], ["--exec '"]),
    (["clips/a.mp4", "-o", "dream.mp4", "--json", "--progress", "pipe:1"], ["pipe:2"]),
])
def test_a_mistake_is_refused_before_anything_starts(arguments: list[str], parts: list[str], clips: Path,
                                                     tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(clips / "a.mp4", clips / "deeper" / "A.mp4")
    (clips / "deeper" / "nothing").mkdir()
    if "linked" in arguments:
        Path("dreams").mkdir()
        os.link(clips / "b.MOV", "dreams/a.mp4")
        Path("linked").symlink_to(clips / "b.MOV")
    before = sorted(map(str, tmp_path.rglob("*")))
    fails(here(capsys, "render", *arguments), 2, *parts)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_outputs_keep_names_and_containers(clips: Path) -> None:
    def outputs(*inputs: str, **options: Any) -> list[str]:
        return [Path(task.output).name for task in plan_batch(inputs, "dreams", **options)]

    assert outputs("clips") == ["a.mp4", "b.MOV", "bad.mp4", "empty.mp4"]
    assert outputs("clips", suffix="-dream", container=".MKV")[:2] == ["a-dream.mkv", "b-dream.mkv"]
    assert outputs("clips/*.m*", "clips/a.mp4", "clips/deeper") == ["a.mp4", "bad.mp4", "empty.mp4", "show.partial.mp4",
                                                                    "c.mp4"]
    Path("clips/[x].mp4").touch()
    assert plan_batch(["clips/[x].mp4"], "d") == [Task("clips/[x].mp4", "d/[x].mp4")]


def test_an_output_that_ends_early_is_not_taken_for_whole(source_clip: Path, tmp_path: Path) -> None:
    assert is_whole(str(source_clip))
    for name in ("cut.mp4", "cut.mkv"):
        cut = make(tmp_path / name, Clip(120, container_options={"movflags": "+faststart"} if "mp4" in name else {}))
        assert is_whole(cut)
        assert not is_whole(truncated(cut, 0.6))
    (tmp_path / "text.mp4").write_text("no video")
    assert not is_whole(str(tmp_path / "text.mp4"))


@pytest.mark.parametrize(("files", "order"), [
    (["p8.png", "p9.png", "p10.png"], [0, 1, 2]), (["img001.png", "img002.png"], [0, 1]),
    (["b.png", "a.png", "c [1].png"], [1, 0, 2]), (["5.png", "07.png"], [0, 1]),
])
def test_a_folder_of_pictures_is_a_sequence(files: list[str], order: list[int], tmp_path: Path,
                                             capsys: Capture) -> None:
    folder = tmp_path / "p [x]"
    folder.mkdir()
    (folder / "notes.txt").touch()
    (folder / ".hidden.png").touch()
    for number, name in enumerate(files):
        write_image(str(folder / name), marked(number, (96, 72)))
    output = tmp_path / "dream.mkv"
    result = here(capsys, "render", folder, "-o", output, "--strength", "0", "--crf", "1", *SMALL)
    assert result.returncode == 0, result.stderr
    with open_source(str(output)) as source:
        assert [number_of(frame.image) for frame in source] == order
    assert names(tmp_path) == ["dream.mkv", "p [x]"]


def blocks(text: str) -> list[dict[str, str]]:
    """The blocks of ``--progress``."""
    found: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        key, _, value = line.partition("=")
        found[-1][key] = value
        if key == "progress":
            found.append({})
    assert found.pop() == {}
    return found


@pytest.mark.parametrize("target", ["pipe:1", "pipe:2", "progress.txt"])
def test_progress_is_written_as_ffmpeg_does(target: str, source_clip: Path, tmp_path: Path, capsys: Capture,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("streamdream.cli.progress_blocks.INTERVAL_SECONDS", 0)
    result = here(capsys, "render", source_clip, "-o", "a.mp4", *SMALL, "--progress", target)
    assert result.returncode == 0
    text = {"pipe:1": result.stdout, "pipe:2": "\n".join(line for line in result.stderr.splitlines() if "=" in line)
            }.get(target) or Path(target).read_text()
    found = blocks(text)
    assert [int(block["frame"]) for block in found] == [1, 2, 3, 4, 4]
    assert [block["progress"] for block in found] == ["continue"] * 4 + ["end"]
    assert {"input", "fps", "out_time_us", "out_time", "speed"} < set(found[0])
    assert found[2]["out_time"] == "00:00:00.100000" and found[2]["out_time_us"] == "100000"
    assert float(found[-1]["fps"]) > 0 and found[-1]["speed"].endswith("x")


def test_progress_that_nobody_reads_does_not_end_the_render(source_clip: Path, tmp_path: Path, capsys: Capture,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("streamdream.cli.progress_blocks.INTERVAL_SECONDS", 0)
    result = here(capsys, "render", source_clip, "-o", "a.mp4", *SMALL, "--progress", "/dev/full")
    assert result.returncode == 0 and result.stderr.count("--progress /dev/full is not written any more") == 1
    with av.open("a.mp4") as file:
        assert len([*file.decode(video=0)]) == FRAMES


def test_exec_gets_the_exit_code_and_the_output(clips: Path, tmp_path: Path, capsys: Capture, reporter: str) -> None:
    result = here(capsys, "render", "clips/a.mp4", "-o", "dream.mp4", *SMALL, "--json", "--exec", reporter)
    assert result.returncode == 0 and ran(tmp_path) == ["two words", "0", "dream.mp4"]
    assert json.loads(result.stdout)["output"] == "dream.mp4"
    here(capsys, "render", "clips/bad.mp4", "-o", "new.mp4", "--exec", reporter)
    assert ran(tmp_path) == ["two words", "1", "new.mp4"]
    (tmp_path / "ran.json").unlink()
    fails(here(capsys, "render", "clips/a.mp4", "-o", "new.mp4", "--layers", "mixd3", "--exec", reporter), 2, "mixed3")
    assert not (tmp_path / "ran.json").exists()


def test_a_failing_exec_is_a_warning(clips: Path, capsys: Capture) -> None:
    result = here(capsys, "render", "clips/a.mp4", "-o", "dream.mp4", *SMALL, "--exec", "false")
    assert result.returncode == 0 and "warning: --exec false ended with exit code 1" in result.stderr


def test_no_setting_can_run_a_command() -> None:
    """What is a setting can also come from a preset, a recipe, the web page or OSC."""
    assert "exec" not in settings.all_fields()
