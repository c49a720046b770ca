"""What appears under an output's name is not overwritten; what a killed process left is cleared."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.commands import ENVIRONMENT, here
from support.sink_outputs import copy, names, read
from support.waiting import until

from streamdream.automation.controls import Controls
from streamdream.automation.settings_track import SettingsRecorder
from streamdream.errors import SinkError, UsageError
from streamdream.media.images import write_image
from streamdream.media.sinks.image_sequence import ImageWriter
from streamdream.media.sinks.picture_format import PictureFormat
from streamdream.media.sinks.recording import Recording
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.video import open_source
from streamdream.settings import DreamSettings, RenderSettings
from streamdream.system import atomic_file
from streamdream.system.atomic_file import AtomicFile, write_file

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.mark.parametrize("name", ["a.mp4", "%02d.png"])
def test_a_file_that_appears_meanwhile_is_kept_beside_the_output(name: str, tmp_path: Path, clip: str) -> None:
    first = tmp_path / (name % 3 if "%" in name else name)
    with open_source(clip) as source, pytest.raises(SinkError, match="made by another program meanwhile") as caught, \
            open_sink(str(tmp_path / name), source, RenderSettings()) as sink:
        for frame in source:
            sink.write(frame.image, frame)
        first.write_bytes(b"precious")
    assert first.read_bytes() == b"precious"
    kept = Path(str(caught.value).rpartition(" is ")[2])
    assert kept.name == {"a.mp4": "a.1.mp4", "%02d.png": "%02d.1.png"}[name]
    assert len(read(kept)) == 20
    assert len(names(tmp_path)) == (2 if name == "a.mp4" else 21)


@pytest.mark.parametrize("name", ["a.mp4", "%02d.png"])
def test_with_y_a_file_that_appears_meanwhile_is_replaced(name: str, tmp_path: Path, clip: str) -> None:
    with open_source(clip) as source, open_sink(str(tmp_path / name), source, RenderSettings(), True) as sink:
        for frame in source:
            sink.write(frame.image, frame)
        (tmp_path / (name % 3 if "%" in name else name)).write_bytes(b"old")
    assert len(read(tmp_path / name)) == 20


def test_settings_and_pictures_get_another_name_when_theirs_appears(tmp_path: Path) -> None:
    controls = Controls(DreamSettings(), model="inception_v3")
    track = tmp_path / "show.jsonl"
    with pytest.raises(SinkError, match=r"show\.1\.jsonl"), SettingsRecorder(str(track)) as recorder:
        recorder.record(0.0, controls.request, False, 0)
        track.write_text("precious")
    with pytest.raises(ZeroDivisionError), SettingsRecorder(str(track)) as recorder:  # what ended the run is said
        recorder.record(0.0, controls.request, False, 0)
        raise ZeroDivisionError
    picture = tmp_path / "a.png"
    picture.write_text("precious")
    with pytest.raises(SinkError, match=r"a\.1\.png"):
        write_image(str(picture), np.zeros((4, 4, 3), np.uint8))
    assert track.read_text() == picture.read_text() == "precious"
    assert names(tmp_path) == ["a.1.png", "a.png", "show.1.jsonl", "show.2.jsonl", "show.jsonl"]


def test_without_hard_links_no_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object, **how: object) -> None:
        raise PermissionError("as FAT does")

    monkeypatch.setattr(os, "link", refuse)
    write_file(str(tmp_path / "a.png"), b"first")
    with pytest.raises(SinkError, match=r"a\.1\.png"):
        write_file(str(tmp_path / "a.png"), b"second")
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [b"second", b"first"]


def test_a_pipe_that_appears_is_not_replaced_even_with_y(tmp_path: Path) -> None:
    partial = AtomicFile(str(tmp_path / "a.mp4"), overwrite=True)
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(SinkError, match=r"a\.1\.mp4"):
        partial.commit()
    assert (tmp_path / "a.mp4").is_fifo() and names(tmp_path) == ["a.1.mp4", "a.mp4"]


def test_a_recording_whose_name_is_taken_meanwhile_keeps_its_partial_name(tmp_path: Path) -> None:
    recording = Recording(str(tmp_path / "show.mp4"))
    recording.file.write(b"pictures")
    (tmp_path / "show.mp4").write_bytes(b"precious")
    with pytest.raises(SinkError, match="made by another program meanwhile"):
        recording.commit()
    assert names(tmp_path) == ["show.mp4", "show.partial.mp4"]
    assert (tmp_path / "show.mp4").read_bytes() == b"precious"
    recording.discard()


def test_pictures_of_a_run_whose_name_is_taken_meanwhile_are_kept(tmp_path: Path) -> None:
    writer = ImageWriter(str(tmp_path / "%d.png"), PictureFormat("rgb24", lambda picture: picture))
    writer.write(np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "1.png").write_bytes(b"precious")
    writer.keep()  # as after a fault
    assert writer.kept.endswith(str(tmp_path / "%d.1.png"))
    writer.keep()
    assert names(tmp_path) == ["1.1.png", "1.png"] and (tmp_path / "1.png").read_bytes() == b"precious"


def test_a_very_long_name_is_shortened_for_its_number(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".png")
    write_file(str(path), b"first")
    with pytest.raises(SinkError, match=r"n\.1\.png"):
        write_file(str(path), b"second")
    assert len(names(tmp_path)) == 2


def test_two_outputs_whose_names_begin_alike_are_two_files(tmp_path: Path) -> None:
    """Fifty characters of a name are in the hidden one."""
    paths = [str(tmp_path / ("n" * 60 + end)) for end in ("a.mp4", "b.mp4")]
    partials = [AtomicFile(path) for path in paths]
    for partial, path in zip(partials, paths, strict=True):
        partial.path.write_text(path)
    for partial in partials:
        partial.commit()
    assert [Path(path).read_text() for path in paths] == paths


# --- what dead processes left -----------------------------------------------------------------------------------------


def command(output: Path, *arguments: object) -> list[str]:
    return ["render", "lavfi:testsrc=size=96x64:duration=0.2", "-o", str(output), "--field-height", "64", "--layers",
            "mixed0", *map(str, arguments)]


def render(output: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "streamdream", *command(output, *arguments)],
                            stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def test_a_hangup_leaves_no_file_and_the_next_run_removes_those_of_a_kill(tmp_path: Path,
                                                                          capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.mp4"
    process = render(output)
    until(lambda: names(tmp_path), 60)
    process.send_signal(signal.SIGHUP)
    assert "terminated; nothing was left behind" in process.communicate(timeout=60)[1]
    assert process.returncode == 143 and names(tmp_path) == []

    process = render(output)
    until(lambda: names(tmp_path), 60)
    process.kill()
    process.communicate()
    assert ".out.mp4.render" in names(tmp_path) and "out.mp4" not in names(tmp_path)
    assert here(capsys, *command(output)).returncode == 0
    assert names(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize(("begun_with", "said"), [([], "ended\n"), (["nohup"], "")])
def test_a_hangup_ends_a_live_run_except_under_nohup(begun_with: list[str], said: str) -> None:
    script = (
        "import os, signal\nfrom streamdream.cli import signals\nsignals.install()\n"
        "with signals.stop_on_signal(lambda: print('ended')):\n os.kill(os.getpid(), signal.SIGHUP)\nprint('whole')"
    )
    result = subprocess.run([*begun_with, sys.executable, "-c", script], capture_output=True, text=True,
                            env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=False)
    assert (result.returncode, result.stdout) == (0, f"{said}whole\n"), result.stderr


def test_only_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = atomic_file._host()
    mine = AtomicFile(str(tmp_path / "a.mp4"))
    kept = [f".a.1-{host}.00000000.partial.mp4",  # of a process that runs
            f".a.{dead.pid}-00000000.00000000.partial.mp4",  # of another machine
            f".a.{dead.pid}-{host}.00000000.partial.mkv", f".ab.{dead.pid}-{host}.00000000.partial.mp4",
            f".a.{dead.pid}-{host}.partial.mp4", f"a.{dead.pid}-{host}.00000000.partial.mp4", ".a.mp4.cells",
            mine.path.name]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / f".a.{dead.pid}-{host}.00000000.partial.mp4").touch()
    (tmp_path / f".a.{os.getpid()}-{host}.00000000.partial.mp4").touch()  # of one that had this number before
    other = AtomicFile(str(tmp_path / "a.mp4"))
    assert names(tmp_path) == sorted([*kept, other.path.name])
    mine.discard()
    other.discard()

    (folder := tmp_path / f".%d.{dead.pid}-{host}.00000000.partial").mkdir()
    (folder / "1.png").touch()
    AtomicFile(str(tmp_path / "%d.png"), folder=True).discard()
    assert not folder.exists()


def test_the_second_of_two_renders_at_once_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    processes = [render(output), render(output)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], errors
    refused = next(error for process, error in zip(processes, errors, strict=True) if process.returncode)
    assert "is being rendered by another process" in refused or "exists; -y overwrites it" in refused
    assert names(tmp_path) == ["out.mp4"] and len(read(output)) == 5


@pytest.mark.soak
def test_two_renders_with_folders_of_their_own_keep_both(tmp_path: Path) -> None:
    """Here no lock is shared."""
    output = tmp_path / "out.mp4"
    for place in (folders := [tmp_path / "one", tmp_path / "two"]):
        place.mkdir()
    processes = [render(output, "--work-folder", place) for place in folders]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    if sorted(process.returncode for process in processes) == [0, 2]:
        assert "exists; -y overwrites it" in "".join(errors)  # one had ended before the other began
        assert names(tmp_path) == ["one", "out.mp4", "two"]
    else:
        assert sorted(process.returncode for process in processes) == [0, 1], errors
        assert f"what was made here is {tmp_path / 'out.1.mp4'}" in "".join(errors)
        assert names(tmp_path) == ["one", "out.1.mp4", "out.mp4", "two"]
        assert len(read(tmp_path / "out.1.mp4")) == 5
    assert len(read(output)) == 5
    assert [names(place) for place in folders] == [[], []]


def test_segments_of_an_older_run_are_overwritten_only_when_asked(tmp_path: Path, clip: str) -> None:
    (tmp_path / "show3.ts").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists; -y"):
        copy(clip, tmp_path / "show.m3u8")
    assert names(tmp_path) == ["show3.ts"]
