"""One row of the matrix: an input, how it is rendered, and what must hold."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.inputs.write import FRAMES, Sound, Text, Video, write

Make = Callable[[Path], object]
"""Writes the input under that path; for a pattern, its pictures. A list that it returns is a list of inputs."""
CHEAP = ("--backend", "eager", "--precision", "fp32", "--field-height", "48", "--octaves", "1", "--steps", "1",
         "--layers", "conv2d_2", "--warmup-steps", "0", "--flow", "none")
WHOLE: dict[str, Any] = {"frames": FRAMES, "numbers": range(FRAMES), "rate": 25, "duration": FRAMES / 25, "colors": 10,
                         "upright": True}
"""Twelve charts, 25 a second: what holds of most inputs."""


@dataclass(frozen=True)
class Input:
    """A file as people have it."""

    name: str
    """Of the file, or the pattern of a sequence."""
    about: str
    """What it stands for, for users."""
    becomes: str
    """What becomes of it, for users."""
    make: Make
    to: str = "mp4"
    """Suffix of the output, or a whole name."""
    flags: tuple[str, ...] = ()
    holds: dict[str, Any] = field(default_factory=lambda: dict(WHOLE))
    core: bool = False
    """Whether every run of the tests has it; all have `make soak`."""
    command: str = "render"

    @property
    def key(self) -> str:
        return f"{self.name} → {self.to}{' ' if self.flags else ''}{' '.join(self.flags)}"

    def output(self, folder: Path) -> Path:
        return folder / (self.to if "." in self.to else f"output.{self.to}")

    def prepare(self, folder: Path) -> list[str]:
        """Make the input; return what the command gets as its inputs."""
        sources = self.make(folder / self.name)
        return [str(source) for source in sources] if isinstance(sources, list) else [str(folder / self.name)]

    def arguments(self, sources: list[str], output: Path) -> list[str]:
        return [self.command, *sources, "-o", str(output), "--strength", "0", *CHEAP, *self.flags]


def made(*streams: Video | Sound | Text, **more: Any) -> Make:
    return lambda path: write(path, *streams, **more)


def whole(**more: Any) -> dict[str, Any]:
    """What holds of most inputs, and more; a value None takes one out."""
    return {name: value for name, value in {**WHOLE, **more}.items() if value is not None}
