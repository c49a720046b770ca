"""The command ``doctor``."""
from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamdream import __version__
from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import log_line

OK, MISSING, INFO = "ok", "missing", "info"
MARKS = {OK: "+", MISSING: "-", INFO: " "}
HARDWARE_ENCODERS = ("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "h264_vaapi", "h264_videotoolbox", "h264_amf")


def doctor_command(parser: Parser, argv: Sequence[str]) -> int:
    """check this machine: what works, what is missing, how to install it"""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse(argv)
    log_line("checking this machine")  # loads PyTorch and the libraries of engines, which takes seconds
    findings = run_checks()
    if args.json:
        print(json.dumps(as_json(findings)))
        return 0
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{MARKS[finding.state]} {finding.subject:<{width}}  {finding.message}")
        if finding.fix:
            print(f"  {'':<{width}}  → {finding.fix}")
    return 0


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``fix`` is the command that installs what is missing."""

    subject: str
    state: str
    message: str
    fix: str = ""


def run_checks() -> list[Finding]:
    """Run all checks. Raises nothing: a check that fails is a finding."""
    findings = []
    for check in (_program, _processor, _accelerator, _precision, _backends, _models, _encoders, _decoders, _cameras,
                  _windows, _engines, _folders):
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding(check.__name__.strip("_"), MISSING, f"cannot be checked: {error}"))
    return findings


def as_json(findings: list[Finding]) -> dict[str, Any]:
    return {"version": __version__, "findings": [asdict(finding) for finding in findings]}


def _program() -> list[Finding]:
    import torch

    return [Finding("streamdream", INFO, f"{__version__} with Python {platform.python_version()}, PyTorch "
                    f"{torch.__version__}, PyAV {importlib.metadata.version('av')} on {platform.platform(terse=True)}")]


def _processor() -> list[Finding]:
    import torch

    from streamdream.system.machine import processor_name

    findings = [Finding("processor", INFO, f"{processor_name()}, {os.cpu_count()} threads, "
                        f"{torch.get_num_threads()} used, {torch.backends.cpu.get_cpu_capability()}")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        free = page * os.sysconf("SC_AVPHYS_PAGES") / 1e9
        findings.append(Finding("memory", INFO, f"{page * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB, {free:.1f} free"))
    return findings


def _accelerator() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        rows = []
        for number in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(number)
            rows.append(Finding("GPU", OK, f"cuda:{number}: {gpu.name}, {gpu.total_memory / 1e9:.1f} GB, "
                                f"capability {gpu.major}.{gpu.minor}"))
        return rows
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        return [Finding("GPU", OK, str(device))]
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        return [Finding("GPU", MISSING, "NVIDIA's driver is installed, but this PyTorch is built without CUDA",
                        "pip install --force-reinstall torch")]
    return [Finding("GPU", INFO, "PyTorch finds none; dreams run on the processor")]


def _precision() -> list[Finding]:
    from streamdream.backends import choose_device
    from streamdream.backends.precision import choose_precision

    precision, reason = choose_precision(choose_device("auto"))
    return [Finding("precision", INFO, f"{precision}: {reason}")]


def _backends() -> list[Finding]:
    from streamdream import backends

    rows = []
    for name in backends.BACKENDS:
        available, reason = backends.available(name)
        message, _, fix = reason.partition(": ")
        rows.append(Finding(f"backend {name}", OK, reason) if available else
                    Finding(f"backend {name}", MISSING, message, fix))
    return rows


def _models() -> list[Finding]:
    from streamdream.models import MODELS

    rows = [(name, *model.available()) for name, model in MODELS.items()]
    return [Finding(f"model {name}", OK if available else MISSING, reason if available else "weights not installed",
                    "" if available else reason) for name, available, reason in rows]


def _encoders() -> list[Finding]:
    from streamdream.media.sinks.encoders import ENCODERS, runs_here, video_encoders

    software, hardware = video_encoders(ENCODERS), video_encoders(HARDWARE_ENCODERS)
    working = [name for name in hardware if runs_here(name)]
    compiled = f"none runs here; compiled in: {', '.join(hardware)}" if hardware else "none"
    return [Finding("encoders", OK if software else MISSING, ", ".join(software) or "none"),
            Finding("GPU encoders", OK if working else INFO, ", ".join(working) or compiled)]


def _decoders() -> list[Finding]:
    from streamdream.media.hardware_decoding import EXACT_CODECS, device_failure, types_built_in

    failures = {name: device_failure(name) for name in types_built_in()}
    working = [name for name, failure in failures.items() if not failure]
    if working:
        return [Finding("GPU decoders", OK, f"{', '.join(working)}, for {', '.join(EXACT_CODECS)}")]
    reasons = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
    return [Finding("GPU decoders", INFO, f"none runs here ({reasons})" if reasons else "none")]


def _cameras() -> list[Finding]:
    if not sys.platform.startswith("linux"):
        return []
    names = []
    for path in sorted(map(str, Path("/dev").glob("video*"))):
        name_file = Path("/sys/class/video4linux") / Path(path).name / "name"
        denied = "" if os.access(path, os.R_OK | os.W_OK) else ", permission denied"
        names.append(f"{path} ({name_file.read_text().strip() if name_file.exists() else 'unknown'}{denied})")
    if any("permission denied" in name for name in names):
        return [Finding("cameras", MISSING, ", ".join(names), "sudo usermod -aG video $USER, then log in again")]
    return [Finding("cameras", OK if names else INFO, ", ".join(names) or "none")]


def _windows() -> list[Finding]:
    from streamdream.media.opencv import cv2

    lines = [line for line in cv2().getBuildInformation().splitlines() if line.strip().startswith("GUI:")]
    toolkit = lines[0].partition(":")[2].strip() if lines else "NONE"
    if toolkit == "NONE":
        return [Finding("windows", MISSING, "this OpenCV is built without windows",
                        "pip uninstall -y opencv-python-headless && pip install --force-reinstall opencv-python")]
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return [Finding("windows", INFO, f"{toolkit}, but no display")]
    return [Finding("windows", OK, toolkit)]


def _engines() -> list[Finding]:
    from streamdream.backends import engine_cache

    engines = engine_cache.list_engines()
    size = sum(engine.size_bytes for engine in engines) / 1e6
    rows = [Finding("engines", INFO, f"{len(engines)} cached, {size:.1f} MB")]
    return rows + [Finding("engine", INFO, "{backend} {size} {dtype} for {device}".format_map(
        {"backend": "", "size": "", "dtype": "", "device": "", **engine.build_key})) for engine in engines]


def _folders() -> list[Finding]:
    from streamdream.system import cache_dir

    rows = []
    for kind in ("weights", "engines"):
        path = cache_dir.cache_dir(kind)
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        rows.append(Finding(f"{kind} folder", OK, str(path)) if os.access(existing, os.W_OK) else Finding(
            f"{kind} folder", MISSING, f"{path} is not writable", "export STREAMDREAM_CACHE=FOLDER"))
    return rows
