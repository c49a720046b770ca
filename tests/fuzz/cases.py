"""One mutant through one door: where its files lie, what is run, what came of it."""
from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzz import children, judge
from fuzz.doors import DOORS, GOOD_PICTURE, GOOD_VIDEO
from fuzz.mutators import mutate
from fuzz.seeds import SEEDS

OUTCOMES = {0: "done", 1: "failed", 2: "refused"}


@dataclass(frozen=True)
class Case:
    """Mutant ``number`` of the seed file ``seed`` through ``door``."""

    seed: str
    number: int
    door: str
    run_seed: int


@dataclass(frozen=True)
class Outcome:
    """``faults`` is empty where all is as it should be."""

    case: Case
    mutator: str
    end: children.End
    faults: list[str]
    stderr: str

    @property
    def word(self) -> str:
        return "FAULT" if self.faults else OUTCOMES[self.end.code]


def make_seeds(folder: Path) -> None:
    """Write every seed file, each in a folder of its name."""
    for name, seed in SEEDS.items():
        (folder / name).mkdir()
        seed.make(folder / name / seed.name)


def write_mutant(seeds: Path, folder: Path, case: Case) -> tuple[Path, str]:
    """The mutant beside whole files, and the name of its mutator."""
    seed = SEEDS[case.seed]
    data = (seeds / case.seed / seed.name).read_bytes()
    mutant = folder / f"mutant{Path(seed.name).suffix}"
    damaged, mutator = mutate(data, case.seed, mutant.suffix[1:], case.number, case.run_seed)
    mutant.write_bytes(damaged)
    shutil.copy(seeds / "recipe-mkv" / SEEDS["recipe-mkv"].name, folder / GOOD_VIDEO)
    shutil.copy(seeds / "recipe-png" / SEEDS["recipe-png"].name, folder / GOOD_PICTURE)
    return mutant, mutator


def run_case(seeds: Path, case: Case) -> Outcome:
    """Judge one case; a hang is tried again, since another program may have had the processors."""
    outcome = _run_once(seeds, case)
    return _run_once(seeds, case) if outcome.end.killed == "time" else outcome


def _run_once(seeds: Path, case: Case) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="streamdream-fuzz-") as name:
        folder = Path(name)
        for part in ("in", "out", "tmp", "cache"):
            (folder / part).mkdir()
        mutant, mutator = write_mutant(seeds, folder / "in", case)
        environment = {"TMPDIR": str(folder / "tmp"), "STREAMDREAM_CACHE": str(folder / "cache")}
        inputs = sorted((folder / "in").iterdir())
        end = children.run(partial(_command, DOORS[case.door](mutant, folder / "out" / "dream", case.number)),
                           folder / "out", environment)
        stderr = (folder / "stderr").read_text(errors="backslashreplace")
        left = _files(folder, inputs)
        whole = children.run(partial(_check, [folder / path for path in left]), folder / "tmp", {}) \
            if left and not end.killed and end.code >= 0 else None
        return Outcome(case, mutator, end, judge.faults(end, stderr, left, whole is None or whole.code == 0), stderr)


def _command(arguments: list[str]) -> int:
    from streamdream import cli
    from streamdream.cli import signals

    for name in [name for name in os.environ if name.startswith("STREAMDREAM_") and name != "STREAMDREAM_CACHE"]:
        del os.environ[name]
    code = cli.run(arguments)
    signals.finish()
    return code


def _check(paths: list[Path]) -> int:
    visible = [path for path in paths if path.parent.name == "out" and not path.name.startswith(".")]
    return 0 if all(map(judge.is_whole, visible)) else 1


def _files(folder: Path, inputs: list[Path]) -> list[Path]:
    """What the command made, but for the cache's lock and the weights of a fetch that went well."""
    mine = {folder / "stdout", folder / "stderr", folder / "cache" / "weights" / ".lock", *inputs}
    found = [path for path in folder.rglob("*") if path.is_file() and path not in mine]
    return sorted(path.relative_to(folder) for path in found)
