"""The command line: its output, its errors, its signals, and the files that it leaves."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import ENVIRONMENT, fails, here, streamdream
from support.waiting import until

from streamdream import cli
from streamdream.media.images import read_image, write_image


@pytest.fixture()
def photo(tmp_path: Path, lion: NDArray[np.uint8]) -> Path:
    path = tmp_path / "photo.png"
    write_image(str(path), lion[40:200, 20:180])
    return path


def test_import_and_help_load_no_heavy_package() -> None:
    heavy = "{'torch', 'gradio', 'av', 'cv2', 'numpy', 'rich'}"
    for code in ("import streamdream, streamdream.cli", "import streamdream.cli as c; c.run(['--help'])"):
        check = f"{code}; import sys; print(sorted({heavy} & set(sys.modules)))"
        result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == "[]"
    modules = ", ".join(f"streamdream.{name}" for name in (
        "media.sources.video", "media.sinks.registry", "dream.optical_flow", "dream.warp", "render.pipeline"))
    check = f"import {modules}, sys; print(sorted({{'torch', 'gradio', 'av', 'cv2'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: streamdream {command}")
    assert command in here(capsys, "--help").stdout


@pytest.mark.parametrize(("arguments", "parts"), [
    (["rendr"], ["unknown command 'rendr'", "render"]),
    (["render"], ["input"]),
    (["render", "a.mp4"], ["-o"]),
    (["render", "a.mp4", "-o", "b.mp4", "--kep", "1"], ["'--kep'", "--keep"]),
    (["render", "a.mp4", "-o", "b.mp4", "--keep", "2"], ["--keep is 2", "0..0.999"]),
    (["render", "a.mp4", "-o", "b.mp4", "--steps", "many"], ["--steps is 'many'"]),
    (["render", "a.mp4", "-o", "b.mp4", "-ss", "soon"], ["-ss is 'soon'", "1:30"]),
    (["render", "a.mp4", "-o", "b.mp4", "--octaves", "0"], ["--octaves is 0", "1..12"]),
    (["render", "a.mp4", "-o", "b.mp4", "--flow", "diss"], ["unknown flow 'diss'", "dis"]),
    (["render", "a.mp4", "-o", "b.mp4", "--preset", "google"], ["unknown preset", "google-2015"]),
    (["render", "a.mp4", "-o", "b.mp4", "-y", "-n"], ["-n", "not allowed with"]),
    (["image", "nothing.png", "-o", "b.png"], ["nothing.png", "no such file"]),
    (["layers", "inception_v33"], ["unknown model", "inception_v3"]),
    (["bench", "stp"], ["unknown benchmark", "step"]),
])
def test_a_mistake_is_one_error_line(arguments: list[str], parts: list[str], tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    fails(here(capsys, *arguments), 2, *parts)
    assert not any(tmp_path.iterdir())


def test_models_and_layers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    models = json.loads(here(capsys, "models", "--json").stdout)["models"]
    assert {"name", "available", "reason"} <= set(models[0])
    layers = json.loads(here(capsys, "layers", "inception_v3", "--json").stdout)
    assert layers["model"] == "inception_v3"
    assert {"name": "mixed3", "channels": 768, "stride": 16} in layers["taps"]


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = here(capsys, "presets").stdout
    assert "places-2015\n" in listed and "Differences:" in listed


def test_print_config_is_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = here(capsys, "render", "x", "--print-config", "--steps", "3", STREAMDREAM_KEEP="0.5")
    assert "keep = 0.5" in first.stdout and "steps = 3" in first.stdout
    (tmp_path / "mine.toml").write_text(first.stdout)
    assert here(capsys, "render", "x", "--print-config", "--preset", tmp_path / "mine.toml").stdout == first.stdout


def test_an_invalid_environment_value_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "render", "x", "-o", "y.mp4", STREAMDREAM_KEEP="much"), 2, "--keep is 'much'")


def test_image_dreams_a_picture_and_reports_as_json(photo: Path, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "dream.png"
    result = here(capsys, "image", photo, "-o", output, "--steps", 2, "--octaves", 2, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["field"] == "160x160" and report["model"] == "inception_v3"
    dream, before = read_image(str(output)), read_image(str(photo))
    assert dream.shape == before.shape
    assert np.abs(dream.astype(int) - before).mean() > 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dream.png", "photo.png"]


def test_image_with_guide_style_mask_and_original_colours(photo: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "dream.png"
    result = here(capsys, "image", "--original-colors", photo, "-o", output, "--steps", 1, "--octaves", 1,
                  "--guide", photo, "--style", photo, "--style-layers", "mixed0", "--mask", photo)
    assert result.returncode == 0, result.stderr
    assert output.exists()
    fails(here(capsys, "image", photo, "-o", tmp_path / "b.png", "--guide", tmp_path / "x.png"), 2, "--guide", "x.png")
    fails(here(capsys, "render", photo, "-o", tmp_path / "b.mp4", "--guide", tmp_path / "x.mp4"), 2, "--guide", "x.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dream.png", "photo.png"]


def test_image_overwrites_only_when_asked(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = photo.read_bytes()
    fails(here(capsys, "image", photo, "-o", photo, "-y"), 2, "is the input")
    (tmp_path / "b.jpg").write_bytes(b"mine")
    fails(here(capsys, "image", photo, "-o", tmp_path / "b.jpg"), 2, "exists; -y overwrites it")
    fails(here(capsys, "image", photo, "-o", tmp_path / "none" / "b.jpg"), 2, "there is no folder")
    fails(here(capsys, "image", photo, "-o", tmp_path / "b.bmp"), 2, ".png, .jpg")
    assert photo.read_bytes() == before and (tmp_path / "b.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(("name", "content", "code", "part"), [
    ("empty.png", b"", 1, "is empty"), ("text.jpg", b"not a picture", 1, "is not a picture"),
])
def test_image_refuses_a_file_that_is_no_picture(name: str, content: bytes, code: int, part: str, tmp_path: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(content)
    fails(here(capsys, "image", tmp_path / name, "-o", tmp_path / "out.png"), code, part)
    fails(here(capsys, "image", tmp_path, "-o", tmp_path / "out.png"), 2, "is a folder")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(("arguments", "part"), [
    (["--layers", "mixd3"], "did you mean mixed3"), (["--octaves", "12"], "too small for mixed0"),
    (["--layers", "mixed3", "--channel", "9999"], "0..767"),
    (["--channel", "5"], "--channel 5: every layer names its channels"),
    (["--device", "warp"], "--device warp cannot be used"),
])
def test_image_refuses_invalid_layers_octaves_channels_and_devices(
        arguments: list[str], part: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "image", photo, "-o", tmp_path / "out.png", *arguments), 2, part)
    assert not (tmp_path / "out.png").exists()


def test_missing_libraries_of_opencv_name_the_package(photo: Path, tmp_path: Path) -> None:
    """A cv2 that fails to load as the real one does where libGL is missing."""
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(
        'raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")')
    result = streamdream("image", photo, "-o", tmp_path / "out.png", PYTHONPATH=str(tmp_path))
    fails(result, 1, "libGL.so.1", "apt-get install libgl1", "opencv-python-headless")


def test_an_unexpected_error_is_one_line_without_debug(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*arguments: object) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("streamdream.media.picture_decoder.read_picture", broken)
    fails(here(capsys, "image", photo, "-o", tmp_path / "out.png"), 1, "ZeroDivisionError: a bug")
    with pytest.raises(ZeroDivisionError):  # so Python prints its traceback
        here(capsys, "image", photo, "-o", tmp_path / "out.png", "--debug")


def test_an_unfinished_output_is_removed_at_exit(tmp_path: Path) -> None:
    video, pictures = str(tmp_path / "a.mp4"), str(tmp_path / "%d.png")
    script = ("import sys; from streamdream.system.atomic_file import AtomicFile\n"
              f"partials = [AtomicFile({video!r}), AtomicFile({pictures!r}, folder=True)]\n"
              "sys.exit(len(list(partials[0].path.parent.iterdir())))")
    assert subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, check=False).returncode == 2
    assert list(tmp_path.iterdir()) == []


def wait_until_signals_are_handled(process: subprocess.Popen[str]) -> None:
    """Before the first lines of the program, Python starts, which takes seconds on a busy machine."""
    status = Path(f"/proc/{process.pid}/status")
    while status.exists() and process.poll() is None:
        [caught] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:")]
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def after(seconds: float) -> Callable[[Path], None]:
    return lambda folder: time.sleep(seconds)


def when_rendering(folder: Path) -> None:
    until(lambda: any(folder.iterdir()), 60)


@pytest.mark.parametrize(("number", "code", "wait"), [
    (signal.SIGTERM, 143, after(0.5)), (signal.SIGINT, 130, when_rendering),
    *(pytest.param(signal.SIGINT, 130, after(seconds), marks=pytest.mark.soak) for seconds in (0.0, 1.5, 5.0))],
    ids=["loading", "rendering", "0 s", "1.5 s", "5 s"])
def test_a_signal_at_any_time_ends_cleanly(number: signal.Signals, code: int, wait: Callable[[Path], None], world: Path,
                                           tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "streamdream", "render", world, "-o", tmp_path / "out.mp4"],
                               stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=default_signals)
    wait_until_signals_are_handled(process)
    wait(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].endswith("ed; nothing was left behind")
    assert not any(tmp_path.iterdir())


def default_signals() -> None:
    """A child of a shell script's background job ignores SIGINT otherwise."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


LOOPS = {
    "exits while it loads": ("kill(); sleep(20)", ""),
    "ends between two frames": ("signals.check(); kill(); sleep(0.1); print('frame'); signals.check(); sleep(20)",
                                "frame\n"),
    "exits when a frame takes too long": ("signals.check(); kill(); sleep(20)", ""),
    "exits at the second signal": ("signals.GRACE_SECONDS = 30; signals.check(); kill(); kill(); sleep(20)", ""),
    "exits although an exit function hangs": ("atexit.register(sleep, 20); kill(); sleep(20)", ""),
    "exits where a library swallows exceptions": ("\ntry:\n kill(); sleep(20)\nexcept BaseException: pass", ""),
}


@pytest.mark.parametrize("case", LOOPS)
@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_a_signal_ends_a_command_in_each_phase(case: str, number: int, code: int, word: str, tmp_path: Path) -> None:
    """A program that does what a command does in one of its phases, with a partial output."""
    body, output = LOOPS[case]
    program = (
        "import atexit, os, signal, sys\nfrom functools import partial\nfrom time import sleep\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from streamdream import cli\nfrom streamdream.cli import signals\n"
        "from streamdream.system.atomic_file import AtomicFile\n"
        f"kill = partial(os.kill, os.getpid(), {number})\nsignals.install()\n"
        "def command(*_):\n partial = AtomicFile('out.mp4')\n"
        " try:\n  with signals.loop(): exec(sys.argv[1], globals())\n finally: partial.discard()\n"
        "cli.COMMANDS['command'] = command\ncli.main(['command'])")
    result = subprocess.run([sys.executable, "-c", program, body], capture_output=True, text=True, env=ENVIRONMENT,
                            cwd=tmp_path, check=False, timeout=15)
    assert (result.returncode, result.stdout) == (code, output), result.stderr
    assert result.stderr == f"error: {word}; nothing was left behind\n"
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_error() -> None:
    result = subprocess.run(f"{sys.executable} -m streamdream layers inception_v3 | head -n 1", shell=True,
                            capture_output=True, text=True, env=ENVIRONMENT)
    assert result.stdout.startswith("name")
    assert result.stderr == ""


@pytest.mark.parametrize("command", [
    ["render", "lavfi:testsrc=d=1", "-o", "{}/a.mp4"], ["image", "{}/missing.png", "-o", "{}/a.png"],
    ["live", "--source", "lavfi:testsrc", "--sink", "null"]], ids=lambda command: command[0])
def test_an_unknown_layer_is_an_error_before_pytorch_is_loaded(command: list[str], tmp_path: Path) -> None:
    """That takes seconds, in which a mistake could be mended: here it cannot be loaded at all."""
    program = "import sys; sys.modules['torch'] = None; from streamdream.__main__ import main; sys.exit(main())"
    arguments = [part.format(tmp_path) for part in command]
    result = subprocess.run([sys.executable, "-c", program, *arguments, "--layers", "mixd3"], capture_output=True,
                            text=True, env=ENVIRONMENT, check=False)
    assert result.returncode == 2 and "unknown layer 'mixd3'; did you mean mixed3" in result.stderr, result.stderr
    assert list(tmp_path.iterdir()) == []
