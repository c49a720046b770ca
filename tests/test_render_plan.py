"""The hidden folder of an unfinished render: what is damaged in it is made again, and what does not fit is refused."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.clips import Clip, make
from support.planned_renders import (
    Interruption,
    Watcher,
    assert_same,
    folder_of,
    job,
    moving,
    render,
)
from support.sink_outputs import names

from streamdream.errors import NameTaken, SourceError, UsageError
from streamdream.render import work_folder
from streamdream.render.file_render import PlanOptions, render_file
from streamdream.render.job import RenderJob
from streamdream.render.plan import STATE_CUT, Chunk, RenderPlan
from streamdream.render.work_folder import WorkFolder, read_plan

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
FRAMES, STOP = 26, 18
"""A render that is interrupted at ``STOP`` leaves two chunks of eight frames."""


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    return make(folder / "moving.mp4", Clip(FRAMES, size=(96, 72)), moving(FRAMES))


@pytest.fixture(scope="module")
def whole(source: str, folder: Path) -> str:
    """A render without an interruption."""
    output = str(folder / "whole.mkv")
    render(job(source, output, codec="ffv1"))
    return output


@pytest.fixture(scope="module")
def interrupted(source: str, folder: Path) -> Path:
    """The folder of a render that was interrupted."""
    the_job = job(source, folder / "half.mkv", codec="ffv1")
    assert render(the_job, STOP) is None
    assert {"plan.json", "chunk-00000.nut", "chunk-00001.nut"} <= set(names(folder_of(the_job)))
    return folder_of(the_job)


@pytest.fixture
def half(source: str, interrupted: Path, tmp_path: Path) -> RenderJob:
    """The job of that render; a folder belongs to any output of the same kind."""
    the_job = job(source, tmp_path / "a.mkv", codec="ffv1")
    shutil.copytree(interrupted, folder_of(the_job))
    return the_job


def resumed_frames(the_job: RenderJob) -> int:
    report = render(the_job)
    assert report is not None and report.frames == FRAMES
    return report.resumed_frames


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# --- damage -----------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[Path], object]] = {"cut": cut, "flip": flip, "remove": Path.unlink,
                                              "empty": lambda path: path.write_bytes(b"")}


KEPT = {"chunk-00000.nut": 8, "chunk-00001.nut": 8, "chunk-00000.safetensors": 8, "chunk-00001.safetensors": 8,
        "plan.json": 0}
"""Frames that are left when one of these files is damaged."""
QUICK = {("chunk-00000.nut", "flip"), ("chunk-00001.nut", "remove"), ("chunk-00000.safetensors", "cut"),
         ("chunk-00001.safetensors", "flip"), ("plan.json", "cut")}


@pytest.mark.parametrize(("name", "damage"), [
    pytest.param(name, damage, marks=[] if (name, damage) in QUICK else pytest.mark.soak)
    for name in KEPT for damage in DAMAGES])
def test_what_is_damaged_is_made_again(name: str, damage: str, half: RenderJob, whole: str) -> None:
    DAMAGES[damage](folder_of(half) / name)
    assert resumed_frames(half) == KEPT[name]
    assert_same(whole, half.output)
    assert names(Path(half.output).parent) == ["a.mkv"]


def test_a_chunk_damaged_before_the_join_is_made_again(half: RenderJob, whole: str) -> None:
    """Also in the middle, when all others are there."""
    with pytest.raises(Interruption):
        render_file(half, PlanOptions(), Watcher(FRAMES))
    flip(folder_of(half) / "chunk-00001.nut")
    assert resumed_frames(half) in (16, 18)  # the last chunk may not have been closed
    assert_same(whole, half.output)


def test_an_edited_plan_is_not_believed(half: RenderJob, whole: str, caplog: pytest.LogCaptureFixture) -> None:
    plan = folder_of(half) / "plan.json"
    plan.write_text(plan.read_text().replace('"first_frame": 16', '"first_frame": 15'))
    assert resumed_frames(half) == 0
    assert "cannot be resumed: it was changed; it starts over" in caplog.text
    assert_same(whole, half.output)


@pytest.mark.parametrize("text", ["", "[]", '{"digest": 1}'])
def test_a_plan_that_is_no_plan_starts_over(text: str, half: RenderJob, whole: str) -> None:
    (folder_of(half) / "plan.json").write_text(text)
    assert resumed_frames(half) == 0
    assert_same(whole, half.output)


def test_a_plan_of_another_version_starts_over(half: RenderJob, monkeypatch: pytest.MonkeyPatch,
                                               caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("streamdream.render.plan.FORMAT", "streamdream render plan 2")
    assert resumed_frames(half) == 0
    assert "another version of streamdream made it" in caplog.text


def test_pictures_of_a_sequence_that_are_damaged_are_made_again(source: str, tmp_path: Path) -> None:
    whole, half = (job(source, tmp_path / name) for name in ("w%03d.png", "f_%03d_x2.png"))
    render(whole)
    render(half, FRAMES - 1)  # pictures are written some frames later than they are dreamed
    chunk = folder_of(half) / "chunk-00001.pictures"
    (chunk / names(chunk)[3]).unlink()
    assert resumed_frames(half) in (8, 16)  # the third chunk may have been whole, too
    assert_same(whole.output, half.output)
    assert len(names(tmp_path)) == 2 * FRAMES


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "said"), [
    ({"steps": "2"}, "steps was 1 and is 2"), ({"layers": "conv2d_4"}, "layers was conv2d_3 and is conv2d_4"),
    ({"chunk_frames": "9"}, "chunk frames was 8 and is 9"), ({"threads": "2"}, "threads was 1 and is 2"),
    ({"precision": "bf16"}, "precision was fp32 and is bf16"), ({"start": "0.1"}, "start was 0.0 and is 0.1"),
    ({"codec": "libx264"}, "codec was ffv1 and is libx264"), ({"seed": "7"}, "seed was 0 and is 7"),
])
def test_other_settings_are_refused_by_name(flags: dict[str, str], said: str, half: RenderJob) -> None:
    other = job(half.input, half.output, **{"codec": "ffv1"} | flags)
    with pytest.raises(UsageError, match="half rendered with something else") as caught:
        render(other)
    assert said in str(caught.value) and "--restart starts over" in str(caught.value)
    assert resumed_frames(half) == 16  # it is still there


def test_another_input_is_refused_by_name(half: RenderJob, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "in.mp4"
    shutil.copy(half.input, copy)
    copied = replace(half, input=str(copy), output=str(tmp_path / "b.mkv"))
    render(copied, STOP)
    flip(copy)
    with pytest.raises(UsageError, match=r"source digest was \w+ and is \w+; source modified was \d+ and is \d+"):
        render(copied)
    with pytest.raises(UsageError, match="source bytes was"):
        render(replace(half, input=make(folder / "other.mp4", Clip(40, size=(96, 72)))))


def test_another_file_of_settings_is_refused_by_name(source: str, tmp_path: Path) -> None:
    events = tmp_path / "track.jsonl"
    events.write_text('{"format": "streamdream settings 1", "set": {"strength": 1.0}}\n')
    half = job(source, tmp_path / "a.mkv", settings_track=str(events))
    render(half, STOP)
    events.write_text('{"format": "streamdream settings 1", "set": {"strength": 1.5}}\n')
    with pytest.raises(UsageError, match="settings track digest was"):
        render(half)
    with pytest.raises(UsageError, match="settings track was set and is not set"):
        render(replace(half, settings_track=""))


def test_another_container_is_another_render(half: RenderJob, tmp_path: Path) -> None:
    other = replace(half, output=str(tmp_path / "a.avi"))
    assert resumed_frames(other) == 0
    assert names(tmp_path) == [".a.mkv.render", "a.avi"]


def test_an_input_that_decodes_into_other_pictures_is_an_error(half: RenderJob,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.media.sources.av_source.picture_checksum", lambda image: 1)
    with pytest.raises(SourceError, match=r"decodes into other pictures than before; 16 frames of .* are kept"):
        render(half)


def test_restart_starts_over(half: RenderJob, whole: str) -> None:
    other = job(half.input, half.output, codec="ffv1", steps="2")
    report = render(other, restart=True)
    assert report is not None and report.resumed_frames == 0
    with pytest.raises(AssertionError):
        assert_same(whole, half.output)
    assert names(Path(half.output).parent) == ["a.mkv"]


def test_restart_where_nothing_is_there_is_an_ordinary_render(source: str, whole: str, tmp_path: Path) -> None:
    the_job = job(source, tmp_path / "a.mkv", codec="ffv1")
    render(the_job, restart=True)
    assert_same(whole, the_job.output)


# --- the output -------------------------------------------------------------------------------------------------------


def test_an_output_that_appeared_meanwhile_stays_unless_y(half: RenderJob, whole: str) -> None:
    output = Path(half.output)
    output.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists; -y overwrites it"):
        render(half)
    assert output.read_bytes() == b"mine"
    assert resumed_frames(replace(half, overwrite=True)) == 16
    assert_same(whole, output)


def test_the_output_is_not_started_over_by_y(half: RenderJob) -> None:
    assert resumed_frames(replace(half, overwrite=True)) == 16


def test_an_old_output_stays_until_the_new_one_is_whole(source: str, tmp_path: Path, whole: str) -> None:
    output = tmp_path / "a.mkv"
    output.write_bytes(b"mine")
    the_job = job(source, output, overwrite=True, codec="ffv1")
    render(the_job, STOP)
    assert output.read_bytes() == b"mine"
    render(the_job)
    assert_same(whole, output)


def test_a_file_that_appears_while_it_is_rendered_stays(half: RenderJob, whole: str, tmp_path: Path) -> None:
    """Another process made the file between the check and the end."""
    class Appears(Watcher):
        def scanned(self, frames: int, total_frames: int) -> None: ...

        def began(self, total_frames: int, done_frames: int, folder: object, rate: float) -> None:
            Path(half.output).write_bytes(b"theirs")

    with pytest.raises(NameTaken, match=r"made by another program meanwhile .*/a\.1\.mkv$"):
        render_file(half, PlanOptions(), Appears())
    assert Path(half.output).read_bytes() == b"theirs"
    assert_same(whole, tmp_path / "a.1.mkv")
    assert names(tmp_path) == ["a.1.mkv", "a.mkv"]


def test_a_second_render_of_the_same_output_is_refused(half: RenderJob, whole: str) -> None:
    class Second(Watcher):
        def scanned(self, frames: int, total_frames: int) -> None: ...

        def began(self, total_frames: int, done_frames: int, folder: object, rate: float) -> None:
            with pytest.raises(UsageError, match="being rendered by another process"):
                render(half)
            with pytest.raises(UsageError, match="being rendered by another process"):
                render(job(half.input, half.output, codec="libx264"), restart=True)

    report = render_file(half, PlanOptions(), Second())
    assert report.resumed_frames == 16
    assert_same(whole, half.output)


# --- the end: joining, naming, removing -------------------------------------------------------------------------------


class Killed(BaseException):
    """Takes the place of SIGKILL where no clean-up stands in between; test_render_killed.py has the real one."""


@pytest.mark.parametrize("place", [
    "streamdream.media.sinks.video_output.VideoOutput.mux_last",  # while the chunks are joined
    "streamdream.render.work_folder.WorkFolder.save_result",  # when the output is whole, under a hidden name
    "streamdream.render.work_folder.WorkFolder.remove",  # when it has its name
])
def test_a_render_that_ends_while_it_finishes_goes_on(place: str, half: RenderJob, whole: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(place, end)
        render(half)
    assert resumed_frames(half) == FRAMES
    assert_same(whole, half.output)
    assert names(Path(half.output).parent) == ["a.mkv"]


def test_a_finished_render_is_not_rendered_again(half: RenderJob, whole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process ended while it removed the folder."""
    with monkeypatch.context() as patched, pytest.raises(Killed):
        def remove_some(folder: WorkFolder) -> None:
            (folder.path / "chunk-00001.nut").unlink()
            raise Killed

        patched.setattr(WorkFolder, "remove", remove_some)
        render(half)
    watcher = Watcher()
    assert render_file(half, PlanOptions(), watcher).frames == FRAMES
    assert watcher.frames == []
    assert_same(whole, half.output)
    assert names(Path(half.output).parent) == ["a.mkv"]


# --- where the folder is ----------------------------------------------------------------------------------------------


def test_a_work_folder_elsewhere_holds_the_chunks(source: str, whole: str, tmp_path: Path) -> None:
    """Those of outputs of one name in two folders do not meet."""
    (work := tmp_path / "work").mkdir()
    jobs = [job(source, tmp_path / place / "a.mkv", codec="ffv1") for place in ("one", "two")]
    for the_job in jobs:
        Path(the_job.output).parent.mkdir()
        assert render(the_job, STOP, work_folder=str(work)) is None
    assert len(names(work)) == 2
    for the_job in jobs:
        report = render(the_job, work_folder=str(work))
        assert report is not None and report.resumed_frames == 16
        assert_same(whole, the_job.output)
    assert names(work) == [] and names(tmp_path) == ["one", "two", "work"]


def test_a_work_folder_that_is_missing_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--work-folder .*/none: no such folder"):
        render(job(source, tmp_path / "a.mkv"), work_folder=str(tmp_path / "none"))


def test_very_long_names_have_folders_of_their_own(source: str, tmp_path: Path) -> None:
    jobs = [job(source, tmp_path / ("n" * 245 + end)) for end in ("1.mkv", "2.mkv")]
    for the_job in jobs:
        assert render(the_job, STOP) is None
    assert len(names(tmp_path)) == 2
    assert [resumed_frames(the_job) for the_job in jobs] == [16, 16]
    assert names(tmp_path) == [Path(the_job.output).name for the_job in jobs]


def test_a_large_plan_is_written_when_the_folder_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes too long to be written for each chunk."""
    monkeypatch.setattr(work_folder, "LARGE_PLAN_CHUNKS", 3)
    monkeypatch.setattr(work_folder, "MAX_SAVE_SHARE", 1e-6)
    chunks = tuple(Chunk(number, 8 * number, 8 * number, None, 0, STATE_CUT) for number in range(4))
    with WorkFolder(tmp_path / ".a.mkv.render", "a.mkv", ".nut") as folder:
        folder.save(RenderPlan({}, {}, (1, 25), 8, chunks, 32))
        for chunk in chunks[:3]:
            folder.add_chunk(replace(chunk, frames=8, sha256="whole"), None, [])
        on_disk = read_plan(folder.path)
        assert on_disk is not None and on_disk.frames_done == 0
    on_disk = read_plan(tmp_path / ".a.mkv.render")
    assert on_disk is not None and on_disk.frames_done == 24
    with WorkFolder(tmp_path / ".a.mkv.render", "a.mkv", ".nut") as folder:
        folder.save(on_disk)
        folder.add_chunk(replace(chunks[3], frames=8, sha256="whole"), None, [])
        on_disk = read_plan(folder.path)
        assert on_disk is not None and on_disk.complete  # before the chunks are joined
