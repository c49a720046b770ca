"""The command ``bench``."""
from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from streamdream.cli import path_conflicts
from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import log_line
from streamdream.errors import UnknownName, UsageError
from streamdream.system.atomic_file import write_file


def bench_command(parser: Parser, argv: Sequence[str]) -> int:
    """run a benchmark: step, frame, frame-equality, render, live, sessions, web, quality, looks, look-sheets,
    equality, roofline or scaling"""
    try:
        from streamdream_bench import BENCHES, Options, run_bench
    except ImportError:
        raise UsageError("the benchmarks are missing: reinstall streamdream with pip") from None
    parser.add_argument("name", help=", ".join(BENCHES))
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("-o", "--output", help="also write the JSON to this file")
    parser.add_argument("-y", dest="overwrite", action="store_true", help="overwrite that file if it exists")
    for item in dataclasses.fields(Options):
        action = parser.add_argument("--" + item.name.replace("_", "-"), dest=item.name, default=argparse.SUPPRESS,
                                     type=type(item.default), help=item.metadata.get("help"))
        if item.metadata["advanced"]:
            parser.advanced.append(action)
    args = parser.parse(argv)
    if args.name not in BENCHES:
        raise UnknownName("benchmark", args.name, BENCHES)
    names = {item.name for item in dataclasses.fields(Options)}
    path_conflicts.check(args)
    if args.output and Path(args.output).exists() and not args.overwrite:
        raise UsageError(f"{args.output} exists; -y overwrites it")
    options = Options(**{name: value for name, value in vars(args).items() if name in names})
    log_line(f"{args.name}: starting")  # loading PyTorch takes seconds
    report = run_bench(args.name, options, log_line)
    text = json.dumps(report.to_json())
    if args.output:
        write_file(args.output, (text + "\n").encode(), args.overwrite)
    print(text if args.json else report.table())
    return 0
