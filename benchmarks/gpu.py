"""Run the measurements of a GPU, each in a process of its own for a limited time, and store their results.

``benchmarks/gpu.sh`` starts it. A part that fails is reported, and the others go on.
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from streamdream.media.opencv import cv2
from streamdream.system.atomic_file import write_file

from .readme import COLUMNS, table, with_stages

SCALES = {"full": 570.0, "quick": 170.0, "small": 300.0}
"""Seconds for all parts."""
CLIP_FRAMES = 300
SAMPLE = Path(__file__).resolve().parent.parent / "streamdream" / "clips" / "valley.mp4"
TINY = "--precision fp32 --layers conv2d_2 --backend eager"
"""Seconds in all on two cores."""


@dataclass(frozen=True)
class Part:
    """A command behind ``python -m``, with further arguments for each scale; a scale that is absent leaves it out."""

    command: str
    seconds: float
    scales: dict[str, str]


PARTS = {
    "gpu-step": Part("streamdream bench step --device {device} --json", 80, {
        "full": "--backend eager --sizes 320x240,640x480,1280x720", "small": f"--sizes 96x80 --frames 3 {TINY}",
        "quick": "--backend eager --sizes 320x240,1280x720 --frames 30"}),
    "gpu-frame": Part("streamdream bench frame --device {device} --clip {clip} --json", 120, {
        "full": "", "quick": "--sizes 320x240,1280x720 --frames 30", "small": f"--sizes 128x96:80 --frames 2 {TINY}"}),
    "gpu-equality": Part("streamdream bench frame-equality --device {device} --clip {clip} --json", 60, {
        "full": "", "quick": "", "small": f"--width 96 --height 80 --frames 3 {TINY}"}),
    "gpu-render": Part("streamdream bench render --device {device} --clip {clip} --frame-path device,processor --json",
                       150, {
        "full": "--width 1920 --height 1080 --field-height 480 --frames 300 --encoder null,libx264,h264_nvenc",
        "quick": "--width 1920 --height 1080 --field-height 480 --frames 120 --encoder null",
        "small": f"--width 128 --height 96 --field-height 80 --frames 4 --encoder null,libx264 {TINY}"}),
    "gpu-live": Part("streamdream bench live --device {device} --clip {clip} --json", 120, {
        "full": "--seconds 12", "quick": "--seconds 10 --width 1280 --height 720 --rate 60 --field-height 720",
        "small": f"--frame-path device --seconds 2 --width 128 --height 96 --rate 10 --field-height 64 {TINY}"}),
    "gpu-sessions": Part("streamdream bench sessions --device {device} --clip {clip} --json", 60, {
        "full": "--seconds 15", "quick": "--seconds 8",
        "small": "--frame-path device --sessions 2 --seconds 2 --width 128 --height 96 --rate 10 --field-height 64 "
                 + TINY}),
    "gpu-codecs": Part("streamdream_bench.device_codecs", 60, {"full": "", "quick": ""}),
    "gpu-step-compiled": Part("streamdream bench step --device {device} --backend compiled --precision fp16 --json",
                              150, {"full": "--sizes 320x240,1280x720"}),
}
"""Results file -> how it is measured. Those come first that matter most, as time may run out."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--clip", default="")
    parser.add_argument("--parts", default="", help="names with commas; empty for all")
    args = parser.parse_args(argv)
    names = args.parts.split(",") if args.parts else [name for name, part in PARTS.items() if args.scale in part.scales]
    if unknown := set(names) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    ends_at = time.monotonic() + SCALES[args.scale]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="streamdream-bench-") as folder:
        clip = args.clip or write_clip(str(Path(folder) / "valley.mp4"), args.scale)
        for name in names:
            results.append({"part": name, **run_part(name, args, clip, ends_at - time.monotonic())})
            sys.stdout.write(f"{name}: {results[-1]['result']}, {results[-1]['seconds']:.0f} s\n")
            sys.stdout.flush()
    sys.stdout.write(summary(results))
    return 0 if all(row["result"] == "done" for row in results) else 1


def run_part(name: str, args: argparse.Namespace, clip: str, seconds_left: float) -> dict[str, Any]:
    """Run one part, and store what it printed. Return its result in words, and its rows."""
    part, started_at = PARTS[name], time.monotonic()
    template = f"{part.command} {part.scales[args.scale]}".strip()
    command = [sys.executable, "-m", *(word.format(device=args.device, clip=clip) for word in template.split())]
    rows: list[dict[str, Any]] = []
    try:
        text, error_line = run_limited(command, min(part.seconds, seconds_left))
        printed = json.loads(text)
        rows = printed["rows"] if "rows" in printed else [
            {"what": kind, **row} for kind in ("decode", "encode") for row in printed[kind]]
        shown = template.format(device=args.device, clip="CLIP").replace(" --json", "")
        stored = {"command": shown, "conditions": printed["conditions"], "rows": rows}
        write_file(str(args.out / f"{name}.json"), (json.dumps(stored, indent=1) + "\n").encode(), True)
        result = "done" if not error_line else f"failed: {error_line}"
    except subprocess.TimeoutExpired as error:
        result = f"not done within {error.timeout:.0f} s"
    except (RuntimeError, ValueError, KeyError) as error:
        result = f"failed: {error}"
    return {"result": result, "seconds": time.monotonic() - started_at, "rows": rows}


def run_limited(command: list[str], seconds: float) -> tuple[str, str]:
    """Return what a command printed, and its last line of errors if it failed.

    Raises TimeoutExpired, after which none of its processes is left, or RuntimeError where it printed nothing.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True, start_new_session=True)
        try:
            text, _ = process.communicate(timeout=max(0.0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        told.seek(0)
        error_line = (told.read().strip().splitlines() or ["no error was printed"])[-1] if process.returncode else ""
    if error_line and not text.strip():
        raise RuntimeError(error_line)
    return text, error_line and f"exit {process.returncode}, {error_line}"


def write_clip(path: str, scale: str) -> str:
    """Write the clip of the package at 1280x720, played forward and back; return its path."""
    import av

    count, height, width = (12, 96, 128) if scale == "small" else (CLIP_FRAMES, 720, 1280)
    with av.open(str(SAMPLE)) as source:
        images = [frame.to_ndarray(format="rgb24") for frame in islice(source.decode(video=0), count)]
    with av.open(path, "w") as target:
        encoder = target.add_stream("libx264", Fraction(30), width=width, height=height, pix_fmt="yuv420p",
                                    options={"crf": "16", "preset": "veryfast"})
        for number in range(count):
            place = number % (2 * len(images))
            image = images[min(place, 2 * len(images) - 1 - place)]
            larger = cv2().resize(image, (width, height), interpolation=cv2().INTER_CUBIC)
            target.mux(encoder.encode(av.VideoFrame.from_ndarray(larger, format="rgb24")))
        target.mux(encoder.encode(None))
    return path


def summary(results: list[dict[str, Any]]) -> str:
    """Format what came of each part, and the table of each."""
    parts = [f"\n{row['part']}\n{table(COLUMNS[row['part']], list(map(with_stages, row['rows'])))}\n"
             for row in results if row["rows"]]
    heads = table({"part": "part", "result": "result", "seconds": "seconds"}, results)
    return "".join([*parts, "\n", heads, "\n"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
