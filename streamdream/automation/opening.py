"""Open what a run's settings ask for: playlist, crossfade, sound, track, recorder."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import ModelError, UsageError

if TYPE_CHECKING:
    from streamdream.automation.automation import Automation, PlaylistEntry
    from streamdream.automation.controls import DreamRequest
    from streamdream.settings import DreamSettings, Run


@dataclass(frozen=True)
class AutomationFiles:
    """Files of settings over time; "" is none."""

    settings_track: str = ""
    """Replayed."""
    record_settings: str = ""
    """Recorded; ``overwrite`` is for it."""
    overwrite: bool = False


@contextmanager
def open_automation(files: AutomationFiles, run: Run, source_path: str, offset: float = 0.0,
                    check: Callable[[DreamRequest], None] | None = None) -> Iterator[Automation]:
    """Open the automation of a run, for its duration.

    ``offset`` is the start of the run in the source, in seconds. ``check`` raises for a request that the run cannot
    dream; None is ``check_request``. Raises StreamdreamError before anything is dreamed.
    """
    from streamdream.automation.automation import Automation
    from streamdream.automation.controls import Controls
    from streamdream.automation.settings_track import SettingsRecorder, read_track
    from streamdream.media.audio_level import open_sound

    check = check or check_request
    track = read_track(files.settings_track) if files.settings_track else []
    controls = Controls(run.dream, check, run.stream.model)
    check(controls.request)
    entries, fade = _play_list(run)
    if track and entries:
        raise UsageError("--settings-track, --playlist and --journey exclude each other")
    trial = Controls(run.dream, check, run.stream.model)
    for values in [entry.values for entry in entries] + [event.values for event in track if event.values]:
        trial.change(values)
    with ExitStack() as stack:
        sound = None
        if run.automation.sound:
            sound = open_sound(run.automation.sound, source_path, run.automation.sound_band)
            stack.callback(sound.close)
        recorder = None
        if files.record_settings:
            if Path(files.record_settings).exists() and not files.overwrite:
                raise UsageError(f"{files.record_settings} exists; -y overwrites it")
            recorder = stack.enter_context(SettingsRecorder(files.record_settings, files.overwrite))
        yield Automation(
            controls, entries, fade, sound, run.automation.sound_depth, track, recorder, offset
        )


def _play_list(run: Run) -> tuple[Sequence[PlaylistEntry], float]:
    """The entries of the play list or the journey, and the seconds of a fade between them."""
    from streamdream.automation.automation import parse_playlist
    from streamdream.automation.journey import journey

    automation = run.automation
    if automation.journey:
        if automation.playlist:
            raise UsageError("--journey and --playlist exclude each other")
        entries = journey(run.stream.model, automation.journey)
        return entries, entries[0].seconds
    entries = parse_playlist(automation.playlist, automation.playlist_seconds)
    if automation.playlist and not entries:
        raise UsageError(f"--playlist {automation.playlist!r} holds no entry")
    return entries, automation.fade


def check_request(request: DreamRequest) -> None:
    """Raise StreamdreamError where the weights, a layer, a channel or an image of the request is missing."""
    from streamdream.dream import reference_images
    from streamdream.media import images

    check_layers(request.dream, request.model)
    is_video = request.dream.guide and not images.is_image_file(request.dream.guide)
    reference_images.read(replace(request.dream, guide="") if is_video else request.dream)


def check_still_guide(request: DreamRequest) -> None:
    """As ``check_request``, for a run whose guide must be a picture."""
    from streamdream.dream import reference_images

    check_layers(request.dream, request.model)
    reference_images.read(request.dream)


def check_layers(dream: DreamSettings, model_name: str) -> None:
    """Raise ModelError where the weights are missing, UsageError where a layer or a channel is; without PyTorch."""
    from streamdream import models
    from streamdream.ascent import objectives

    model = models.get(model_name)
    available, fix = model.available()
    if not available:
        raise ModelError(f"the weights of {model_name} are not installed: {fix}")
    objectives.from_settings(dream, model)
