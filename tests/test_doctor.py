"""``streamdream doctor``: every backend with its reason, and a line to type for whatever is missing."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import here

from streamdream import backends
from streamdream.backends import engine_cache
from streamdream.cli import doctor
from streamdream.models import MODELS


def finding_about(subject: str, findings: list[doctor.Finding]) -> doctor.Finding:
    [finding] = [finding for finding in findings if finding.subject == subject]
    return finding


def test_doctor_prints_its_findings(capsys: pytest.CaptureFixture[str]) -> None:
    result = here(capsys, "doctor")
    assert result.returncode == 0 and result.stderr == "checking this machine\n"
    for word in ("processor", "memory", "GPU", "precision", "backend tensorrt", "encoders", "GPU decoders", "cameras",
                 "windows", "engines folder", "→ streamdream fetch bvlc_googlenet"):
        assert word in result.stdout
    rows = json.loads(here(capsys, "doctor", "--json").stdout)["findings"]
    assert {row["subject"] for row in rows} >= {f"backend {name}" for name in backends.BACKENDS}
    assert {row["subject"] for row in rows} >= {f"model {name}" for name in MODELS}


def test_every_missing_part_names_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(backends, "available",
                        lambda name: (name != "openvino", "OpenVINO is not here: pip install it"))
    findings = doctor.run_checks()
    assert [finding for finding in findings if finding.state == doctor.MISSING and not finding.fix] == []
    missing = finding_about("backend openvino", findings)
    assert (missing.state, missing.message, missing.fix) == (doctor.MISSING, "OpenVINO is not here", "pip install it")


def test_cached_engines_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    made_of = {"backend": "openvino", "size": "320x240", "dtype": "bf16", "device": "CPU of mine", "graph": "abc"}
    engine_cache.load_or_build(made_of, lambda data: data, lambda: b"x" * 2_000_000)
    findings = doctor.run_checks()
    assert finding_about("engines", findings).message == "1 cached, 2.0 MB"
    assert finding_about("engine", findings).message == "openvino 320x240 bf16 for CPU of mine"


def test_a_failed_check_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> tuple[bool, str]:
        raise OSError("a library is broken")

    monkeypatch.setattr(backends, "available", broken)
    findings = doctor.run_checks()
    assert finding_about("backends", findings).message == "cannot be checked: a library is broken"
    assert finding_about("processor", findings).state == doctor.INFO
