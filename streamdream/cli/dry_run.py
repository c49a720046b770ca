"""What ``render`` does in place of a render: a forecast, or a preview."""
from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from streamdream.cli.output import log_line, show_log
from streamdream.system.durations import describe_seconds
from streamdream.system.sizes import describe_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from streamdream.cli.argument_parser import Parser
    from streamdream.render.dry_run import Forecast
    from streamdream.render.file_render import PlanOptions
    from streamdream.render.job import RenderJob


def add_dry_run_flags(parser: Parser) -> None:
    """Add the flags that look at a render before it begins."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dry-run", action="store_true",
                        help="dream a few frames, tell how long the render takes and how large it gets, and write "
                             "nothing")
    either.add_argument("--preview", default="", metavar="SHEET",
                        help="only make this picture, .jpg, .png or .webp: three moments before and after; needs no -o")


def look_ahead(args: argparse.Namespace, job: RenderJob, options: PlanOptions) -> bool:
    """Do what ``--dry-run`` or ``--preview`` asks for; return whether one of them was there."""
    if args.dry_run:
        _dry_run(job, options, args.json)
    elif args.preview:
        _preview(job, args.preview, args.json)
    return bool(args.dry_run or args.preview)


def _dry_run(job: RenderJob, options: PlanOptions, as_json: bool) -> None:
    from streamdream.render.dry_run import forecast_render

    show_log(as_json)
    forecast = forecast_render(job, options)
    for warning in forecast.warnings:
        log_line(f"warning: {warning}")
    if not forecast.fits:
        log_line("warning: the disk is too small")
    if as_json:
        print(json.dumps(forecast.as_json()))
        return
    print(f"{forecast.input} → {forecast.output}")
    for name, text in _lines(forecast):
        print(f"  {name:<9} {text}")


def _lines(forecast: Forecast) -> Iterator[tuple[str, str]]:
    name = "streams"
    for stream in forecast.streams:
        action = "" if stream.action == "encoded" else stream.action
        yield name, f"{stream.description}: " + ", ".join(filter(None, (action, stream.reason)))
        name = ""
    count = "unknown" if not forecast.frames else f"{'' if forecast.frames_exact else 'about '}{forecast.frames}"
    yield "frames", f"{count} of {forecast.size}, dreamed on {forecast.field}"
    yield "network", f"{forecast.model} {forecast.layers}"
    threads = _count(forecast.threads, "thread")
    yield "backend", f"{forecast.backend} {forecast.precision}, {threads}, on {forecast.device} ({forecast.reason})"
    if forecast.decoder_reason or forecast.decoder != "software":
        yield "decoder", forecast.decoder + (f": {forecast.decoder_reason}" if forecast.decoder_reason else "")
    if forecast.would_build:
        yield "", "engines are built first, some seconds for each octave; the render may be faster then"
    if forecast.seconds is None:
        yield "time", f"{forecast.frame_seconds:.3g} s a frame; the input does not tell how many there are"
    else:
        yield "time", (f"about {describe_seconds(forecast.seconds)}: {forecast.start_seconds:.1f} s to begin, "
                       f"{forecast.frame_seconds:.3g} s a frame")
        yield "output", f"about {describe_bytes(forecast.output_bytes)}" + (
            f", of which {describe_bytes(forecast.copied_bytes)} are copied" if forecast.copied_bytes else "")
    for disk in forecast.disks:
        verdict = "" if disk["needed_bytes"] <= disk["free_bytes"] else ": TOO LITTLE"
        yield "disk", (f"{describe_bytes(disk['needed_bytes'])} at most in {disk['folder']}, "
                       f"{describe_bytes(disk['free_bytes'])} are free{verdict}")
    yield "memory", f"{forecast.peak_rss_mb:.0f} MB in the samples"
    if not forecast.chunks:
        yield "plan", "one pass, which begins anew after an interruption"
    else:
        yield "plan", f"{_count(forecast.chunks, 'chunk')} of {forecast.chunk_frames} frames in {forecast.work_folder}"
    if forecast.resumed_frames:
        yield "", f"resuming: {forecast.resumed_frames} of {forecast.frames} frames are there"
    yield "samples", (f"{_count(forecast.sampled_frames, 'frame')} at {_count(forecast.sampled_places, 'place')}; "
                      "nothing was written")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _preview(job: RenderJob, path: str, as_json: bool) -> None:
    from streamdream.media import images
    from streamdream.render.preview import preview

    images.check_output(path, job.overwrite, job.input)
    show_log(as_json)
    began = time.perf_counter()
    sheet, moments = preview(job)
    images.write_image(path, sheet, overwrite=job.overwrite)
    seconds = time.perf_counter() - began
    if as_json:
        print(json.dumps({"output": path, "input": job.shown_input, "moments": moments, "seconds": round(seconds, 3)}))
    else:
        print(f"{path}: {len(moments)} moments of {job.shown_input} in {seconds:.0f} s")
