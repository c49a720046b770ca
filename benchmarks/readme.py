"""Write the tables of README.md, docs/speed.md and docs/cluster.md from ``benchmarks/results/*.json``.

``python -m streamdream_bench.readme`` writes the tables. With names after it (``step web``) it first runs those
benchmarks, each as the command that its file holds, and stores the new results. Run it from the repository root.
"""
from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results")
README, SPEED, CLUSTER = Path("README.md"), Path("docs/speed.md"), Path("docs/cluster.md")
NOT_RUN = "Not measured yet."
BEGIN, END = "<!-- {} -->", "<!-- /{} -->"
Columns = dict[str, str]
"""Key of a row -> heading of its column."""
LIVE: Columns = {
    "source": "source", "field": "field", "fixed_field": "fixed", "shown_ratio": "frames shown",
    "latency_p50_ms": "latency p50, ms", "latency_p95_ms": "p95, ms", "longest_gap_ms": "longest gap, ms",
    "steps_per_s": "dream steps/s"}
STEP: Columns = {
    "backend": "backend", "precision": "precision", "size": "size", "ms_p50": "p50, ms", "ms_p95": "p95, ms",
    "gflop_per_s": "GFLOP/s", "matmul_share": "of best matmul", "matmul_share_own": "of own matmul"}
GPU: dict[str, Columns] = {
    "gpu-step": STEP,
    "gpu-step-compiled": STEP,
    "gpu-frame": {"frame": "frame", "field": "field", "path": "path", "precision": "precision", "match_ms": "match, ms",
                  "advance_ms": "warp and ascend, ms", "compose_ms": "compose, ms", "frame_ms": "frame, ms",
                  "kernels": "kernels", "graph_launches": "graph launches", "host_waits": "host waits",
                  "fps": "frames/s", "busy_ratio": "GPU busy", "waited_ms_p50": "waited for p50, ms",
                  "waited_ms_p95": "p95, ms"},
    "gpu-equality": {"clip": "clip", "path": "path", "precision": "precision", "gain": "gain", "flicker": "flicker",
                     "first_frame_levels": "first frame, levels", "gain_change": "gain, change",
                     "flicker_change": "flicker, change"},
    "gpu-render": {"size": "size", "frame_path": "path", "encoder": "encoder", "frames": "frames", "fps": "frames/s",
                   "match_ms": "match, ms", "dream_ms": "ascend, ms", "compose_ms": "compose, ms",
                   "device_wait_ms": "wait for the device, ms", "encode_wait_ms": "wait for the encoder, ms",
                   "refused": "refused"},
    "gpu-live": {**LIVE, "dreams_per_s": "dreams/s", "gpu_busy_percent": "GPU busy, %", "frame_path": "path",
                 "backend": "backend", "precision": "precision"},
    "gpu-sessions": {"session": "session", "field": "field", "shown_ratio": "frames shown", "fps": "frames/s",
                     "dreams_per_s": "dreams/s", "latency_p50_ms": "latency p50, ms", "latency_p95_ms": "p95, ms",
                     "longest_gap_ms": "longest gap, ms", "backend": "backend", "precision": "precision"},
    "gpu-codecs": {"what": "what", "clip": "clip", "encoder": "encoder", "pixels": "pixels", "decoder": "decoder",
                   "frames": "frames", "equal": "equal", "software_fps": "software, frames/s",
                   "device_fps": "device, frames/s", "software_cpu_ms": "software, ms of processor",
                   "device_cpu_ms": "device, ms of processor", "fps": "frames/s", "psnr_db": "PSNR, dB",
                   "reason": "reason", "error": "error"},
    "roofline": {"frame": "frame", "field": "field", "part": "part", "operations": "operations",
                 "products": "of these products",
                 "host_waits": "host waits", "gflop": "GFLOP", "mb_moved": "MB moved", "bytes_up": "bytes up",
                 "bytes_down": "bytes down", "H200_ms": "H200, ms", "H200_with_kernels_ms": "with 2 µs a kernel",
                 "RTX 4090_ms": "RTX 4090, ms", "RTX 4090_with_kernels_ms": "with 2 µs a kernel",
                 "RTX 3060_ms": "RTX 3060, ms", "RTX 3060_with_kernels_ms": "with 2 µs a kernel"},
}
"""Tables of what ``gpu.sh`` measures; left out where there is no results file."""
COLUMNS: dict[str, Columns] = {
    "step": STEP,
    "step-googlenet": STEP,
    "render": {"clip": "clip", "size": "size", "frames": "frames", "fps": "frames/s", "first_frame_s": "first frame, s",
               "peak_rss_mb": "peak memory, MB", "match_ms": "match, ms", "carry_ms": "warp, ms",
               "dream_ms": "ascend, ms", "compose_ms": "compose, ms"},
    "quality": {"clip": "clip", "method": "method", "own_gain": "own gain", "gain": "gain", "flicker": "flicker",
                "e_warp": "E_warp", "t_of": "tOF, px", "ssim": "SSIM", "grey": "grey", "blue_yellow": "blue-yellow",
                "green_magenta": "green-magenta", "chroma": "CbCr", "slope": "slope", "drift": "drift",
                "drift_span": "drift, frames", "cut": "cut", "cut_recovery_frames": "recovery, frames"},
    "live": LIVE,
    "live-avx2": LIVE,
    "live-epyc-bf16": LIVE,
    "live-h100": LIVE,
    "web": {"case": "case", "size": "camera", "fps": "frames/s", "glass_p50_ms": "glass p50, ms",
            "glass_p95_ms": "glass p95, ms", "page_p50_ms": "page p50, ms", "page_p95_ms": "page p95, ms",
            "dreams_per_s": "dreams/s"},
    "gpu": {"gpu": "GPU", "backend": "backend", "precision": "precision", "mixed3_320x240_ms": "`mixed3` 320x240, ms",
            "mixed3_1280x720_ms": "`mixed3` 1280x720, ms", "googlenet_ms": "GoogLeNet, ms",
            "render_fps": "render, frames/s"},
    **GPU,
}
"""Tables of docs/speed.md, in order: the name of the results file and its columns."""
SCALING: dict[str, Columns] = {
    "film": {"mean_shot_s": "mean shot, s", "split": "`--seams`", "gpus": "GPUs", "minutes": "minutes",
             "speed_up": "speed-up", "efficiency_ratio": "efficiency", "gain_ratio": "gain of an added GPU",
             "pays": "pays", "scan_s": "scan, s", "render_s": "render, s", "join_s": "join, s", "seams": "seams",
             "idle_ratio": "GPUs idle", "warm_up_ratio": "warm-up", "limit": "what takes most"},
    "check": {"workers": "workers", "frames": "frames", "shots": "shots", "predicted_s": "predicted, s",
              "measured_s": "measured, s", "error_ratio": "error", "predicted_each_s": "predicted in each round, s",
              "measured_each_s": "measured in each round, s"},
}
"""Tables of docs/cluster.md: the rows of results/scaling.json by what their ``render`` is."""
ASSUMPTIONS = {
    "frame_ms": ("a frame on a GPU, ms", "assumed (`--frame-ms`)"),
    "node_cores": ("processor cores for each GPU", "assumed (`--node-cores`)"),
    "decode_and_encode_ms": ("decoding and encoding a frame on these cores, ms", "measured, divided by the cores"),
    "cut_frames": ("the first frame of a shot takes longer by, frames", "measured"),
    "worker_start_s": ("start of a worker, s", "measured"),
    "open_s": ("to the first frame of a chunk, s", "measured"),
    "driver_cores": ("cores of the machine that scans and joins", "assumed (`--driver-cores`)"),
    "scan_core_ms": ("scan of a frame by one core, ms", "measured"),
    "keep_ms": ("fetching, checking and keeping a chunk, ms", "measured, but for the network"),
    "network_gbit_per_s": ("network to that machine, Gbit/s", "assumed"),
    "join_ms_per_frame": ("joining, ms for each frame", "measured"),
    "dream_bytes_per_frame": ("size of a dreamed frame, bytes", "measured"),
}
"""Condition of results/scaling.json -> what it is, where it comes from."""


def main(names: Sequence[str]) -> None:
    for name in names:
        measure(name)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def measure(name: str) -> None:
    """Run the command of a results file and store the new results, without the note, which belongs to the old run.

    Raises ValueError for a file without a command, which was assembled from several runs.
    """
    command = load(name)["command"]
    if not command:
        raise ValueError(f"{name} was assembled from several runs; there is no command to repeat")
    result = subprocess.run([sys.executable, "-m", *shlex.split(command), "--json"], stdout=subprocess.PIPE, text=True,
                            check=True)
    stored = json.dumps({"command": command, **json.loads(result.stdout)}, indent=1, ensure_ascii=False)
    results_file(name).write_text(stored + "\n", encoding="utf-8")


def pages() -> dict[Path, str]:
    """Return each document with its current tables."""
    speed = SPEED.read_text(encoding="utf-8")
    for name in COLUMNS:
        missing = name in GPU and not results_file(name).exists()
        speed = replace(speed, name, NOT_RUN if missing else section(name))
    return {README: replace(README.read_text(encoding="utf-8"), "speed", summary()), SPEED: speed,
            CLUSTER: cluster_page()}


def cluster_page() -> str:
    stored, text = load("scaling"), CLUSTER.read_text(encoding="utf-8")
    for name, columns in SCALING.items():
        rows = [row for row in stored["rows"] if row["render"] == name]
        text = replace(text, f"scaling-{name}", table(columns, rows))
    conditions = dict(stored["conditions"])
    rows = [{"what": what, "value": conditions.pop(key), "from": origin} for key, (what, origin) in ASSUMPTIONS.items()]
    others = "; ".join(f"{key.replace('_', ' ')}: {_text(value, False)}" for key, value in conditions.items())
    body = table({"what": "what", "value": "value", "from": "from"}, rows)
    return replace(text, "scaling-costs", f"{body}\n\n`{stored['command']}`\n\n<sub>{others}</sub>")


def load(name: str) -> dict[str, Any]:
    """Read ``{"command", "note", "conditions", "rows"}``; the note may be absent, the command empty."""
    stored: dict[str, Any] = json.loads(results_file(name).read_text(encoding="utf-8"))
    return stored


def results_file(name: str) -> Path:
    return RESULTS / f"{name}.json"


def replace(text: str, name: str, body: str) -> str:
    """Replace the text between the two markers of ``name`` with ``body``. Raises ValueError if a marker is absent."""
    before, begin, rest = text.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    if not (begin and end):
        raise ValueError(f"no markers of {name}")
    return f"{before}{begin}\n{body}\n{end}{after}"


def section(name: str) -> str:
    """Format the command, the table and the conditions of one results file."""
    stored = load(name)
    conditions = [f"{key.replace('_', ' ')}: {value}" for key, value in stored["conditions"].items()]
    note = f"{stored['note']}\n\n" if "note" in stored else ""
    rows = [with_stages(row) for row in stored["rows"]]
    command = f"`{stored['command']}`\n\n" if stored["command"] else ""
    return f"{command}{table(COLUMNS[name], rows)}\n\n{note}<sub>{'; '.join(conditions)}</sub>"


def with_stages(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with a column for the median of each stage, such as ``match_ms``."""
    return {**{f"{stage}_ms": times["p50_ms"] for stage, times in row.get("stages", {}).items()}, **row}


def summary() -> str:
    """Format the table of the README."""
    (render,), (page, *_) = load("render")["rows"], load("web")["rows"]
    cpu, gpu = load("live")["rows"], load("gpu-live")["rows"][:1]
    film = load("gpu-render")["rows"][0]
    rows = [{"what": f"render {render['size']}, two octaves", "rate": f"{render['fps']:.0f} frames/s", "delay": "-"},
            *(_live_summary(row, "") for row in cpu),
            {"what": f"browser, {page['size']} at 30 fps, Chromium on the same cores",
             "rate": f"{page['fps']:.0f} frames/s",
             "delay": f"{page['page_p50_ms']:.0f} / {page['page_p95_ms']:.0f} ms"},
            *(_live_summary(row, ", one NVIDIA H200") for row in gpu),
            {"what": f"render {film['size']}, two octaves, field 854x480, one NVIDIA H200, not encoded",
             "rate": f"{film['fps']:.0f} frames/s", "delay": "-"}]
    return table({"what": "what", "rate": "rate", "delay": "latency p50 / p95"}, rows)


def _live_summary(row: dict[str, Any], where: str) -> dict[str, str]:
    return {"what": f"live {row['source'].replace('@', ' at ')} fps, field {row['field']}{where}",
            "rate": f"{row['shown_ratio']:.0%} of frames shown, {row['steps_per_s']:.0f} dream steps/s",
            "delay": f"{row['latency_p50_ms']:.0f} / {row['latency_p95_ms']:.0f} ms"}


def table(columns: Columns, rows: list[dict[str, Any]]) -> str:
    """Format a Markdown table of the columns for which some row has a value."""
    keys = [key for key in columns if any(row.get(key) is not None for row in rows)]
    body = [[_text(row.get(key), "ratio" in key) for key in keys] for row in rows]
    lines = [[columns[key] for key in keys], ["---"] * len(keys), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: Any, is_ratio: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if is_ratio and value is not None:
        return f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main(sys.argv[1:])
