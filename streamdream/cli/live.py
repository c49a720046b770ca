"""The command ``live``."""
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from streamdream import settings
from streamdream.automation.opening import check_still_guide, open_automation
from streamdream.cli import path_conflicts, signals
from streamdream.cli.argument_parser import FILE_FIELDS, Parser, add_run_flags, add_settings, resolve
from streamdream.cli.automation import add_automation_flags, automation_files
from streamdream.cli.output import log_line, show_log, warn_of_older_files
from streamdream.dream.field_check import checked_source
from streamdream.errors import UsageError
from streamdream.settings import AutomationSettings, DreamSettings, LiveSettings, RenderSettings, Run, StreamSettings
from streamdream.system.process_tuning import freeze_gc

if TYPE_CHECKING:
    from streamdream.automation.automation import Automation
    from streamdream.live.pipeline import Live
    from streamdream.live.report import LiveReport
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import Source

LIVE_PRESET = "live"
"""The preset that applies when none is named."""


def live_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream a webcam, a stream or a file in real time

    streamdream live                                     webcam 0 in a window
    streamdream live --source clip.mp4 --sink window
    streamdream live --source webcam:1 --sink show.mp4   recorded, with the times of the camera
    streamdream live --source rtsp://HOST/PATH --sink window --sink rtmp://HOST/live/KEY --sink show.mp4
    """
    _add_flags(parser)
    args = parser.parse(argv)
    run = resolve(args, LIVE_PRESET)
    if args.print_config:
        print(settings.to_toml((run.dream, run.live, run.automation, run.stream, run.render)), end="")
        return 0
    path_conflicts.check(args, run)
    if not run.live.seconds:
        raise UsageError("--seconds is 0: there is nothing to dream")
    show_log(args.json)
    started, sink_names, failures = time.time(), args.sink or ["window"], dict[str, str]()
    report = _run_live(args, run, sink_names, failures)
    for warning in report.warnings:
        log_line(f"warning: {warning}")
    for name in sink_names:
        warn_of_older_files(name, started)
    print(json.dumps(report.as_json() | {"failed_sinks": failures}) if args.json else _summary(report))
    return 1 if failures else 0


def _add_flags(parser: Parser) -> None:
    parser.add_argument("--source", default="webcam:0", help="webcam:0 or only 0, webcam:NAME, screen:, a file, a "
                        "URL (rtsp, rtmp, http, udp), lavfi:GRAPH, v4l2:/dev/video0, avfoundation:0 or dshow:NAME "
                        "(webcam:0)")
    parser.add_argument("--sink", action="append", help="window, virtualcam, null, a video file to record, a URL to "
                        "stream to (rtmp, udp), or an HLS list .m3u8; several may be given (window)")
    add_run_flags(parser)
    add_automation_flags(parser)
    add_settings(parser, DreamSettings, LiveSettings, AutomationSettings, StreamSettings, RenderSettings,
                 without=("start", "duration", "end", *FILE_FIELDS))


def _run_live(args: argparse.Namespace, run: Run, sink_names: list[str], failures: dict[str, str]) -> LiveReport:
    """Run until the source ends or a signal comes. Sinks that fail while others go on are added to ``failures``."""
    from streamdream import models
    from streamdream.media.hardware_decoding import Hwaccel
    from streamdream.media.sinks import recording
    from streamdream.media.sinks.base import LiveContext
    from streamdream.media.sinks.registry import open_sinks
    from streamdream.media.sources.live import open_live

    def layers() -> list[str]:
        return models.get(automation.controls.request.model or run.stream.model).blocks()

    title = f"{args.source} → {', '.join(sink_names)}"
    with (
        signals.describe_with(recording.describe_all),
        open_automation(automation_files(args), run, args.source, check=check_still_guide) as automation,
        open_live(args.source, run.live, Hwaccel(run.render.hwaccel, run.stream.device)) as source,
        open_sinks(
            sink_names, checked_source(source, run, all_octaves=False), run.render, args.overwrite,
            LiveContext(automation.controls, layers, failures)
        ) as sink,
    ):
        if not args.json:
            log_line(f"{title}: starting")
        live, stop = _build_live(run, source, sink, automation)
        if not args.json:
            log_line(f"{title}, {source.width}x{source.height} at {float(source.rate):.3g} fps; Ctrl-C ends it")
        freeze_gc()
        with signals.stop_on_signal(stop):
            return live.run(run.live.seconds)


def _build_live(run: Run, source: Source, sink: Sink, automation: Automation) -> tuple[Live, Callable[[], None]]:
    """Return the live run and what ends it. Loads PyTorch, which takes seconds: check the flags before."""
    from streamdream.backends import build_process
    from streamdream.dream.build import build_dreamer
    from streamdream.live.field_times import FieldTimesOfRun
    from streamdream.live.pipeline import Live
    from streamdream.live.resolution import ResolutionController

    max_height = min(run.stream.field_height or source.height, source.height)
    live = Live(
        source,
        sink,
        build_dreamer(run.stream),
        ResolutionController(max_height, run.live.min_dream_rate, run.live.fixed_field),
        automation.controls,
        automation=automation,
        build=lambda model: build_dreamer(replace(run.stream, model=model)),
        field_times=FieldTimesOfRun(run.stream.backend),
        drop_frames=run.stream.frame_path == "device",
    )

    def stop() -> None:
        live.stop()
        build_process.cancel()

    return live, stop


def _summary(report: LiveReport) -> str:
    facts = report.as_json()
    return (f"{report.frames} of {report.captured} frames in {report.seconds:.1f} s ({facts['display_fps']:.1f} fps), "
            f"{facts['dream_fps']:.1f} dreams/s on {report.field}, latency {report.latency_ms['p50']:.0f} ms "
            f"(p95 {report.latency_ms['p95']:.0f}), {report.backend} {report.precision} on {report.device}")
