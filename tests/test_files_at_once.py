"""The files of a batch that share a cluster: here the chunks are rendered by threads of this process instead."""
from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from support.commands import here
from support.planned_renders import SMALL, frames_of, make_shots
from support.sink_outputs import names

from streamdream.cli import render as command
from streamdream.cli import signals
from streamdream.render import ray_connection
from streamdream.render.chunk_render import render_range
from streamdream.render.file_render import PlanOptions
from streamdream.render.work_folder import WorkFolder

FLAGS = ("-c:v", "ffv1", *(word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)))
FRAMES = 24
Capture = pytest.CaptureFixture[str]


@pytest.fixture()
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four videos and a bad one; two files are rendered at once, and a third one is planned."""
    folder = tmp_path / "clips"
    folder.mkdir()
    make_shots(folder / "a.mkv", (FRAMES,))
    for name in "bcd":
        shutil.copy(folder / "a.mkv", folder / f"{name}.mkv")
    (folder / "bad.mkv").write_text("Dear diary, this is no video.\n" * 40)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_connection, "check_address", lambda address: None)
    monkeypatch.setattr(command, "_parallel_chunks", lambda args, run: 2)
    monkeypatch.setattr(command, "_options", lambda args: PlanOptions())
    return folder


@pytest.fixture()
def together(monkeypatch: pytest.MonkeyPatch) -> threading.Barrier:
    """The first three files each wait for the others before their first frame."""
    barrier, waited = threading.Barrier(3, timeout=20), threading.local()

    def wait_first(*arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and not hasattr(waited, "once"):
            waited.once = True
            barrier.wait()
        return render_range(*arguments)

    monkeypatch.setattr("streamdream.render.file_render.render_range", wait_first)
    return barrier


def test_files_are_rendered_at_the_same_time_past_a_bad_one(clips: Path, tmp_path: Path, capsys: Capture,
                                                            together: threading.Barrier) -> None:
    result = here(capsys, "render", "clips", "-o", "dreams/", *FLAGS, "--cluster", "auto", "--progress", "blocks")
    assert result.returncode == 1 and names(tmp_path / "dreams") == ["a.mkv", "b.mkv", "c.mkv", "d.mkv"]
    table = [line.split()[:3] for line in result.stdout.splitlines()[1:]]
    assert table == [[f"clips/{name}.mkv", f"dreams/{name}.mkv", "failed" if name == "bad" else "done"]
                     for name in ("a", "b", "bad", "c", "d")]
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "clips/bad.mkv is damaged, or not a video" in errors[0]
    assert "5 files → dreams/" in result.stderr and "2 of 5: clips/b.mkv → dreams/b.mkv" in result.stderr
    here(capsys, "render", "clips/a.mkv", "-o", "one.mkv", *FLAGS)
    assert all(frames_of(dream) == frames_of(tmp_path / "one.mkv") for dream in (tmp_path / "dreams").iterdir())
    ends = [block for block in (tmp_path / "blocks").read_text().split("input=") if "progress=end" in block]
    assert sorted(block.split()[:2] for block in ends) == [[f"clips/{name}.mkv", f"frame={FRAMES}"] for name in "abcd"]


def test_json_has_one_line_a_file(clips: Path, capsys: Capture) -> None:
    lines = [json.loads(line) for line in here(capsys, "render", "clips", "-o", "dreams", *FLAGS, "--cluster", "auto",
                                               "--json").stdout.splitlines()]
    assert {line["input"]: line.get("frames", "failed") for line in lines} == {
        "clips/a.mkv": FRAMES, "clips/b.mkv": FRAMES, "clips/c.mkv": FRAMES, "clips/d.mkv": FRAMES,
        "clips/bad.mkv": "failed"}


def test_ctrl_c_ends_all_files_and_keeps_their_chunks(clips: Path, tmp_path: Path, capsys: Capture,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    add_chunk, chunks = WorkFolder.add_chunk, []

    def add_and_interrupt(*arguments: Any) -> None:
        add_chunk(*arguments)
        chunks.append(1)
        if len(chunks) == 3:
            monkeypatch.setattr(signals, "_received", signal.SIGINT)

    monkeypatch.setattr(WorkFolder, "add_chunk", add_and_interrupt)
    result = here(capsys, "render", "clips", "-o", "dreams/", *FLAGS, "--cluster", "auto")
    assert result.returncode == 130
    assert "frames of unfinished files are kept; the same command resumes" in result.stderr
    monkeypatch.setattr(signals, "_received", None)
    monkeypatch.setattr(WorkFolder, "add_chunk", add_chunk)
    again = here(capsys, "render", "clips", "-o", "dreams/", *FLAGS, "--cluster", "auto")
    assert "frames are there" in again.stderr and names(tmp_path / "dreams") == ["a.mkv", "b.mkv", "c.mkv", "d.mkv"]
