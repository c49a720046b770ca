"""What turns the knobs by itself, along the time of the pictures: playlists, fades, the sound, a recorded track.

A live run and a render follow the same ``Play``: ``see`` once for each frame that comes, then ``request`` says what to
dream there and ``shown`` how to show it.
"""
from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from streamdream import settings
from streamdream.automation.controls import CROSSFADED_FIELDS, Controls, DreamRequest
from streamdream.errors import SettingsError
from streamdream.settings import DreamSettings

if TYPE_CHECKING:
    from streamdream.automation.settings_track import SettingsEvent, SettingsRecorder
    from streamdream.media.audio_level import LevelSource
    from streamdream.media.frame import Frame



@dataclass(frozen=True)
class PlaylistEntry:
    """Settings that hold for some seconds."""

    values: dict[str, Any]
    seconds: float


def parse_playlist(text: str, seconds: float) -> tuple[PlaylistEntry, ...]:
    """``mixed3@20; mixed4:1,mixed5:0.5 strength=1.5`` -> its entries. Raises SettingsError or UnknownName."""
    known = {item.name: item for item in fields(DreamSettings)}
    entries = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        words, _, time = part.partition("@")
        values: dict[str, Any] = {}
        for word in words.split():
            name, equals, value = word.partition("=")
            if not equals:
                name, value = "layers", word
            values[name] = settings.parse(settings.field_named(name, "setting in --playlist,", known), value)
        try:
            lasts = settings.parse_seconds(time) if time else seconds
        except ValueError:
            lasts = 0.0
        if lasts <= 0 or not values:
            raise SettingsError(f"--playlist has {part!r}, but an entry is as 'mixed3' or 'mixed4:1,mixed5:0.5 "
                                "strength=1.5@30'")
        entries.append(PlaylistEntry(values, lasts))
    return tuple(entries)


class Crossfade:
    """Turns: the newer of two dreams gets ever more of them, and the residual, in which they add up, passes over from
    one to the other. It costs no second network in memory for longer, and no step more.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._old: DreamRequest | None = None
        self._new: DreamRequest | None = None
        self._began = self._owed = 0.0

    def select(self, wish: DreamRequest, seconds: float) -> DreamRequest:
        """Whose turn it is at that time: what is wanted, or what was before."""
        if self._new is None or content_key(wish) != content_key(self._new):
            self._old, self._began, self._owed = self._new, seconds, 0.0
        self._new = wish
        if self._old is None:
            return wish
        passed = seconds - self._began
        if not 0 <= passed < self._seconds:
            self._old = None
            return wish
        self._owed += passed / self._seconds
        if self._owed >= 1:
            self._owed -= 1
            return wish
        return DreamRequest(
            replace(wish.dream, **{name: getattr(self._old.dream, name) for name in CROSSFADED_FIELDS}), self._old.model
        )


def content_key(wish: DreamRequest) -> tuple[Any, ...]:
    """What a dream is made of; equal ones differ in how they are dreamed only."""
    return (wish.model, *(getattr(wish.dream, name) for name in CROSSFADED_FIELDS))


class Automation:
    """Turns the knobs of ``controls``. ``offset`` is the time of the input at which the run begins, in seconds."""

    def __init__(self, controls: Controls, playlist: Sequence[PlaylistEntry] = (), fade: float = 0.0,
                 sound: LevelSource | None = None, sound_depth: float = 0.5, track: Sequence[SettingsEvent] = (),
                 recorder: SettingsRecorder | None = None, offset: float = 0.0) -> None:
        self.controls = controls
        named = {name: getattr(controls.current(), name) for entry in playlist for name in entry.values}
        # What another entry sets, this one sets back.
        self._playlist = [PlaylistEntry({**named, **entry.values}, entry.seconds) for entry in playlist]
        self._playing = -1
        self._fade = Crossfade(fade)
        self._sound, self._depth = sound, sound_depth
        self._track, self._replayed = track, 0
        self._recorder, self._offset = recorder, offset
        self._held: Frame | None = None
        self._lock = threading.Lock()

    def on_frame(self, frame: Frame) -> Frame:
        """What is due at its time is done; the frame, or the one that it is frozen at."""
        seconds = frame.pts_seconds + self._offset
        with self._lock:
            self._follow_playlist(seconds)
            while self._replayed < len(self._track) and self._track[self._replayed].seconds <= seconds + 1e-6:
                self._track[self._replayed].apply(self.controls)
                self._replayed += 1
            if self._recorder is not None:
                wish = self.controls.request
                self._recorder.record(seconds, replace(wish, dream=self.display_settings_at(frame.pts_seconds)),
                                    self.controls.frozen, self.controls.resets)
        if not self.controls.frozen:
            self._held = None
            return frame
        self._held = self._held or frame
        return replace(frame, image=self._held.image)

    def dream_settings_at(self, seconds: float) -> DreamRequest:
        """What to dream at that time."""
        return self._fade.select(replace(self.controls.request, dream=self.display_settings_at(seconds)), seconds)

    def display_settings_at(self, seconds: float) -> DreamSettings:
        """How the dream is shown at that time: its strength follows the sound."""
        now = self.controls.current()
        if self._sound is None or not self._depth:
            return now
        factor = 1 + self._depth * (2 * self._sound.level(seconds + self._offset) - 1)
        return replace(now, strength=min(settings.maximum(DreamSettings, "strength"), round(now.strength * factor, 3)))

    def close(self) -> None:
        if self._sound is not None:
            self._sound.close()

    def _follow_playlist(self, seconds: float) -> None:
        """An entry is set when it begins: what is changed by hand meanwhile stays until the next."""
        if not self._playlist:
            return
        at = seconds % sum(entry.seconds for entry in self._playlist)
        for number, entry in enumerate(self._playlist):
            if at < entry.seconds:
                if number != self._playing:
                    self._playing = number
                    self.controls.change(entry.values)
                return
            at -= entry.seconds
