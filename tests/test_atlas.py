"""The layer atlas through the command: sheets, folders, and going on after an interruption."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import ENVIRONMENT, fails, here
from support.waiting import until

from streamdream import models
from streamdream.media.images import read_image, write_image
from streamdream.render.atlas import draw_sheet, plan
from streamdream.settings import AtlasSettings, DreamSettings

QUICK = ("--steps", 1, "--octaves", 1, "--field-height", 128)
THREE = "mixed0,activation_5,mixed3"


@pytest.fixture()
def photo(lion: NDArray[np.uint8], tmp_path: Path) -> Path:
    write_image(str(tmp_path / "photo.png"), np.ascontiguousarray(lion[:200]))
    return tmp_path / "photo.png"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_sheet_of_chosen_layers(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "atlas", photo, "-o", tmp_path / "sheet.png", "--layers", THREE, "--cell", 64, *QUICK)
    assert result.returncode == 0, result.stderr
    assert "3 layers to dream, about " in result.stderr
    assert names(tmp_path) == ["photo.png", "sheet.png"]
    sheet = read_image(str(tmp_path / "sheet.png"))
    assert sheet.shape == (6 + 2 * (50 + 17), 6 + 2 * (64 + 6), 3)
    cells = [sheet[row:row + 50, left:left + 64].astype(int) for row in (6, 73) for left in (6, 76)]
    assert min(np.abs(a - b).mean() for i, a in enumerate(cells) for b in cells[:i]) > 1  # each is another dream


def test_a_folder_of_single_files_is_resumed(photo: Path, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    folder, command = tmp_path / "all", ("atlas", photo, "-o", tmp_path / "all", "--layers", THREE, *QUICK)
    assert here(capsys, *command).returncode == 0
    files = ["001_mixed0.png", "002_activation_5.png", "003_mixed3.png"]
    assert names(folder) == [*files, "atlas.json"]
    assert read_image(str(folder / files[0])).shape == (200, 256, 3)
    (folder / files[1]).unlink()
    before = {name: (folder / name).stat().st_mtime_ns for name in (files[0], files[2])}
    again = here(capsys, *command)
    assert "1 layers to dream" in again.stderr and "2 are there already" in again.stderr
    assert names(folder) == [*files, "atlas.json"]
    assert before == {name: (folder / name).stat().st_mtime_ns for name in before}


def test_files_of_other_settings_are_replaced_only_when_asked(photo: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    command = ("atlas", photo, "-o", tmp_path / "all", "--layers", "mixed0", *QUICK)
    assert here(capsys, *command).returncode == 0
    before = (tmp_path / "all" / "001_mixed0.png").read_bytes()
    fails(here(capsys, *command, "--color", 0.5), 2, "of another picture or other settings; -y replaces it")
    assert (tmp_path / "all" / "001_mixed0.png").read_bytes() == before
    (tmp_path / "all" / "notes.txt").write_text("mine")
    assert here(capsys, *command, "--color", 0.5, "-y").returncode == 0
    assert (tmp_path / "all" / "001_mixed0.png").read_bytes() != before
    assert (tmp_path / "all" / "notes.txt").read_text() == "mine"


def test_a_folder_of_other_files_is_refused(photo: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    fails(here(capsys, "atlas", photo, "-o", tmp_path / "mine", "--layers", "mixed0", "-y"), 2, "something else")
    (tmp_path / "mine" / "atlas.json").write_text("[1]")  # somebody's own file of that name
    fails(here(capsys, "atlas", photo, "-o", tmp_path / "mine", "--layers", "mixed0", "-y"), 2, "something else")
    assert names(tmp_path / "mine") == ["atlas.json", "thesis.txt"]


def test_an_interrupted_sheet_is_resumed(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = list(models.get("inception_v3").taps())[:30]
    command = [sys.executable, "-m", "streamdream", "atlas", str(photo), "-o", str(tmp_path / "sheet.png"),
               "--octaves", "1", "--steps", "2", "--field-height", "96", "--layers", ",".join(layers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    cells = tmp_path / ".sheet.png.cells"
    until(lambda: process.poll() is not None or (cells / "003_conv2d_2.png").exists(), 60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "of 30 layers are kept; the same command continues from there" in errors
    assert not (tmp_path / "sheet.png").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.png")}
    assert len(kept) >= 3
    resumed = here(capsys, *command[3:])
    assert resumed.returncode == 0 and f"{len(kept)} are there already" in resumed.stderr, resumed.stderr
    assert f"{30 - len(kept)} layers to dream" in resumed.stderr and (tmp_path / "sheet.png").exists()


def test_atlas_reports_its_layers_as_json(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "atlas", photo, "-o", tmp_path / "sheet.jpg", "--layers", "mixed0", "--json", *QUICK)
    assert json.loads(result.stdout)["layers"] == ["mixed0"]
    assert result.stderr == ""


@pytest.mark.parametrize(("arguments", "code", "part"), [
    (("--model", "bvlc_googlenet"), 1, "streamdream fetch bvlc_googlenet"), (("--layers", "mixd0"), 2, "mean mixed0"),
    (("--cell", "3"), 2, "--cell is 3"), (("--field-height", "8", "--layers", "mixed3"), 2, "too small for mixed3"),
])
def test_atlas_refuses_invalid_arguments(arguments: tuple[str, ...], code: int, part: str, photo: Path,
                                            tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "atlas", photo, "-o", tmp_path / "sheet.png", *arguments,
                         STREAMDREAM_CACHE=str(tmp_path / "cache"))
    assert result.returncode == code
    assert part in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "sheet.png").exists()


def test_layers_that_need_a_larger_picture_are_left_out_or_get_fewer_octaves(tmp_path: Path) -> None:
    model = models.get("bvlc_googlenet")
    cells = plan(model, list(model.taps()), DreamSettings(octaves=3), (160, 200), tmp_path)
    octaves = {cell.tap: cell.settings.octaves for cell in cells}
    assert "prob" not in octaves and octaves["conv1/7x7_s2"] == 3
    assert {cell.settings.layers for cell in cells} == set(octaves)
    assert cells[0].path.name == "001_conv1_7x7_s2.png"


def test_long_names_fit_their_cell(lion: NDArray[np.uint8]) -> None:
    sheet = draw_sheet(lion, [], AtlasSettings(cell=32))
    assert sheet.shape == (6 + 32 + 17, 6 + 32 + 6, 3)
