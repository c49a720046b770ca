"""The command that dreams a video file."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamdream import settings
from streamdream.cli import path_conflicts
from streamdream.cli.automation import add_play_flags, playing
from streamdream.cli.flags import Parser, add_run_flags, add_settings, resolve
from streamdream.cli.output import print_report, show_log
from streamdream.settings import DreamSettings, PlaySettings, RenderSettings, StreamSettings


def render_command(parser: Parser, arguments: Sequence[str]) -> int:
    """dream a video file, with its sound

    streamdream render clip.mp4 -o dream.mp4
    streamdream render clip.mp4 -o dream.mp4 --layers mixed4 -ss 0:30 -t 10
    """
    parser.add_argument("input", help="a video file, a URL, img%%04d.png, or lavfi:GRAPH")
    parser.add_argument("-o", "--output", help="the dreamed video: .mp4, .mkv, .webm, ..., or null")
    add_run_flags(parser)
    add_play_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings, PlaySettings, RenderSettings)
    found = parser.parse(arguments)
    run = resolve(found)
    dream, stream, encode = run.dream, run.stream, run.render
    if found.print_config:
        print(settings.to_toml((dream, stream, run.play, encode)), end="")
        return 0
    if not found.output:
        parser.error("an output is needed: -o dream.mp4")
    path_conflicts.check(found, run)
    from streamdream.cli.progress import Progress
    from streamdream.media.sinks.registry import open_sink
    from streamdream.media.sources.video import open_source
    from streamdream.render.guide_video import Player

    show_log(found.json)
    with (Player(dream) as others,
          open_source(found.input, encode.start, encode.duration, encode.end) as source,
          open_sink(found.output, source, encode, found.overwrite, found.input) as sink,
          playing(found, run, found.input, encode.start) as play,
          Progress(f"{found.input} → {found.output}", source.frame_count, "frames", found.json) as progress):
        from streamdream.dream.build import build_dreamer
        from streamdream.render.pipeline import render

        report = render(source, sink, build_dreamer(stream), play, progress.update, others.at,
                        lambda model: build_dreamer(replace(stream, model=model)))
    print_report(report, found.output, found.json)
    return 0
