"""The command ``export``."""
from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from streamdream import settings
from streamdream.automation.opening import check_layers
from streamdream.cli import path_conflicts
from streamdream.cli.argument_parser import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.output import log_line, show_log
from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, Run, StreamSettings
from streamdream.settings_parsing import check_size

SUFFIX = ".onnx"
OF_A_RUN = ("backend", "device", "frame_path", "tile_memory", "memory", "threads", "seed")
"""Settings that a file has no use for."""
PRECISIONS = ("fp32", "fp16")


def export_command(parser: Parser, argv: Sequence[str]) -> int:
    """write a dream as an ONNX file, for other programs and the browser

    streamdream export -o dream.onnx --layers "mixed5[33]" --size 320x240
    streamdream export -o dream.onnx --layers mixed3 --size 640x480 --precision fp16
    streamdream export -o frame.onnx --layers mixed3 --size 640x480 --field-height 240 --whole-frame

    The file holds one step, its weights, and a description; with --whole-frame all that becomes of a frame of a video.
    docs/onnx.md says how to run it.
    """
    parser.add_argument("-o", "--output", help="the file, .onnx")
    parser.add_argument("--size", default="320x240", metavar="SIZE",
                        help="size of a picture or frame (default %(default)s)")
    parser.add_argument("--whole-frame", action="store_true",
                        help="the whole way of a frame: flow, carrying, steps on all octaves, composing")
    add_run_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings, without=OF_A_RUN)
    args = parser.parse(argv)
    run = resolve(args)
    if args.print_config:
        print(settings.to_toml((run.dream, run.stream)), end="")
        return 0
    parser.require(args, output="-o dream.onnx")
    path_conflicts.check(args, run)
    width, height = _parse_size(args.size)
    _check(args, run, height, width)
    _write(args, run, height, width)
    return 0


def _parse_size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, check_size(text).split("x"))
    except ValueError:
        raise UsageError(f"--size is {text!r}; it takes WIDTHxHEIGHT, such as 320x240") from None
    return width, height


def _check(args: argparse.Namespace, run: Run, height: int, width: int) -> None:
    """Raise UsageError, ModelError or MissingPackage for what can be known before PyTorch is loaded."""
    from dataclasses import replace

    from streamdream import models
    from streamdream.dream import octaves
    from streamdream.dream.field_check import check_field
    from streamdream.dream.options import DEVICE_FLOWS

    target = Path(args.output)
    if target.suffix.lower() != SUFFIX:
        raise UsageError(f"{args.output}: the file's name must end in {SUFFIX}")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{args.output}: there is no folder {target.parent}")
    if target.exists() and not args.overwrite:
        raise UsageError(f"{args.output} exists; -y overwrites it")
    if run.stream.precision not in ("auto", *PRECISIONS):
        raise UsageError(f"--precision {run.stream.precision}: an ONNX file has {' or '.join(PRECISIONS)}")
    check_layers(run.dream, run.stream.model)
    model = models.get(run.stream.model)
    model.check_weights()
    if not args.whole_frame and run.dream.mask:
        raise UsageError("--mask is for --whole-frame: a step has no mask")
    if args.whole_frame and run.dream.flow not in DEVICE_FLOWS:
        raise UsageError(f"--flow {run.dream.flow} is for processors only; a frame's file has "
                         f"{', '.join(DEVICE_FLOWS)}")
    if args.whole_frame:
        check_field(run, height, width)
    else:
        octaves.check_field(model, replace(run.dream, octaves=1), (height, width))


def _write(args: argparse.Namespace, run: Run, height: int, width: int) -> None:
    from streamdream import models
    from streamdream.system.atomic_file import AtomicFile

    show_log(args.json)
    precision = run.stream.precision.replace("auto", "fp32")
    if not args.json:
        log_line(f"{run.dream.layers} of {run.stream.model}, {width}x{height}, {precision} → {args.output}")
    partial = AtomicFile(args.output, overwrite=args.overwrite)  # first, as it may fail, and the rest takes long
    try:
        from streamdream.dream import onnx_files

        model = models.get(run.stream.model)
        file = (onnx_files.frame_file(model, run.dream, height, width, run.stream.field_height, precision)
                if args.whole_frame else onnx_files.step_file(model, run.dream, height, width, precision))
        partial.write(file.data)
    finally:
        partial.discard()
    if args.json:
        print(json.dumps({"output": args.output, "model": run.stream.model, "layers": run.dream.layers,
                          "size": f"{width}x{height}", "precision": precision, "bytes": len(file.data),
                          "tensors": {name: {"type": kind, "shape": shape, "about": about}
                                      for name, (kind, shape, about) in file.tensors.items()}}))
    else:
        print(f"{args.output}: {len(file.data) / 1e6:.1f} MB, as eager in ONNX Runtime; {', '.join(file.tensors)}")
