"""The commands ``models``, ``layers`` and ``fetch``."""
from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.cli import signals
from streamdream.cli.argument_parser import Parser
from streamdream.cli.output import log_line, print_table
from streamdream.errors import UsageError

if TYPE_CHECKING:
    from streamdream.models import Model


def models_command(parser: Parser, argv: Sequence[str]) -> int:
    """list the networks"""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse(argv)
    from streamdream.models import MODELS

    rows = [{"name": row.name, "available": row.available()[0], "reason": row.available()[1], "licence": row.licence,
             "about": row.about} for row in MODELS.values()]
    if args.json:
        print(json.dumps({"models": rows}))
    else:
        print_table(rows)
    return 0


def layers_command(parser: Parser, argv: Sequence[str]) -> int:
    """list the layers of a network, lowest first"""
    parser.add_argument("model", help="name, as listed by streamdream models")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse(argv)
    from streamdream import models

    taps = [{"name": tap.name, "channels": tap.channels, "stride": tap.stride}
            for tap in models.get(args.model).taps().values()]
    if args.json:
        print(json.dumps({"model": args.model, "taps": taps}))
    else:
        print_table(taps)
    return 0


def fetch_command(parser: Parser, argv: Sequence[str]) -> int:
    """fetch the weights of a network

    streamdream fetch                                   list the networks
    streamdream fetch bvlc_googlenet
    streamdream fetch bvlc_googlenet --from FILE        use your own file
    """
    parser.add_argument("model", nargs="?", help="name, as listed by streamdream models")
    parser.add_argument("--from", dest="file", metavar="FILE", help="check and store this file, do not download")
    parser.add_argument("--again", action="store_true", help="download it again")
    args = parser.parse(argv)
    from streamdream import models
    from streamdream.models import fetch

    if not args.model:
        print_table([{"name": row.name, "installed": "yes" if row.available()[0] else "no", "licence": row.licence,
                       "about": row.about} for row in models.MODELS.values() if row.sources])
        return 0
    model = models.get(args.model)
    if args.file and not Path(args.file).is_file():
        raise UsageError(f"--from {args.file}: no such file")
    log_line(f"{model.name}: {model.about}")
    log_line(f"licence: {model.licence}")
    if args.file:
        path, published = fetch.import_file(model, Path(args.file))
        log_line(f"{args.file} fits" + (" and is the published file" if published else ""))
    else:
        path = (not args.again and fetch.find_valid(model, log_line)) or _download(model)
    print(f"{model.name}: {path}")
    return 0


def _download(model: Model) -> Path:
    from streamdream.cli.progress import Progress
    from streamdream.models import fetch

    with contextlib.ExitStack() as stack:
        bars: list[Progress] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Progress(model.name, total // 10**6, "MB")))
            bars[0].update(done // 10**6)

        with signals.describe_with(lambda: "what was downloaded is kept; the same command continues from there"):
            return fetch.fetch(model, log_line, show)
