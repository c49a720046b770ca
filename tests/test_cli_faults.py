"""Mistakes on the command line and in the Python API: one line, the right exit code, nothing half done."""
from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.clips import Clip, make
from support.commands import ENVIRONMENT, fails, here
from support.sink_outputs import names

from streamdream import cli, models, settings, settings_fields
from streamdream.automation.automation import parse_playlist
from streamdream.automation.controls import Controls
from streamdream.cli import demo, progress, signals
from streamdream.cli.argument_parser import RENAMED_FLAGS
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.errors import SettingsError, UnknownName, UsageError
from streamdream.media.frame import Frame
from streamdream.media.images import write_image
from streamdream.media.sample_files import EXAMPLE_CLIP
from streamdream.settings import DreamSettings, StreamSettings
from streamdream.settings_parsing import parse_layers

RENDER = ["render", "lavfi:testsrc=size=96x64:duration=0.1", "-o", "o.mp4"]
SMALL = ["--field-height", 64, "--layers", "mixed0", "--octaves", 1, "--warmup-steps", 0]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STREAMDREAM_") and name != "STREAMDREAM_CACHE"]:
        monkeypatch.delenv(name)


# --- presets and settings ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", ["render", "image", "atlas"])
def test_print_config_needs_no_input(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, command, "--print-config")
    assert result.returncode == 0 and "strength = 1.0" in result.stdout
    fails(here(capsys, command), 2, "the input is missing")


def test_an_empty_preset_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text("# nothing\n")
    fails(here(capsys, "render", "--print-config", "--preset", "mine.toml"), 2, "mine.toml is empty", "--print-config")
    fails(here(capsys, "render", "--print-config", "--preset", "no.toml"), 2, "preset no.toml: no such file")


@pytest.mark.parametrize("model", models.MODELS)
def test_every_model_has_default_layers(model: str) -> None:
    row = models.get(model)
    assert row.resolve_tap(parse_layers(row.default_layers)[0].name) in row.blocks()


def test_a_model_without_layers_dreams_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def layers(*arguments: str) -> str:
        lines = here(capsys, "render", "--print-config", "--model", "bvlc_googlenet", *arguments).stdout.splitlines()
        return next(line for line in lines if line.startswith("layers")).partition("  #")[0]

    assert layers() == 'layers = "inception_4c/output"'
    assert layers("--layers", "pool1/3x3_s2") == 'layers = "pool1/3x3_s2"'
    assert layers("--preset", "deepdream-video") == 'layers = "inception_4d/3x3_reduce"'


def test_missing_weights_are_reported_before_a_wrong_layer(capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "cache"))
    for layers in ([], ["--layers", "mixed3"]):
        fails(here(capsys, *RENDER, "--model", "bvlc_googlenet", *layers), 1, "streamdream fetch bvlc_googlenet")


@pytest.mark.parametrize(("flags", "value"), [({"capture_size": "foo"}, "foo"), ({"capture_size": "640x0"}, "640x0")])
def test_a_capture_size_must_be_a_size(flags: dict[str, str], value: str) -> None:
    with pytest.raises(SettingsError, match=f"--capture-size is '{value}', but must be WIDTHxHEIGHT"):
        settings.resolve(flags, {})


@pytest.mark.parametrize(("values", "message"), [
    ({"field_height": "96"}, "--field-height is '96', but must be a whole number"),
    ({"field_height": 1.5}, "--field-height is 1.5, but must be a whole number"),
    ({"field_height": True}, "--field-height is True, but must be a whole number"),
    ({"device": 3}, "--device is 3, but must be text"),
])
def test_a_setting_of_the_wrong_type_is_one_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        StreamSettings(**values)  # type: ignore[arg-type]


def test_ranges_are_printed_plainly() -> None:
    fields = settings.all_fields()
    assert settings_fields.describe_range(fields["seed"]) == "0..2147483647"
    assert settings_fields.describe_range(fields["keep"]) == "0..0.999"
    assert settings_fields.describe_range(fields["step_size"]) == "0.0001..0.5"


def test_a_misspelled_environment_variable_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "render", "--print-config", STREAMDREAM_STRENGHT="1",
                  STREAMDREAM_SERVICE_HOST="10.0.0.1")  # the second as Kubernetes sets it
    assert result.returncode == 0 and result.stderr == (
        "warning: the environment variable STREAMDREAM_STRENGHT is unknown; did you mean STREAMDREAM_STRENGTH?\n")


@pytest.mark.parametrize(("command", "old"), [("render", "--onset"), ("live", "--pin"), ("live", "--no-pin"),
                                              ("live", "--dream-hz"), ("live", "--turn")])
def test_a_renamed_flag_names_the_new_one(command: str, old: str, capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, command, old, "1"), 2, f"unexpected '{old}'; its new name is {RENAMED_FLAGS[old]}")


def test_a_renamed_setting_names_the_new_one_everywhere() -> None:
    Path("a.toml").write_text("onset = 3\n")
    with pytest.raises(UnknownName, match="its new name is warmup_steps"):
        settings.resolve({}, {}, "a.toml")
    with pytest.raises(SettingsError, match="STREAMDREAM_ONSET is now STREAMDREAM_WARMUP_STEPS"):
        settings.resolve({}, {"STREAMDREAM_ONSET": "3"})
    with pytest.raises(UnknownName, match="its new name is warmup_steps"):
        Controls(DreamSettings()).change({"onset": 3})  # as a settings track does
    with pytest.raises(UnknownName, match="its new name is warmup_steps"):
        parse_playlist("mixed3 onset=3", 20)


# --- help -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_is_short_unless_all_of_it_is_asked_for(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    def text(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.run([command, *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    short, full = text("--help"), text("-h", "full")
    assert short.startswith(f"usage: streamdream {command} ") and full.startswith(f"usage: streamdream {command} ")
    assert short.count("\n  -") <= (32 if command == "bench" else 30)
    if command in ("render", "image", "live"):
        assert "--crf" in full and "--crf" not in short and "--layers" in short and "--help full" in short
    if command == "render":
        assert short.startswith("usage: streamdream render INPUT -o OUTPUT [options]\n") and "-ss" in short


# --- names of files ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("arguments", "part"), [
    (["render", "-dash.mp4", "-o", "o.mp4"], "written ./-dash.mp4"),
    (["render", "a.mp4", "-o", "-out.mp4"], "written ./-out.mp4"),
    (["image", "--", "-x.jpg", "-o", "o.png"], "written ./-x.jpg"),
])
def test_a_name_that_begins_with_a_dash(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, *arguments)
    fails(result, 2, part)
    assert "did you mean -o?" not in result.stderr


@pytest.mark.parametrize("arguments", [
    ["render", "n" * 300 + ".mp4", "-o", "o.mp4"], ["render", "a/" * 3000 + "n.mp4", "-o", "o.mp4"],
    [*RENDER[:3], "n" * 300 + ".mp4"], ["image", "n" * 300 + ".png", "-o", "o.png"],
    ["image", "p.png", "-o", "n" * 300 + ".png"], ["live", "--source", "n" * 300 + ".mp4", "--sink", "null"],
], ids=["input", "path", "output", "image", "image output", "source"])
def test_a_name_that_is_too_long(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_image("p.png", np.zeros((8, 8, 3), np.uint8))
    fails(here(capsys, *arguments), 2, "name too long")
    assert names(Path()) == ["p.png"]


@pytest.mark.skipif(os.name == "nt", reason="has other permissions")
@pytest.mark.parametrize("command", ["render", "image"])
def test_a_folder_without_permission(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / ("o.png" if command == "image" else "o.mp4")
    fails(here(capsys, command, tmp_path / "a.png", "-o", output), 2, "a.png")  # loads all modules while it may
    (closed := tmp_path / "closed").mkdir(mode=0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may read every folder
    try:
        result = here(capsys, command, closed / "a.png", "-o", output)
    finally:
        os.seteuid(user)
    closed.chmod(0o700)
    fails(result, 2, "permission denied")


@pytest.mark.parametrize(("arguments", "code", "part"), [
    ([*RENDER[:3], "http://127.0.0.1:9/o.mp4"], 2, "an output is a file"),
    ([*RENDER[:3], ""], 2, "the output is missing"), (["render", "", "-o", "o.mp4"], 2, "the input is missing"),
    (["live", "--source", "", "--sink", "null"], 2, "--source is empty"),
    (["live", "--source", "lavfi:testsrc", "--sink", ""], 2, "--sink is empty"),
    ([*RENDER, "-ss", "1e30"], 2, "-ss is 1e+30, but must be 0..100000000 s"),
    ([*RENDER, "--playlist", ";;"], 2, "--playlist ';;' holds no entry"),
    (["image", "p.png", "-o", "o.mp4", "-t", "0"], 2, "-t is 0"),
    (["fetch", "bvlc_googlenet", "--from", "nosuch.caffemodel"], 2, "--from nosuch.caffemodel: no such file"),
    (["image", "p.png", "-o", "o.png", "--guide", "text.mp4"], 1, "text.mp4 is not a picture"),
    (["image", "text.mp4", "-o", "o.png"], 1, "for a video: streamdream render"),
    (["image", "p.png", "-o", "o.png", "--layers", "conv2d_1", "--device", "banana"], 2,
     "there is no such device; this machine has auto, cpu"),
])
def test_a_mistake_is_one_plain_line(arguments: list[str], code: int, part: str,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    write_image("p.png", np.zeros((96, 96, 3), np.uint8))
    Path("text.mp4").write_text("no video")
    result = here(capsys, *arguments)
    fails(result, code, part)
    assert "Expected one of" not in result.stderr and "please report" not in result.stderr
    assert names(Path()) == ["p.png", "text.mp4"]


@pytest.mark.parametrize("flag", ["-t", "-to"])
def test_a_huge_duration_is_no_error(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert here(capsys, *RENDER, *SMALL, "--backend", "eager", flag, "1e30").returncode == 0


def test_names_that_resemble_none_are_not_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "nosuch")
    assert result.returncode == 2 and "did you mean" not in result.stderr and "known: render" in result.stderr
    Path("-dash.mp4").write_bytes(b"x")
    assert "-dash" not in here(capsys, "render", "bas.mp4", "-o", "o.mp4").stderr


def test_the_rest_of_an_older_sequence_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    make(Path("a.mp4"), Clip(2, size=(96, 64)))
    for number in (2, 3, 4):
        Path(f"f_{number:03d}.png").write_bytes(b"old")
        os.utime(f"f_{number:03d}.png", (1, 1))
    result = here(capsys, "render", "a.mp4", "-o", "f_%03d.png", "-y", *SMALL)
    assert result.returncode == 0 and "warning: 2 older files of f_%03d.png remain, from f_003.png on" in result.stderr


# --- standard streams -------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_stdout_is_one_line() -> None:
    result = subprocess.run(f"{sys.executable} -m streamdream presets > /dev/full", shell=True, env=ENVIRONMENT,
                            capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: stdout cannot be written: no space left on device\n")


@pytest.mark.parametrize("closing", ["2>&-", pytest.param("1>&-", marks=pytest.mark.soak),
                                     pytest.param("0<&-", marks=pytest.mark.soak)])
def test_a_closed_standard_stream_changes_nothing(closing: str) -> None:
    arguments = " ".join(map(str, ["render", "lavfi:testsrc=size=96x64:duration=0.1", "-o", "o.mp4", *SMALL]))
    result = subprocess.run(f"{sys.executable} -m streamdream {arguments} {closing}", shell=True, env=ENVIRONMENT,
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert names(Path()) == ["o.mp4"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress, "LINE_INTERVAL_SECONDS", 0.0)
    with progress.Progress("a → b", 9, "frames") as shown:
        shown.update(1)
    assert terminal.getvalue() == "a → b\n1 of 9 frames\n"


# --- pictures in the Python API ---------------------------------------------------------------------------------------

PICTURES = {
    "grey": (np.zeros((96, 96), np.uint8), r"uint8 \[96, 96\], values 0..0"),
    "RGBA": (np.zeros((96, 96, 4), np.uint8), r"uint8 \[96, 96, 4\]"),
    "channels first": (np.zeros((3, 96, 96), np.uint8), r"uint8 \[3, 96, 96\]"),
    "floats": (np.ones((96, 96, 3), np.float32), r"float32 \[96, 96, 3\], values 1..1"),
    "a list": ([[1, 2, 3]], "a list"),
    "no pixel": (np.zeros((0, 96, 3), np.uint8), r"uint8 \[0, 96, 3\]"),
}


@pytest.mark.parametrize("case", PICTURES)
def test_a_wrong_picture_is_one_helpful_error(case: str, dreamer: Dreamer) -> None:
    picture, part = PICTURES[case]
    for use in (lambda: dreamer(DreamState(), picture, DreamSettings()),  # type: ignore[arg-type]
                lambda: write_image("a.png", picture),  # type: ignore[arg-type]
                lambda: Frame(picture, 0.0)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=rf"must be a NumPy array of uint8 \[H, W, 3\].*but is .*{part}"):
            use()


# --- presets, demo ----------------------------------------------------------------------------------------------------

def test_presets_prints_one_as_toml(capsys: pytest.CaptureFixture[str]) -> None:
    text = here(capsys, "presets", "google-2015").stdout
    Path("mine.toml").write_text(text)
    assert settings.read_preset("mine.toml") == settings.read_preset("google-2015")
    rows = json.loads(here(capsys, "presets", "--json").stdout)["presets"]
    assert [row["name"] for row in rows] == settings.preset_names()
    assert rows[settings.preset_names().index("google-2015")]["settings"]["octaves"] == 4
    fails(here(capsys, "presets", "google"), 2, "unknown preset 'google'; did you mean google-2015")


def test_demo_dreams_the_clip_of_the_package(capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXAMPLE_CLIP.stat().st_size < 300_000
    monkeypatch.setattr(demo, "EXAMPLE_CLIP", make(Path("short.mp4"), Clip(2, size=(96, 64))))
    monkeypatch.setenv("STREAMDREAM_FIELD_HEIGHT", "64")
    for arguments in ([], [], ["-o", "other.mp4"]):
        result = here(capsys, "demo", *arguments)
        assert result.returncode == 0, result.stderr
        assert f"The dream is in {Path(arguments[-1] if arguments else 'demo.mp4').absolute()}" in result.stdout
        assert sum(any(word in f"{line} " for word in (" render ", " presets ", " web "))
                   for line in result.stdout.splitlines()[-4:]) == 4
    fails(here(capsys, "demo", "-o", "other.mp4"), 2, "exists")
    assert names(Path()) == ["demo.mp4", "other.mp4", "short.mp4"]


# --- make demo --------------------------------------------------------------------------------------------------------

@pytest.fixture()
def index() -> Iterator[SimpleNamespace]:
    """A package index on the loopback, and the paths it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/whl/cpu", paths=paths)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("case", ["no GPU", "no GPU, no index", "NVIDIA's driver"])
def test_make_takes_pytorch_for_processors_where_there_is_no_gpu(case: str, index: SimpleNamespace,
                                                                 tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (programs := tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, line in (("python", f'exec "{sys.executable}" "$@"'), ("pip", f'echo "$@" >> "{tmp_path}/pip.log"')):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    driver = tmp_path / ("Makefile" if case.startswith("NVIDIA") else "none")
    url = "http://127.0.0.1:9/whl/cpu" if case.endswith("no index") else index.url
    result = subprocess.run(["make", ".venv/installed", f"TORCH_INDEX={url}", f"NVIDIA_DRIVER={driver}"],
                            cwd=tmp_path, capture_output=True, text=True, check=False,
                            env=ENVIRONMENT | {"no_proxy": "127.0.0.1"})
    assert result.returncode == 0, result.stderr
    lines = [line.partition("constraints.txt ")[2] for line in (tmp_path / "pip.log").read_text().splitlines()]
    first = [f"--extra-index-url {url} torch"] if case == "no GPU" else []
    assert lines == [*first, "-e ."]
    assert index.paths == (["/whl/cpu/torch/"] if case == "no GPU" else [])


def test_a_run_sees_a_signal_between_two_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", 2)
    with pytest.raises(signals.SignalReceived, match="interrupted; nothing was left behind") as raised, \
            progress.Progress("a → b", 9, "frames", quiet=True) as shown:
        shown.update(1)
    assert raised.value.exit_code == 130
