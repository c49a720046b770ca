"""The flags that turn knobs by themselves, for live and render."""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.cli.flags import Parser
from streamdream.errors import ModelError, UsageError
from streamdream.settings import Run

if TYPE_CHECKING:
    from streamdream.automation.automation import Automation
    from streamdream.automation.controls import DreamRequest


def add_automation_flags(parser: Parser) -> None:
    parser.add_argument("--settings-track", default="", help="dream with the settings that --record-settings wrote")
    parser.add_argument("--record-settings", default="", help="write all settings, and when they changed, to this file")


@contextmanager
def open_automation(args: argparse.Namespace, run: Run, source_path: str, offset: float = 0.0) -> Iterator[Automation]:
    """What the flags ask for, as long as the run goes on. Raises StreamdreamError before anything is dreamed."""
    from streamdream.automation.automation import Automation, parse_playlist
    from streamdream.automation.controls import Controls
    from streamdream.automation.settings_track import SettingsRecorder, read_track
    from streamdream.media.audio_level import open_sound

    track = read_track(args.settings_track) if args.settings_track else []
    controls = Controls(run.dream, check_request, run.stream.model)
    check_request(controls.request)
    entries = parse_playlist(run.automation.playlist, run.automation.playlist_seconds)
    if track and entries:
        raise UsageError("--settings-track and --playlist both say what to dream; give one of them")
    trial = Controls(run.dream, check_request, run.stream.model)
    for values in [entry.values for entry in entries] + [event.values for event in track if event.values]:
        trial.change(values)
    with ExitStack() as stack:
        sound = None
        if run.automation.sound:
            sound = open_sound(run.automation.sound, source_path, run.automation.sound_band)
            stack.callback(sound.close)
        recorder = None
        if args.record_settings:
            if Path(args.record_settings).exists() and not args.overwrite:
                raise UsageError(f"{args.record_settings} exists; -y overwrites it")
            recorder = stack.enter_context(SettingsRecorder(args.record_settings, args.overwrite))
        yield Automation(
            controls, entries, run.automation.fade, sound, run.automation.sound_depth, track, recorder, offset
        )


def check_request(wish: DreamRequest) -> None:
    """Raises a StreamdreamError when the network lacks a layer or a channel, its weights or a picture are not here."""
    from streamdream import models
    from streamdream.ascent import objectives
    from streamdream.dream import reference_images
    from streamdream.media import images

    model = models.get(wish.model)
    objectives.from_settings(wish.dream, model)
    is_video = wish.dream.guide and not images.is_image_file(wish.dream.guide)
    reference_images.read(replace(wish.dream, guide="") if is_video else wish.dream)
    there, reason = model.available()
    if not there:
        raise ModelError(f"the weights of {wish.model} are not here: {reason}")
