"""The commands that look at the machine: benchmarks, and what there is and what is missing."""
from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from streamdream.cli import path_conflicts
from streamdream.cli.flags import Parser
from streamdream.cli.output import say
from streamdream.errors import UnknownName, UsageError
from streamdream.system.atomic_file import write_file


def bench_command(parser: Parser, arguments: Sequence[str]) -> int:
    """measure: step, render, live, web, quality or equality"""
    try:
        from streamdream_bench import BENCHES, Options, run_bench
    except ImportError:
        raise UsageError("the benchmarks are not installed here: pip install streamdream again") from None
    parser.add_argument("name", help=", ".join(BENCHES))
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("-o", "--output", help="write the JSON to this file too")
    parser.add_argument("-y", dest="overwrite", action="store_true", help="overwrite that file if it exists")
    for item in dataclasses.fields(Options):
        parser.add_argument("--" + item.name.replace("_", "-"), dest=item.name, default=argparse.SUPPRESS,
                            type=type(item.default), help=item.metadata.get("help"))
    found = parser.parse(arguments)
    if found.name not in BENCHES:
        raise UnknownName("benchmark", found.name, BENCHES)
    names = {item.name for item in dataclasses.fields(Options)}
    path_conflicts.check(found)
    if found.output and Path(found.output).exists() and not found.overwrite:
        raise UsageError(f"{found.output} exists; -y overwrites it")
    options = Options(**{name: value for name, value in vars(found).items() if name in names})
    say(f"{found.name}: starting")  # loading PyTorch takes seconds
    report = run_bench(found.name, options, say)
    text = json.dumps(report.to_json())
    if found.output:
        write_file(found.output, (text + "\n").encode(), found.overwrite)
    print(text if found.json else report.table())
    return 0


def doctor_command(parser: Parser, arguments: Sequence[str]) -> int:
    """what this machine can do, what it lacks, and what to type for that"""
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    found = parser.parse(arguments)
    from streamdream.cli import doctor

    say("looking at this machine")  # PyTorch and what engines there are: seconds
    findings = doctor.examine()
    if found.json:
        print(json.dumps(doctor.as_json(findings)))
        return 0
    marks = {doctor.GOOD: "+", doctor.MISSING: "-", doctor.INFO: " "}
    width = max(len(finding.about) for finding in findings)
    for finding in findings:
        print(f"{marks[finding.state]} {finding.about:<{width}}  {finding.text}")
        if finding.remedy:
            print(f"  {'':<{width}}  → {finding.remedy}")
    return 0
