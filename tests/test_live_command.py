"""``streamdream live``: its sources, its report, its errors."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import Clip, make
from support.commands import ENVIRONMENT, fails, here
from support.live_sinks import readable_frames
from support.waiting import until

from streamdream.backends import openvino
from streamdream.live.report import LiveReport
from streamdream.media.sources.live import open_live
from streamdream.settings import LiveSettings

GRAPH = "lavfi:testsrc2=size=160x96:rate=30"


# --- sources ----------------------------------------------------------------------------------------------------------

def test_a_file_is_looped_at_its_rate(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", Clip(frames=6, size=(64, 48)))
    begin, seconds = time.monotonic(), []
    with open_live(str(tmp_path / "a.mp4")) as source:
        for frame in source:
            seconds.append(frame.pts_seconds)
            if len(seconds) == 15:
                break
    assert time.monotonic() - begin > 13 / 30
    assert seconds == pytest.approx([number / 30 for number in range(15)], abs=1e-3)


def test_live_mirrors_the_source() -> None:
    with open_live(GRAPH) as plain, open_live(GRAPH, LiveSettings(mirror=True)) as mirrored:
        a, b = next(iter(plain)), next(iter(mirrored))
        assert (mirrored.width, mirrored.height) == (160, 96)
    np.testing.assert_array_equal(a.image[:, ::-1], b.image)


def test_a_missing_source_is_one_error_line(capsys: pytest.CaptureFixture[str]) -> None:
    fails(here(capsys, "live", "--source", "webcam:7", "--sink", "null"), 1, "there is no camera 7 here")
    fails(here(capsys, "live", "--source", "7", "--sink", "null"), 1, "there is no camera 7 here")
    fails(here(capsys, "live", "--source", "webcam:front", "--sink", "null"), 1, "no camera is called 'front'")
    fails(here(capsys, "live", "--source", "missing.mp4", "--sink", "null"), 2, "missing.mp4")


def test_live_refuses_a_guide_video_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = make(tmp_path / "guide.mp4")
    result = here(capsys, "live", "--source", GRAPH, "--sink", "null", "--guide", guide)
    fails(result, 1, "guide.mp4")
    assert "starting" not in result.stderr


def test_live_without_a_display_is_one_error_line() -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    result = subprocess.run([sys.executable, "-m", "streamdream", "live", "--source", GRAPH], capture_output=True,
                            text=True, env=environment, check=False)
    fails(result, 1, "there is no display here for a window")


# --- the command ------------------------------------------------------------------------------------------------------

def test_live_reports_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "live", "--source", GRAPH, "--sink", "null", "--seconds", "1", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == 0 and 10 < report["frames"] <= 40 and report["dreams"] > 0
    assert {"display_fps", "dream_fps", "latency_ms", "longest_gap_ms", "field", "backend", "stages", "dropped",
            "peak_rss_mb", "cpu_share"} <= set(report)
    assert set(report) >= set(LiveReport.__dataclass_fields__)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_a_recording_is_complete_after_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "streamdream", "live", "--source", GRAPH, "--sink",
                                str(tmp_path / "recording.mp4"), "--field-height", "0"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr is not None
    while "Ctrl-C ends it" not in process.stderr.readline():
        assert process.poll() is None
    until(lambda: readable_frames(tmp_path / "recording.partial.mp4"), 60)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    assert "dreams/s" in output and [path.name for path in tmp_path.iterdir()] == ["recording.mp4"]
    with av.open(str(tmp_path / "recording.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 1


# --- whole frames on the device ---------------------------------------------------------------------------------------

DEVICE = ["--frame-path", "device", "--device", "cpu", "--backend", "eager", "--layers", "conv2d_2", "--octaves", "1"]


@pytest.mark.parametrize(("flags", "fields"), [
    (["--field-height", "64", "--fixed-field"], {"106x64"}),
    (["--field-height", "0", "--fixed-field"], {"160x96"})])
def test_live_dreams_whole_frames_on_a_device(flags: list[str], fields: set[str], capsys: pytest.CaptureFixture[str]
                                              ) -> None:
    result = here(capsys, "live", "--source", "lavfi:testsrc2=size=160x96:rate=10:d=1", "--sink", "null", "--json",
                  *DEVICE, *flags)
    report = json.loads(result.stdout)
    assert result.returncode == 0 and set(report["fields"]) == fields
    assert min(report[name] for name in ("dreams", "steps", "frames")) >= 3


def test_a_field_of_0_grows_to_the_lines_of_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "live", "--source", "lavfi:testsrc2=size=320x160:rate=20:d=2", "--sink", "null", "--json",
                  *DEVICE, "--field-height", "0")
    assert set(json.loads(result.stdout)["fields"]) & {"320x160 all octaves", "320x160"}


def test_a_backend_that_executes_steps_only_refuses_whole_frames(capsys: pytest.CaptureFixture[str]) -> None:
    if not openvino.OpenVino.available()[0]:
        pytest.skip("OpenVINO is not installed")
    fails(here(capsys, "live", "--source", GRAPH, "--sink", "null", "--frame-path", "device", "--device", "cpu",
               "--backend", "openvino"), 2, "--frame-path device")
