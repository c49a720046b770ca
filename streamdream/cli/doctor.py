"""What this machine can do, what it lacks, and the one line to type for each of those."""
from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamdream import __version__
from streamdream.backends import engine_cache
from streamdream.system import cache_dir
from streamdream.system.machine import processor_name

OK, MISSING, INFO = "good", "missing", "info"
HARDWARE_ENCODERS = ("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "h264_vaapi", "h264_videotoolbox", "h264_amf")


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``remedy`` is what to type where something is missing."""

    subject: str
    state: str
    message: str
    fix: str = ""


def run_checks() -> list[Finding]:
    """Looks at everything; nothing here fails, whatever is broken."""
    findings = []
    for look in (_program, _processor, _accelerator, _precision, _backends, _models, _encoders, _cameras, _windows,
                 _engines, _folders):
        try:
            findings += look()
        except Exception as error:
            findings.append(Finding(look.__name__.strip("_"), MISSING, f"cannot be examined: {error}"))
    return findings


def as_json(findings: list[Finding]) -> dict[str, Any]:
    return {"version": __version__, "findings": [asdict(finding) for finding in findings]}


def _program() -> list[Finding]:
    import torch

    return [Finding("streamdream", INFO, f"{__version__} with Python {platform.python_version()}, PyTorch "
                    f"{torch.__version__}, PyAV {importlib.metadata.version('av')} on {platform.platform(terse=True)}")]


def _processor() -> list[Finding]:
    import torch

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
            args = torch.cuda.get_device_properties(number)
            rows.append(Finding("GPU", OK, f"cuda:{number}: {args.name}, {args.total_memory / 1e9:.1f} GB, "
                                f"capability {args.major}.{args.minor}"))
        return rows
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        return [Finding("GPU", OK, str(device))]
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        return [Finding("GPU", MISSING, "there may be one, but this PyTorch is made for processors only",
                        "pip install --force-reinstall torch")]
    return [Finding("GPU", INFO, "none that PyTorch sees; the processor dreams")]


def _precision() -> list[Finding]:
    from streamdream.backends import choose_device
    from streamdream.backends.precision import choose_precision

    precision, reason = choose_precision(choose_device("auto"))
    return [Finding("precision", INFO, f"{precision}: {reason}")]


def _backends() -> list[Finding]:
    from streamdream import backends

    rows = []
    for name in backends.BACKENDS:
        runs, reason = backends.available(name)
        text, _, remedy = reason.partition(": ")
        rows.append(Finding(f"backend {name}", OK, reason) if runs else
                    Finding(f"backend {name}", MISSING, text, remedy))
    return rows


def _models() -> list[Finding]:
    from streamdream.models import MODELS

    rows = [(name, *row.available()) for name, row in MODELS.items()]
    return [Finding(f"model {name}", OK if here else MISSING, reason if here else "its weights are not here",
                    "" if here else reason) for name, here, reason in rows]


def _encoders() -> list[Finding]:
    from streamdream.media.sinks.encoders import ENCODERS, video_encoders

    software, hardware = video_encoders(ENCODERS), video_encoders(HARDWARE_ENCODERS)
    return [Finding("encoders", OK if software else MISSING, ", ".join(software) or "none"),
            Finding("GPU encoders", INFO, ", ".join(hardware) + " (compiled in)" if hardware else "none")]


def _cameras() -> list[Finding]:
    if not sys.platform.startswith("linux"):
        return []
    names = []
    for path in sorted(map(str, Path("/dev").glob("video*"))):
        about = Path("/sys/class/video4linux") / Path(path).name / "name"
        may = "" if os.access(path, os.R_OK | os.W_OK) else ", not allowed"
        names.append(f"{path} ({about.read_text().strip() if about.exists() else 'unknown'}{may})")
    if any("not allowed" in name for name in names):
        return [Finding("cameras", MISSING, ", ".join(names), "sudo usermod -aG video $USER, then log in again")]
    return [Finding("cameras", OK if names else INFO, ", ".join(names) or "none")]


def _windows() -> list[Finding]:
    from streamdream.media.opencv import cv2

    lines = [line for line in cv2().getBuildInformation().splitlines() if line.strip().startswith("GUI:")]
    kit = lines[0].partition(":")[2].strip() if lines else "NONE"
    if kit == "NONE":
        return [Finding("windows", MISSING, "this OpenCV is the one without windows",
                        "pip uninstall -y opencv-python-headless && pip install --force-reinstall opencv-python")]
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return [Finding("windows", INFO, f"{kit}, but there is no display here")]
    return [Finding("windows", OK, kit)]


def _engines() -> list[Finding]:
    kept = engine_cache.list_engines()
    size = sum(engine.size_bytes for engine in kept) / 1e6
    rows = [Finding("engines", INFO, f"{len(kept)} kept, {size:.1f} MB")]
    return rows + [Finding("engine", INFO, "{backend} {size} {dtype} for {device}".format_map(
        {"backend": "", "size": "", "dtype": "", "device": "", **engine.build_key})) for engine in kept]


def _folders() -> list[Finding]:
    rows = []
    for kind in ("weights", "engines"):
        path = cache_dir.cache_dir(kind)
        above = next(folder for folder in (path, *path.parents) if folder.exists())
        good = os.access(above, os.W_OK)
        rows.append(Finding(f"{kind} folder", OK, str(path)) if good else Finding(
            f"{kind} folder", MISSING, f"{path} cannot be written", "export STREAMDREAM_CACHE=FOLDER"))
    return rows
