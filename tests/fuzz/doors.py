"""The commands that read a stranger's file: each is a way in."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

CHEAP = ("--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--steps", "1",
         "--layers", "conv2d_2", "--warmup-steps", "0", "--threads", "1", "--model", "inception_v3", "--device", "cpu",
         "--json")
OUTPUTS = (".mkv", ".mp4", ".mov", "-%03d.png", ".gif", ".webm")
GOOD_VIDEO, GOOD_PICTURE = "good.mkv", "good.png"
"""Whole files beside the mutant."""
Door = Callable[[Path, Path, int], list[str]]
"""(mutant, output without suffix, number) -> arguments."""


def _render(mutant: Path, output: Path, number: int) -> list[str]:
    return ["render", str(mutant), "-o", f"{output}{OUTPUTS[number // 2 % len(OUTPUTS)]}", *CHEAP]


def _image(mutant: Path, output: Path, number: int) -> list[str]:
    return ["image", str(mutant), "-o", f"{output}.png", *CHEAP]


def _atlas(mutant: Path, output: Path, number: int) -> list[str]:
    return ["atlas", str(mutant), "-o", f"{output}.png", *CHEAP]


def _mask(mutant: Path, output: Path, number: int) -> list[str]:
    return ["image", str(mutant.with_name(GOOD_PICTURE)), "-o", f"{output}.png",
            ("--mask", "--guide", "--style")[number // 2 % 3], str(mutant), *CHEAP]


def _beside_video(flag: str) -> Door:
    return lambda mutant, output, number: ["render", str(mutant.with_name(GOOD_VIDEO)), "-o", f"{output}.mkv", flag,
                                           str(mutant), *CHEAP]


def _fetch(model: str) -> Door:
    return lambda mutant, output, number: ["fetch", model, "--from", str(mutant)]


def _preset(mutant: Path, output: Path, number: int) -> list[str]:
    return ["image", "a.png", "-o", "b.png", "--preset", str(mutant), "--print-config"]


def _preset_dream(mutant: Path, output: Path, number: int) -> list[str]:
    return ["image", str(mutant.with_name(GOOD_PICTURE)), "-o", f"{output}.png", "--preset", str(mutant), *CHEAP]


DOORS: dict[str, Door] = {
    "render": _render, "image": _image, "atlas": _atlas, "mask": _mask, "sound": _beside_video("--sound"),
    "guide": _beside_video("--guide"), "track": _beside_video("--settings-track"), "preset": _preset,
    "preset-dream": _preset_dream, "recipe": lambda mutant, output, number: ["recipe", str(mutant), "--json"],
    **{f"fetch {model}": _fetch(model) for model in ("bvlc_googlenet", "inception5h", "keras_inception_v3")}}
