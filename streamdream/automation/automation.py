"""Change settings over time: playlists, crossfades, the audio level, recorded tracks.

Live runs and renders use an ``Automation`` alike. They call ``on_frame`` once for each frame, in order; then
``dream_request_at`` returns what to dream at a time, ``display_settings_at`` how to show it.
"""
from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from streamdream import settings, settings_fields, settings_parsing
from streamdream.automation.controls import CROSSFADED_FIELDS, Controls, DreamRequest
from streamdream.automation.forgetting import Forgetting
from streamdream.errors import SettingsError
from streamdream.settings import DreamSettings

if TYPE_CHECKING:

    from streamdream.automation.settings_track import SettingsEvent, SettingsRecorder
    from streamdream.media.audio_level import LevelSource
    from streamdream.media.frame import Frame


@dataclass(frozen=True)
class PlaylistEntry:
    """Settings that apply for a number of seconds."""

    values: dict[str, Any]
    seconds: float


def parse_playlist(text: str, seconds: float) -> tuple[PlaylistEntry, ...]:
    """Parse entries such as ``mixed3@20; mixed4:1,mixed5:0.5 strength=1.5``. Raises SettingsError or UnknownName.

    ``seconds`` is the duration of an entry that has none.
    """
    known = {item.name: item for item in fields(DreamSettings)}
    entries = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        words, _, time = part.partition("@")
        values: dict[str, Any] = {}
        split = words.split()
        layers = " ".join(word for word in split if "=" not in word)  # may have spaces after its commas
        for word in [f"layers={layers}"] * bool(layers) + [word for word in split if "=" in word]:
            name, _, value = word.partition("=")
            values[name] = settings_fields.parse(settings.field_named(name, "setting in --playlist,", known), value)
        try:
            duration = settings_parsing.parse_seconds(time) if time else seconds
        except ValueError:
            duration = 0.0
        if duration <= 0 or not values:
            raise SettingsError(f"--playlist has {part!r}, but an entry is as 'mixed3' or 'mixed4:1,mixed5:0.5 "
                                "strength=1.5@30'")
        entries.append(PlaylistEntry(values, duration))
    return tuple(entries)


class Crossfade:
    """Fades from one dream to the next: layers of one network are mixed, so that the new shapes grow out of the old.

    Where that is impossible, with another network, guide or style, one of the two is selected for each frame, the new
    one more and more often; both add to the same residual, which so changes gradually.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._old: DreamRequest | None = None
        self._new: DreamRequest | None = None
        self._mixed_layers = ""  # of the last frame, while layers are mixed
        self._start_seconds = 0.0
        self._credit = 0.0  # fraction of a frame due to the new dream

    def select(self, request: DreamRequest, seconds: float) -> DreamRequest:
        """Return what to dream at that time: ``request``, or its copy with content between it and the previous one."""
        if self._new is None or content_key(request) != content_key(self._new):
            self._old = self._new
            if self._old is not None and self._mixed_layers and seconds < self._start_seconds + self._seconds:
                self._old = _with_content(self._old, layers=self._mixed_layers, channel="")
            self._start_seconds, self._credit = seconds, 0.0
        self._new = request
        elapsed = seconds - self._start_seconds
        if self._old is None or not 0 <= elapsed < self._seconds:
            self._old, self._mixed_layers = None, ""
            return request
        if _can_mix(self._old, request):
            return self._mix(self._old, request, elapsed / self._seconds)
        self._mixed_layers = ""
        self._credit += elapsed / self._seconds
        if self._credit >= 1:
            self._credit -= 1
            return request
        old_content = {name: getattr(self._old.dream, name) for name in CROSSFADED_FIELDS}
        return replace(_with_content(request, **old_content), model=self._old.model)

    def _mix(self, old: DreamRequest, new: DreamRequest, fraction: float) -> DreamRequest:
        from streamdream import models
        from streamdream.ascent.mixing import mix_layers, with_channels

        before, after = (with_channels(item.dream.layers, item.dream.channel) for item in (old, new))
        self._mixed_layers = mix_layers(models.get(new.model), before, after, round(fraction, 3))
        return _with_content(new, layers=self._mixed_layers, channel="")


def _with_content(request: DreamRequest, **content: Any) -> DreamRequest:
    return replace(request, dream=replace(request.dream, **content))


def _can_mix(old: DreamRequest, new: DreamRequest) -> bool:
    """Whether both dream layers of one network, named, and differ in nothing else that is faded."""
    same = (old.model, old.dream.style, old.dream.style_weight, old.dream.style_layers) == (
        new.model, new.dream.style, new.dream.style_weight, new.dream.style_layers)
    return same and bool(new.model) and not (old.dream.guide or new.dream.guide)


def content_key(request: DreamRequest) -> tuple[Any, ...]:
    """Return model and crossfaded settings; requests with equal keys differ only in settings that act at once."""
    return (request.model, *(getattr(request.dream, name) for name in CROSSFADED_FIELDS))


class Automation:
    """Changes the settings of ``controls``. ``offset`` is the start time of the run in the input, in seconds."""

    _playlist_start: float | None = 0.0  # time of its first entry; None: the next frame's

    def __init__(self, controls: Controls, playlist: Sequence[PlaylistEntry] = (), fade: float = 0.0,
                 sound: LevelSource | None = None, sound_depth: float = 0.5, track: Sequence[SettingsEvent] = (),
                 recorder: SettingsRecorder | None = None, offset: float = 0.0) -> None:
        self.controls = controls
        initial = {name: getattr(controls.current(), name) for entry in playlist for name in entry.values}
        # Each entry resets the settings that other entries change.
        self._playlist = [PlaylistEntry({**initial, **entry.values}, entry.seconds) for entry in playlist]
        self._entry_index = -1
        self._crossfade, self._forgetting = Crossfade(fade), Forgetting(fade)
        self._sound, self._sound_depth = sound, sound_depth
        self._track, self._applied_events = track, 0
        self._recorder, self._offset = recorder, offset
        self._frozen_frame: Frame | None = None
        self._lock = threading.Lock()

    def on_frame(self, frame: Frame) -> Frame:
        """Apply the changes that are due. Return the frame; while frozen, with the pictures of the frozen frame."""
        seconds = frame.pts_seconds + self._offset
        with self._lock:
            self._follow_playlist(seconds)
            while (self._applied_events < len(self._track)
                   and self._track[self._applied_events].seconds <= seconds + 1e-6):
                self._track[self._applied_events].apply(self.controls)
                self._applied_events += 1
            if self._recorder is not None:
                request = self.controls.request
                self._recorder.record(seconds, replace(request, dream=self.display_settings_at(frame.pts_seconds)),
                                      self.controls.frozen, self.controls.resets)
        if not self.controls.frozen:
            self._frozen_frame = None
            return frame
        self._frozen_frame = self._frozen_frame or frame
        return replace(frame, image=self._frozen_frame.image, picture=self._frozen_frame.picture)

    @property
    def frozen_frame(self) -> Frame | None:
        """The frame at which the source is frozen."""
        return self._frozen_frame

    def freeze_at(self, frame: Frame) -> None:
        """Be frozen at that frame."""
        self._frozen_frame = frame

    def dream_request_at(self, seconds: float) -> DreamRequest:
        """Return the request, crossfaded, for the frame at that time, and how much of the dream so far to keep."""
        wanted = replace(self.controls.request, dream=self.display_settings_at(seconds))
        kept = self._forgetting.kept_at(content_key(wanted), seconds)
        return replace(self._crossfade.select(wanted, seconds), kept=kept)

    def display_settings_at(self, seconds: float) -> DreamSettings:
        """Return the current settings with the strength scaled by the audio level at that time."""
        current = self.controls.current()
        if self._sound is None or not self._sound_depth:
            return current
        factor = 1 + self._sound_depth * (2 * self._sound.level(seconds + self._offset) - 1)
        strength = min(settings.maximum(DreamSettings, "strength"), round(current.strength * factor, 3))
        return replace(current, strength=strength)

    def play(self, playlist: Sequence[PlaylistEntry], fade: float = 0.0) -> None:
        """Follow another play list, from its first entry at the next frame; an empty one ends it."""
        with self._lock:
            self._playlist, self._entry_index = Automation(self.controls, playlist)._playlist, -1
            self._playlist_start, self._crossfade = None, Crossfade(fade)

    def close(self) -> None:
        if self._sound is not None:
            self._sound.close()

    def _follow_playlist(self, seconds: float) -> None:
        """Apply an entry once, when it begins; manual changes then stay until the next entry."""
        if not self._playlist:
            return
        if self._playlist_start is None:
            self._playlist_start = seconds
        position = (seconds - self._playlist_start) % sum(entry.seconds for entry in self._playlist)
        for index, entry in enumerate(self._playlist):
            if position < entry.seconds:
                if index != self._entry_index:
                    self._entry_index = index
                    self.controls.change(entry.values)
                return
            position -= entry.seconds
