"""``python -m fuzz``: run mutants and print what became of them."""
from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=100, help="how many in all; every seed file gets as many")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--jobs", type=int, default=2, help="processes beside each other")
    parser.add_argument("--only", default="", metavar="FILE", help="seed files, separated by commas")
    parser.add_argument("--one-door", action="store_true", help="each mutant through one of its doors only, in turn")
    parser.add_argument("--whole", action="store_true", help="also the files as they are, which must be taken")
    parser.add_argument("--replay", default="", metavar="FILE:NUMBER:DOOR", help="run one, and keep its mutant")
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, "-m", "fuzz", *sys.argv[1:]], os.environ | ONE_THREAD)
    from fuzz import children
    from fuzz.cases import make_seeds

    children.preload()
    with tempfile.TemporaryDirectory(prefix="streamdream-seeds-") as name:
        make_seeds(Path(name))
        return replay_one(Path(name), args) if args.replay else fuzz(Path(name), args)


def cases(args: argparse.Namespace) -> list[object]:
    """As many mutants of each seed file, each through all of its doors."""
    from fuzz.cases import Case
    from fuzz.mutators import WHOLE
    from fuzz.seeds import SEEDS

    names = args.only.split(",") if args.only else list(SEEDS)
    whole = [Case(name, WHOLE, SEEDS[name].doors[0], args.seed) for name in names] if args.whole else []
    rounds = [divmod(index, len(names)) for index in range(args.mutants)]
    numbers = [(names[place], round + place) for round, place in rounds]  # so that a few are by many mutators
    doors = {name: seed.doors for name, seed in SEEDS.items()}
    return [*whole, *(Case(seed, number, door, args.seed) for seed, number in numbers
            for door in (doors[seed][number % len(doors[seed])::99] if args.one_door else doors[seed]))]


def fuzz(seeds: Path, args: argparse.Namespace) -> int:
    import multiprocessing

    from fuzz.cases import Outcome, run_case
    from fuzz.mutators import WHOLE

    began, outcomes = time.monotonic(), list[Outcome]()
    with multiprocessing.get_context("fork").Pool(args.jobs, maxtasksperchild=500) as pool:
        for outcome in pool.imap_unordered(partial(run_case, seeds), cases(args), chunksize=4):
            if outcome.case.number == WHOLE and outcome.word != "done":
                outcome = replace(outcome, faults=outcome.faults or ["a whole file is refused"])
            outcomes.append(outcome)
            if outcome.faults:
                print_fault(outcome)
    print_table(outcomes)
    bad = sum(bool(outcome.faults) for outcome in outcomes)
    print(f"{args.mutants} mutants, {len(outcomes)} runs, {bad} with faults, in {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


def print_fault(outcome: object) -> None:
    from fuzz.cases import Outcome

    assert isinstance(outcome, Outcome)
    case = outcome.case
    print(f"{case.seed}:{case.number}:{case.door} ({outcome.mutator}, {outcome.end.seconds:.1f} s, "
          f"{outcome.end.peak_bytes / 1e6:.0f} MB): {'; '.join(outcome.faults)[:400]}\n"
          f"    python -m fuzz --seed {case.run_seed} --replay {shlex.quote(f'{case.seed}:{case.number}:{case.door}')}",
          flush=True)


def print_table(outcomes: Iterable[object]) -> None:
    """Seed files × mutators: done / failed / refused, and how many faults."""
    from fuzz.cases import Outcome

    rows: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for outcome in outcomes:
        assert isinstance(outcome, Outcome)
        rows[outcome.case.seed][outcome.word] += 1
        kinds[outcome.mutator][outcome.word] += 1
        seconds, peak = slowest[outcome.case.seed]
        slowest[outcome.case.seed] = max(seconds, outcome.end.seconds), max(peak, outcome.end.peak_bytes)
    words = ("done", "failed", "refused", "FAULT")
    for title, table in (("seed file", rows), ("mutator", kinds)):
        print(f"{title:<16}" + "".join(f"{word:>9}" for word in words)
              + ("  slowest s  peak MB" if table is rows else ""))
        for name, counts in table.items():
            extra = f"{slowest[name][0]:11.1f}{slowest[name][1] / 1e6:9.0f}" if table is rows else ""
            print(f"{name:<16}" + "".join(f"{counts[word]:>9}" for word in words) + extra)


def replay_one(seeds: Path, args: argparse.Namespace) -> int:
    """Run one case again, keep its mutant, and print what a user would type."""
    from fuzz.cases import Case, run_case, write_mutant
    from fuzz.doors import DOORS

    seed, number, door = args.replay.split(":", 2)
    case = Case(seed, int(number), door, args.seed)
    folder = Path(tempfile.gettempdir()) / f"mutant-{seed}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    mutant, _ = write_mutant(seeds, folder, case)
    outcome = run_case(seeds, case)
    print(outcome.stderr + f"exit code {outcome.end.code}")
    if outcome.faults:
        print_fault(outcome)
    print("streamdream", shlex.join([*DOORS[door](mutant, folder / "dream", int(number)), "--debug"]))
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
