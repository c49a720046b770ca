"""The command ``image``: dream one picture, as a picture or as a video that zooms into it."""
from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream import settings, settings_fields
from streamdream.automation.opening import check_layers
from streamdream.cli import path_conflicts
from streamdream.cli.argument_parser import FILE_FIELDS, Parser, add_run_flags, add_settings, resolve
from streamdream.cli.output import print_report, show_log
from streamdream.dream.field_check import check_field
from streamdream.errors import SourceError, UsageError
from streamdream.settings import DreamSettings, RenderSettings, Run, StreamSettings, ZoomSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STILL_PRESET, ZOOM_PRESET = "still", "zoom"
"""The presets that apply when none is named."""
ZOOM_SECONDS = 10
"""Length of a zoom without -t."""
VIDEO_SPAN_FIELDS = ("start", "end", "hwaccel", *FILE_FIELDS)


def image_command(parser: Parser, argv: Sequence[str]) -> int:
    """dream one picture, over many octaves, or zoom into it

    streamdream image photo.jpg -o dream.png
    streamdream image photo.jpg -o dream.png --layers mixed5 --octaves 5
    streamdream image photo.jpg -o zoom.mp4 --zoom 1.03 --rotate 0.5 -t 20
    """
    parser.add_argument("input", nargs="?", help="a picture: JPEG, PNG, WebP, AVIF, HEIC, TIFF, ...")
    parser.add_argument("-o", "--output", help="the dreamed picture, .png, .jpg or .webp; or a video that "
                                               "zooms into it, .mp4")
    add_run_flags(parser)
    add_settings(parser, DreamSettings, StreamSettings, ZoomSettings, RenderSettings, without=VIDEO_SPAN_FIELDS)
    args = parser.parse(argv)
    moving = bool(args.output) and _is_video(args.output)
    run = resolve(args, ZOOM_PRESET if moving else STILL_PRESET)
    if args.print_config:
        groups = (run.dream, run.stream, run.zoom, run.render) if moving else (run.dream, run.stream)
        print(settings.to_toml(groups), end="")
        return 0
    parser.require(args, input="a file", output="-o dream.png")
    path_conflicts.check(args, run)
    check_layers(run.dream, run.stream.model)  # before PyTorch is loaded, which takes seconds
    return _zoom(args, run) if moving else _image(args, run)


def _is_video(output: str) -> bool:
    from streamdream.media import images
    from streamdream.media.sinks import registry

    if Path(output).suffix.lower() in images.WRITABLE and "%" not in output:
        return False
    return any(kind.matches(output) for kind in registry.SINKS.values())


def _read_input(path: str, as_json: bool, keep_alpha: bool = False
                ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """The picture [H, W, 3] and, with ``keep_alpha``, its transparency [H, W], if it has one."""
    from streamdream.media import images
    from streamdream.media.picture_decoder import read_picture

    show_log(as_json)
    try:
        if not keep_alpha:
            return images.read_image(path), None
        picture = read_picture(path)
    except SourceError as error:
        raise SourceError(f"{error}; for a video: streamdream render") from None
    images.log_notes(path, picture)
    return picture.image, picture.alpha


def _image(args: argparse.Namespace, run: Run) -> int:
    from streamdream.cli.progress import Progress
    from streamdream.dream import reference_images
    from streamdream.media import images
    from streamdream.render import recipe

    for group in (ZoomSettings, RenderSettings):
        for item in dataclasses.fields(group):
            if item.name in vars(args):
                raise UsageError(f"{settings_fields.flag(item)} is for videos, but {args.output} is a picture: "
                                 "-o zoom.mp4")
    images.check_output(args.output, args.overwrite, args.input)
    image, alpha = _read_input(args.input, args.json, Path(args.output).suffix.lower() in images.WITH_ALPHA)
    reference_images.read(run.dream)  # before PyTorch is loaded
    check_field(run, *image.shape[:2])
    total = (1 + run.dream.warmup_steps) * run.dream.octaves * run.dream.steps
    with Progress(f"{args.input} → {args.output}", total, "steps", args.json) as progress:
        from streamdream.dream.build import build_dreamer
        from streamdream.dream.dreamer import DreamState
        from streamdream.render.report import summarize

        dreamer = build_dreamer(run.stream)
        options = dataclasses.replace(dreamer.options, on_step=progress.update)
        state, dreamed = dreamer(DreamState(), image, run.dream, options=options)
        text = recipe.compose(dreamer, (run.dream, run.stream))
        images.write_image(args.output, dreamed, overwrite=args.overwrite, recipe=text, alpha=alpha)
    report = summarize(dreamer, options, run.dream, image.shape[:2], state.index, [])
    print_report(report, args.input, args.output, args.json)
    return 0


def _zoom(args: argparse.Namespace, run: Run) -> int:
    from streamdream.cli.progress import Progress
    from streamdream.dream import reference_images
    from streamdream.dream.build import build_dreamer
    from streamdream.media.sinks.registry import open_sink
    from streamdream.render import recipe
    from streamdream.render.zoom import StillSource, ZoomTransform, zoom

    reference_images.read(run.dream)
    ZoomTransform(run.zoom)  # checks --shift before PyTorch is loaded
    if not run.render.duration:
        raise UsageError("-t is 0: there is nothing to render")
    seconds = ZOOM_SECONDS if run.render.duration == float("inf") else run.render.duration
    source = StillSource(args.input, _read_input(args.input, args.json)[0], run.zoom.fps, seconds)
    check_field(run, source.height, source.width)
    dreamer = cache(partial(build_dreamer, run.stream))  # loads PyTorch, so it is called when the output was checked
    groups = (run.dream, run.stream, run.zoom, run.render)
    with (open_sink(args.output, source, run.render, args.overwrite,
                    recipe=lambda: recipe.compose(dreamer(), groups)) as sink,
          Progress(f"{args.input} → {args.output}", source.frame_count, "frames", args.json) as progress):
        report = zoom(source, sink, dreamer(), run.dream, run.zoom, progress.update)
    print_report(report, args.input, args.output, args.json)
    return 0
