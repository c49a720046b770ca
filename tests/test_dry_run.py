"""``render --dry-run`` and ``--preview`` tell what a render would do, and leave no file but the sheet."""
from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clips import Clip, make
from support.commands import fails, here
from support.sink_outputs import names

from streamdream import settings
from streamdream.errors import StreamdreamError
from streamdream.media import images
from streamdream.render.disk_space import check_space
from streamdream.render.file_render import PlanOptions, render_file
from streamdream.render.job import RenderJob, open_job_source
from streamdream.render.work_folder import WorkFolder

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
QUICK = {"field_height": "72", "layers": "conv2d_3", "warmup_steps": "1", "backend": "eager", "precision": "fp32",
         "threads": "1", "chunk_frames": "8"}
FLAGS = [text for name, value in QUICK.items() for text in ("--" + name.replace("_", "-"), value)]
FRAMES = 24
Capture = pytest.CaptureFixture[str]
KEYS = {
    "dry_run", "input", "output", "streams", "frames", "frames_exact", "size", "field", "model", "layers", "backend",
    "precision", "threads", "device", "reason", "would_build", "seconds", "start_seconds", "frame_seconds",
    "sampled_frames", "sampled_places", "output_bytes", "copied_bytes", "disk_bytes", "disks", "fits", "peak_rss_mb",
    "chunks", "chunk_frames", "work_folder", "resumed_frames", "warnings", "decoder", "decoder_reason",
}


@pytest.fixture(scope="module")
def film(folder: Path) -> str:
    """One second with sound and subtitles, 96x72."""
    return make(folder / "film.mkv", Clip(FRAMES, size=(96, 72), audio="aac", subtitles=((100, 500, "hello"),)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        return place

    yield mount
    subprocess.run(["umount", "-l", place], capture_output=True)


def dry_run(capsys: Capture, *arguments: object) -> dict[str, Any]:
    result = here(capsys, "render", *arguments, "--dry-run", "--json", *FLAGS)
    assert result.returncode == 0, result.stderr
    forecast = json.loads(result.stdout)
    assert isinstance(forecast, dict)
    return forecast


def actions(forecast: dict[str, Any]) -> list[tuple[str, str]]:
    return [(stream["description"].split()[0], stream["action"]) for stream in forecast["streams"]]


@pytest.mark.parametrize(("suffix", "encoder", "kept"), [
    (".mkv", "libx264", ["kept", "kept"]),
    (".mp4", "libx264", ["kept", "encoded"]),
    (".webm", "libvpx-vp9", ["encoded", "encoded"]),
    (".gif", "gif", ["left out", "left out"]),
])
def test_it_tells_what_becomes_of_each_stream(film: str, tmp_path: Path, capsys: Capture, suffix: str, encoder: str,
                                              kept: list[str]) -> None:
    forecast = dry_run(capsys, film, "-o", tmp_path / f"dream{suffix}")
    assert actions(forecast) == list(zip(["video", "audio", "subtitle"], ["encoded", *kept], strict=True))
    video, *others = forecast["streams"]
    assert video["reason"] == f"the picture is dreamed and encoded as {encoder}"
    for stream in others:
        assert "cannot hold it" in stream["reason"] or stream["action"] != "left out"
    assert (forecast["copied_bytes"] > 0) == ("kept" in kept)


def test_it_leaves_no_file_and_has_all_keys(film: str, tmp_path: Path, capsys: Capture) -> None:
    forecast = dry_run(capsys, film, "-o", tmp_path / "dream.mp4")
    assert set(forecast) == KEYS
    assert names(tmp_path) == []
    assert (forecast["frames"], forecast["frames_exact"], forecast["chunks"]) == (FRAMES, True, 3)
    assert forecast["seconds"] > forecast["frame_seconds"] > 0
    assert forecast["disk_bytes"] > forecast["output_bytes"] > forecast["copied_bytes"]
    assert (forecast["size"], forecast["backend"], forecast["precision"], forecast["threads"]) == (
        "96x72", "eager", "fp32", 1)


def test_the_size_foretold_is_that_of_the_render(film: str, tmp_path: Path, capsys: Capture) -> None:
    forecast = dry_run(capsys, film, "-o", tmp_path / "dream.mkv")
    assert here(capsys, "render", film, "-o", tmp_path / "dream.mkv", *FLAGS).returncode == 0
    assert (tmp_path / "dream.mkv").stat().st_size == pytest.approx(forecast["output_bytes"], rel=0.25)


def test_people_read_the_same_in_lines(film: str, tmp_path: Path, capsys: Capture) -> None:
    result = here(capsys, "render", film, "-o", tmp_path / "dream.mp4", "--dry-run", *FLAGS)
    assert result.returncode == 0, result.stderr
    for part in ("audio aac: kept", "subtitle subrip: converted to mov_text", f"{FRAMES} of 96x72",
                 "eager fp32, 1 thread", "are free", "3 chunks of 8 frames", "nothing was written"):
        assert part in result.stdout


@pytest.mark.parametrize("output", ["null", "%03d.png"])
def test_outputs_without_a_container_are_foretold(film: str, tmp_path: Path, capsys: Capture, output: str) -> None:
    forecast = dry_run(capsys, film, "-o", output if output == "null" else tmp_path / output)
    assert actions(forecast) == [("video", "encoded"), ("audio", "left out"), ("subtitle", "left out")]
    assert (forecast["output_bytes"] > 0) == (output != "null")
    assert names(tmp_path) == []


def test_frames_that_cannot_be_counted_are_said_to_be_unknown(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.render.dry_run.SAMPLE_SECONDS", 0.2)
    forecast = dry_run(capsys, "lavfi:testsrc2=size=96x72:rate=25", "-o", "null")
    assert (forecast["frames"], forecast["frames_exact"], forecast["seconds"]) == (0, False, None)
    assert forecast["frame_seconds"] > 0


class _StopsAt:
    """An observer that ends a render after so many frames."""

    def __init__(self, count: int) -> None:
        self._count = count

    def scanned(self, frames: int, total_frames: int) -> None: ...

    def began(self, total_frames: int, done_frames: int, folder: WorkFolder | None, rate: float) -> None: ...

    def frame(self, done_frames: int) -> None:
        if done_frames >= self._count:
            raise StreamdreamError("stopped")


def test_it_tells_how_much_of_an_interrupted_render_is_there(film: str, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "dream.mp4"
    job = RenderJob(film, str(output), settings.resolve(QUICK, {}))
    with pytest.raises(StreamdreamError, match="stopped"):
        render_file(job, PlanOptions(), _StopsAt(20))
    before = {path: path.read_bytes() for path in (tmp_path / ".dream.mp4.render").iterdir()}
    forecast = dry_run(capsys, film, "-o", output)
    assert 0 < forecast["resumed_frames"] < FRAMES and forecast["resumed_frames"] % 8 == 0
    assert {path: path.read_bytes() for path in (tmp_path / ".dream.mp4.render").iterdir()} == before
    assert dry_run(capsys, film, "-o", output, "--restart")["resumed_frames"] == 0
    fails(here(capsys, "render", film, "-o", output, "--dry-run", *FLAGS, "--strength", "2"), 2, "strength was")


@pytest.mark.parametrize(("arguments", "message"), [
    (["-o", "old.mp4", "--dry-run"], "exists; -y overwrites it"),
    (["-o", "new.mp4", "--dry-run", "-c:v", "libx265000"], "libx265000"),
    (["-o", "new.webm", "--dry-run", "-c:v", "libx264"], ".webm cannot hold libx264"),
    (["-o", "new.mp4", "--dry-run", "--preview", "sheet.jpg"], "not allowed with"),
    (["--dry-run"], "the output is missing"),
    (["--preview", "old.mp4"], "must end in .png"),
    (["--preview", "old.jpg"], "exists; -y overwrites it"),
    (["-o", "sheet.jpg", "--preview", "sheet.jpg"], "are the same file"),
    (["--preview", "sheet.jpg", "--layers", "nothing"], "nothing"),
])
def test_mistakes_are_one_line(film: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture,
                               arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("old.mp4", "old.jpg"):
        Path(name).write_bytes(b"mine")
    fails(here(capsys, "render", film, *arguments), 2, message)
    assert names(tmp_path) == ["old.jpg", "old.mp4"] and Path("old.jpg").read_bytes() == b"mine"


def test_a_preview_is_a_sheet_of_three_moments(film: str, tmp_path: Path, capsys: Capture,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.render.preview.MAX_WARMUP_STEPS", 6)
    sheet = tmp_path / "sheet.png"
    result = here(capsys, "render", film, "--preview", sheet, "--json", *FLAGS)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["moments"] == pytest.approx([2 / 30, 11 / 30, 20 / 30], abs=0.01)
    assert names(tmp_path) == ["sheet.png"]
    picture = images.read_image(str(sheet))
    cell_height, cell_width = picture.shape[0] // 2, picture.shape[1] // 3
    assert 72 < cell_height < 110 and 96 < cell_width < 110
    before, after = picture[6:78, 6:102], picture[6 + 72 + 17:, 6:102][:72]
    assert (before != after).mean() > 0.2  # it is dreamed


@pytest.mark.soak
def test_a_preview_shows_the_settings_of_each_moment(film: str, tmp_path: Path, capsys: Capture) -> None:
    """From 0.5 s on nothing is added to the frames."""
    sheet = tmp_path / "sheet.png"
    playlist = "mixed0 strength=1@0.5; mixed0 strength=0@9"
    result = here(capsys, "render", film, "--preview", sheet, *FLAGS, "--playlist", playlist, "--fade", "0")
    assert result.returncode == 0, result.stderr
    picture = images.read_image(str(sheet)).astype(int)
    changes = [abs(picture[6:78, left:left + 96] - picture[95:167, left:left + 96]).mean() for left in (6, 108, 210)]
    assert min(changes[:2]) > 1 and changes[2] == 0


def test_a_dry_run_warns_of_a_disk_that_is_too_small(small_disk: Callable[[str], Path], capsys: Capture,
                                                     film: str) -> None:
    place = small_disk("8k")
    result = here(capsys, "render", film, "-o", place / "dream.mkv", "--dry-run", "--json", *FLAGS)
    assert result.returncode == 0 and "warning: the disk is too small" in result.stderr
    forecast = json.loads(result.stdout)
    assert not forecast["fits"]
    assert forecast["disks"][0]["needed_bytes"] > forecast["disks"][0]["free_bytes"]
    assert names(place) == []


def test_a_render_on_a_full_disk_does_not_begin(small_disk: Callable[[str], Path], capsys: Capture, world: Path
                                                ) -> None:
    place = small_disk("200k")
    fails(here(capsys, "render", world, "-o", place / "a.mp4", *FLAGS), 1, "no space left", "are free")
    assert names(place) == []


@pytest.mark.parametrize(("seconds", "frames_done", "warns"), [("1", 0, False), ("30", 0, True), ("30", 900, False)])
def test_a_render_warns_of_a_disk_that_will_be_full(small_disk: Callable[[str], Path], world: Path, seconds: str,
                                                    caplog: pytest.LogCaptureFixture, frames_done: int, warns: bool
                                                    ) -> None:
    """Chunks that are there take no more room."""
    place = small_disk("3m")
    job = RenderJob(str(world), str(place / "a.mp4"), settings.resolve({"duration": seconds}, {}))
    with open_job_source(job) as source:
        check_space(job, source, place / ".a.mp4.render", frames_done)
    assert ["free" in message for message in caplog.messages] == [True] * warns
