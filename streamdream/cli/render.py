"""The command that dreams a video file."""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from streamdream import settings
from streamdream.cli import path_conflicts
from streamdream.cli.argument_parser import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.automation import add_automation_flags, open_automation
from streamdream.cli.field_check import checked_source
from streamdream.cli.output import print_report, show_log, warn_of_older_files
from streamdream.settings import AutomationSettings, DreamSettings, RenderSettings, StreamSettings


def render_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream a video file, with its sound

    streamdream render clip.mp4 -o dream.mp4
    streamdream render clip.mp4 -o dream.mp4 --layers mixed4 -ss 0:30 -t 10
    """
    parser.add_argument("input", nargs="?", help="a video file, a URL, img%%04d.png, or lavfi:GRAPH")
    parser.add_argument("-o", "--output", help="the dreamed video: .mp4, .mkv, .webm, ..., or null")
    add_run_flags(parser)
    add_automation_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings, AutomationSettings, RenderSettings)
    args = parser.parse(argv)
    run = resolve(args)
    dream, stream, encode = run.dream, run.stream, run.render
    if args.print_config:
        print(settings.to_toml((dream, stream, run.automation, encode)), end="")
        return 0
    parser.require(args, input="a file", output="-o dream.mp4")
    path_conflicts.check(args, run)
    from streamdream.cli.progress import Progress
    from streamdream.media.sinks.registry import open_sink
    from streamdream.media.sources.video import open_source
    from streamdream.render.guide_video import GuideVideo

    show_log(args.json)
    started = time.time()
    with (GuideVideo(dream) as guide_video,
          open_source(args.input, encode.start, encode.duration, encode.end) as source,
          open_sink(args.output, checked_source(source, args, run), encode, args.overwrite, args.input) as sink,
          open_automation(args, run, args.input, encode.start) as automation,
          Progress(f"{args.input} → {args.output}", source.frame_count, "frames", args.json) as progress):
        from streamdream.dream.build import build_dreamer
        from streamdream.render.pipeline import render_video

        report = render_video(source, sink, build_dreamer(stream), automation, progress.update,
                              guide_video.references_at, lambda model: build_dreamer(replace(stream, model=model)))
    warn_of_older_files(args.output, started)
    print_report(report, args.output, args.json)
    return 0
