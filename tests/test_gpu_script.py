"""``benchmarks/gpu.sh`` runs whole where there is no GPU, and reports what fails."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from streamdream_bench import gpu, readme

ROOT = Path(__file__).parent.parent


def run_script(out: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEVICE": "cpu", "SMALL": "1", "OUT": str(out), "PYTHON": sys.executable,
                   "OMP_NUM_THREADS": "1", **variables}
    environment.pop("QUICK", None)
    return subprocess.run([str(ROOT / "benchmarks" / "gpu.sh")], env=environment, capture_output=True, text=True,
                          check=False)


def results(out: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*.json")}


def check(found: dict[str, dict[str, Any]], names: set[str]) -> None:
    assert set(found) == names
    for name, stored in found.items():
        assert stored["command"].startswith("streamdream") and "/tmp" not in stored["command"]
        assert {"processor", "torch", "date"} <= set(stored["conditions"]) and stored["rows"]
        assert readme.table(readme.COLUMNS[name], [readme.with_stages(row) for row in stored["rows"]]).count("|") > 20


def test_the_script_measures_frames_where_there_is_no_gpu(tmp_path: Path) -> None:
    done = run_script(tmp_path, PARTS="gpu-frame")
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    check(found, {"gpu-frame"})
    rows = found["gpu-frame"]["rows"]
    assert [row["path"] for row in rows] == ["device", "processor"]
    assert {"match_ms", "advance_ms", "compose_ms", "frame_ms", "fps", "waited_ms_p95"} <= set(rows[0])


@pytest.mark.soak
def test_the_script_measures_every_part_where_there_is_no_gpu(tmp_path: Path) -> None:
    done = run_script(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    check(found, {name for name, part in gpu.PARTS.items() if "small" in part.scales})
    assert [(row["frame_path"], row["encoder"], len(row["fps_of_runs"])) for row in found["gpu-render"]["rows"]] == [
        ("device", "null", 2), ("processor", "null", 2), ("device", "libx264", 2), ("processor", "libx264", 2)]


def test_a_part_that_fails_or_takes_too_long_is_reported_and_the_others_go_on(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text("""if True:
        import json, sys, time
        if "wait" in sys.argv: time.sleep(60)
        if "fail" in sys.argv: sys.exit("error: no such thing")
        print(json.dumps({"conditions": {"torch": "2"}, "rows": [{"backend": "eager", "size": sys.argv[-1]}]}))
        sys.exit("error: but wrong" if "wrong" in sys.argv else 0)""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu, "write_clip", lambda path, scale: path)
    monkeypatch.setattr(gpu, "PARTS", {
        "gpu-frame": gpu.Part("answer fail", 20, {"small": ""}),
        "gpu-render": gpu.Part("answer wait", 0.5, {"small": ""}),
        "gpu-codecs": gpu.Part("answer wrong", 20, {"small": ""}),
        "gpu-step": gpu.Part("answer {device}", 20, {"small": "", "full": ""}),
        "gpu-step-compiled": gpu.Part("answer", 20, {"full": ""})})
    assert gpu.main([str(tmp_path / "out"), "--device", "cpu", "--scale", "small"]) == 1
    text = capsys.readouterr().out
    assert "gpu-frame: failed: error: no such thing" in text and "gpu-render: not done within 0 s" in text
    assert "gpu-codecs: failed: exit 1, error: but wrong" in text and "gpu-step: done" in text
    assert "| eager | cpu |" in text and "gpu-step-compiled" not in text
    assert set(results(tmp_path / "out")) == {"gpu-step", "gpu-codecs"}


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    done = run_script(tmp_path, PARTS="gpu-frames")
    assert done.returncode == 2 and "there is no part gpu-frames; there are gpu-step, gpu-frame" in done.stderr
