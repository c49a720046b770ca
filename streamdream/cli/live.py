"""The command that dreams while it happens."""
from __future__ import annotations

import json
from collections.abc import Sequence

from streamdream import process, settings
from streamdream.cli.flags import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.show import say, show_log
from streamdream.settings import DreamSettings, LiveSettings, RenderSettings, StreamSettings


def live_command(parser: Parser, arguments: Sequence[str]) -> int:
    """dream a webcam or a stream while it happens

    streamdream live                                     webcam 0 in a window
    streamdream live --source clip.mp4 --sink window
    streamdream live --source webcam:1 --sink show.mp4   recorded, with the times of the camera
    streamdream live --source rtsp://HOST/PATH --sink window --sink rtmp://HOST/live/KEY --sink show.mp4
    """
    parser.add_argument("--source", default="webcam:0", help="webcam:0, webcam:NAME, screen:, a file, a URL (rtsp, "
                        "rtmp, http, udp), lavfi:GRAPH, v4l2:/dev/video0, avfoundation:0 or dshow:NAME (webcam:0)")
    parser.add_argument("--sink", action="append", help="window, virtualcam, null, a video file to record, a URL to "
                        "stream to (rtmp, udp), or an HLS list .m3u8; several may be given (window)")
    add_run_flags(parser)
    add_settings(parser, DreamSettings, LiveSettings, StreamSettings, RenderSettings,
                 without=("start", "duration", "end"))
    found = parser.parse(arguments)
    run = resolve(found)
    if found.print_config:
        print(settings.to_toml((run.dream, run.live, run.stream, run.render)), end="")
        return 0
    show_log(found.json)
    from streamdream.capture import open_live
    from streamdream.controls import Controls
    from streamdream.governor import Governor
    from streamdream.live import Live
    from streamdream.sinks import Show, open_sinks
    from streamdream.sinks.layers import main_layers

    sinks, controls = found.sink or ["window"], Controls(run.dream)
    show = Show(controls, lambda: main_layers(run.stream.model))
    with open_live(found.source, run.live) as source, \
            open_sinks(sinks, source, run.render, found.overwrite, show) as sink:
        from streamdream.pipeline import build_dreamer

        dreamer = build_dreamer(run.stream)
        dreamer.in_turn = True
        highest = min(run.stream.field_height or source.height, source.height)
        live = Live(source, sink, dreamer, Governor(highest, run.live.dream_hz, run.live.pin), controls)
        if not found.json:
            say(f"{found.source} → {', '.join(sinks)}, {source.width}x{source.height} at {float(source.rate):.3g} fps; "
                "Ctrl-C ends it")
        with process.ending_by(live.stop):
            report = live.run(run.live.seconds)
    for warning in report.warnings:
        say(f"warning: {warning}")
    facts = report.as_json()
    print(json.dumps(facts) if found.json else
          f"{report.frames} of {report.captured} frames in {report.seconds:.1f} s ({facts['display_fps']:.1f} fps), "
          f"{facts['dream_fps']:.1f} dreams/s on {report.field}, latency {report.latency_ms['p50']:.0f} ms "
          f"(p95 {report.latency_ms['p95']:.0f}), {report.backend} {report.precision} on {report.device}")
    return 0
