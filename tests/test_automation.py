"""Settings that change over time: playlists, crossfades, sound, recorded tracks; in live runs and renders."""
from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import Clip, make
from support.commands import fails, here
from support.sounds import write_beats

from streamdream.ascent import objectives
from streamdream.automation.automation import Automation, Crossfade, PlaylistEntry, parse_playlist
from streamdream.automation.controls import Controls, DreamRequest
from streamdream.automation.journey import journey
from streamdream.automation.settings_track import SettingsEvent, SettingsRecorder, read_track
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import StreamdreamError
from streamdream.media.audio_level import FileLevel
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.video import open_source
from streamdream.models import get
from streamdream.render import pipeline
from streamdream.settings import DreamSettings
from streamdream.settings_parsing import parse_layers

SETTINGS = DreamSettings(warmup_steps=0)


def frame(seconds: float, level: int = 0) -> Frame:
    return Frame(np.full((96, 160, 3), level, np.uint8), seconds)


def decode(path: Path) -> list[NDArray[np.uint8]]:
    with open_source(str(path)) as source:
        return [frame.image for frame in source]


# --- playlists and crossfades -----------------------------------------------------------------------------------------

def test_a_playlist_is_parsed() -> None:
    spaced, = parse_playlist("mixed5[33, 220]:1, mixed3:0.5 strength=2", 7)
    assert spaced.values == {"layers": "mixed5[33, 220]:1, mixed3:0.5", "strength": 2}
    entries = parse_playlist("mixed3@20; mixed4:1,mixed5:0.5 strength=1.5 @ 1:30 ;conv2d_3", 7)
    assert entries == (
        PlaylistEntry({"layers": "mixed3"}, 20),
        PlaylistEntry({"layers": "mixed4:1,mixed5:0.5", "strength": 1.5}, 90),
        PlaylistEntry({"layers": "conv2d_3"}, 7),
    )


@pytest.mark.parametrize(("text", "words"), [
    ("mixed3@soon", "mixed3@soon"), ("mixed3@0", "an entry is as"), ("@3", "an entry is as"),
    ("mixed3 strenght=2", "did you mean strength"), ("mixed3 strength=much", "must be a number")])
def test_an_invalid_playlist_is_one_error_line(text: str, words: str) -> None:
    with pytest.raises(StreamdreamError, match=words):
        parse_playlist(text, 5)


def test_a_playlist_repeats_and_keeps_a_manual_change_until_its_next_entry() -> None:
    controls = Controls(SETTINGS)
    automation = Automation(controls, parse_playlist("mixed0@2; mixed1@1", 1))
    layers = []
    for number in range(14):
        automation.on_frame(frame(number / 2))
        if number == 1:
            controls.change({"layers": "conv2d_3"})
        layers.append(controls.current().layers)
    assert layers == ["mixed0", "conv2d_3", "conv2d_3", "conv2d_3", "mixed1", "mixed1"] + ["mixed0"] * 4 + [
        "mixed1", "mixed1", "mixed0", "mixed0"]


def test_a_crossfade_mixes_layers_of_one_network_and_goes_on_from_the_middle_of_another() -> None:
    fade, old = Crossfade(2.0), DreamRequest(replace(SETTINGS, layers="conv2d_2"), "inception_v3")
    new = DreamRequest(replace(SETTINGS, layers="conv2d_3", channel="5"), "inception_v3")
    last = DreamRequest(replace(SETTINGS, layers="conv2d_4"), "inception_v3")
    assert fade.select(old, 0.0) is old
    assert fade.select(new, 1.0).dream.layers == "conv2d_2:1"
    mixed = [parse_layers(fade.select(new, 1 + number / 20).dream.layers) for number in range(1, 25)]
    shares = [{layer.name: layer.weight for layer in layers} for layers in mixed]
    ratios = [share["conv2d_3"] / share["conv2d_2"] for share in shares]
    assert ratios == sorted(ratios) and ratios[-1] > 10 * ratios[0] > 0
    assert {layer.channels for layers in mixed for layer in layers if layer.name == "conv2d_3"} == {(5,)}
    begun = fade.select(last, 2.3)
    assert {"conv2d_2", "conv2d_3"} <= {layer.name for layer in parse_layers(begun.dream.layers)}
    assert fade.select(last, 4.4) is last


def test_a_journey_goes_through_every_block_up_and_down_and_never_rests() -> None:
    entries = journey("inception_v3", 120)
    stops = [str(entry.values["layers"]) for entry in entries]
    blocks = [stop.partition("[")[0] for stop in stops]
    assert sum(entry.seconds for entry in entries) == pytest.approx(120)
    assert list(dict.fromkeys(blocks)) == get("inception_v3").blocks() and blocks[-1] == "mixed1"
    assert len(set(stops)) == 24 and all(objectives.from_settings(DreamSettings(layers=stop), get("inception_v3"))
                                         for stop in stops)
    controls = Controls(DreamSettings(), model="inception_v3")
    automation = Automation(controls, entries, fade=entries[0].seconds)
    seen = []
    for number in range(14):
        automation.on_frame(frame(number))
        seen.append(automation.dream_request_at(number).dream.layers)
    assert len(set(seen[5:])) > 6  # after the first stop, another mixture in nearly each second


def test_a_journey_of_an_instant_is_one_error_line() -> None:
    with pytest.raises(StreamdreamError, match="stops, which take 18 seconds or more"):
        journey("inception_v3", 3)


def test_a_crossfade_between_networks_gives_the_new_one_ever_more_frames() -> None:
    fade, old = Crossfade(2.0), DreamRequest(SETTINGS, "inception_v3")
    new = DreamRequest(replace(SETTINGS, layers="mixed0", strength=2.0), "inception5h")
    assert fade.select(old, 0.0) is old
    selected = [fade.select(new, 1.0 + number / 50) for number in range(150)]
    is_new = np.array([request.dream.layers == "mixed0" for request in selected])
    assert 0 < is_new[:25].mean() < 0.2 < is_new[40:60].mean() < 0.6 < is_new[80:100].mean() and is_new[101:].all()
    assert all(request.dream.strength == 2.0 for request in selected)  # only layers and network fade


def test_without_a_crossfade_a_change_applies_at_once() -> None:
    fade = Crossfade(0.0)
    fade.select(DreamRequest(SETTINGS), 0.0)
    assert fade.select(DreamRequest(replace(SETTINGS, layers="mixed0")), 0.1).dream.layers == "mixed0"


def test_the_strength_follows_the_sound(tmp_path: Path) -> None:
    write_beats(tmp_path / "beats.wav", 2)
    sound = FileLevel(str(tmp_path / "beats.wav"))
    automation = Automation(Controls(SETTINGS), sound=sound, sound_depth=0.8)
    loud, silent = automation.display_settings_at(0.6).strength, automation.display_settings_at(1.9).strength
    automation.close()
    assert 1.6 < loud <= 1.8 and 0.19 < silent < 0.4 and automation.controls.current().strength == 1


# --- tracks -----------------------------------------------------------------------------------------------------------

def test_a_recorded_track_replays_each_change_at_its_time(tmp_path: Path) -> None:
    path, controls = tmp_path / "track.jsonl", Controls(SETTINGS, model="inception_v3")
    with SettingsRecorder(str(path)) as recorder:
        automation = Automation(controls, recorder=recorder)
        for number in range(40):
            if number == 10:
                controls.change({"layers": "mixed0", "strength": 2})
            if number == 20:
                controls.frozen = True
            if number == 30:
                controls.frozen = False
                controls.reset()
            automation.on_frame(frame(number / 10))
        assert not path.exists()  # it appears when it is complete
    assert len(path.read_text().splitlines()) == 4
    replayed = Controls(DreamSettings(layers="mixed5", strength=0.1), model="inception_v3")
    replay, seen = Automation(replayed, track=read_track(str(path))), []
    for number in range(40):
        replay.on_frame(frame(number / 10))
        seen.append((replayed.current().layers, replayed.current().strength, replayed.frozen, replayed.resets))
    assert seen == ([(SETTINGS.layers, 1, False, 0)] * 10 + [("mixed0", 2, False, 0)] * 10
                    + [("mixed0", 2, True, 0)] * 10 + [("mixed0", 2, False, 1)] * 10)


def test_a_frozen_picture_is_repeated_with_new_times() -> None:
    controls = Controls(SETTINGS)
    automation, seen = Automation(controls), []
    for number in range(4):
        controls.frozen = number in (1, 2)
        seen.append(automation.on_frame(frame(number, 10 * number)))
    assert [(shown.image[0, 0, 0], shown.pts_seconds) for shown in seen] == [(0, 0), (10, 1), (10, 2), (30, 3)]


@pytest.mark.parametrize(("text", "words"), [
    ("", "is empty"), ("nonsense", "line 1: it is not as"), ('{"seconds": 1}', "line 1: it is no track"),
    ('{"format": "streamdream settings 1"}\n{"set": {}}', "line 2: it is not as"),
    ('{"format": "streamdream settings 1"}\n{"seconds": 2}\n{"seconds": 1}', "line 3: time goes backward")])
def test_a_damaged_track_names_the_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(StreamdreamError, match=words):
        read_track(str(tmp_path / "a.jsonl"))


def test_a_render_follows_a_track_and_changes_the_network(eager: Backend, tmp_path: Path) -> None:
    """A track that sets the strength to 0 in the middle leaves those frames unchanged."""
    make(tmp_path / "a.mp4", Clip(frames=12, size=(160, 96)))
    kept: list[NDArray[np.uint8]] = []

    class Keeps(NullSink):
        def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
            kept.append(image)

    controls = Controls(SETTINGS, model="inception_v3")
    track = [SettingsEvent(0.1, {"strength": 0.0}), SettingsEvent(0.3, {"strength": 1.0, "model": "other"})]
    built = []
    originals = decode(tmp_path / "a.mp4")
    with open_source(str(tmp_path / "a.mp4")) as source:
        report = pipeline.render_video(
            source,
            Keeps(),
            Dreamer(get("inception_v3"), eager, 96),
            Automation(controls, track=track),
            build=lambda name: built.append(name) or Dreamer(get("inception_v3"), eager, 96),  # type: ignore[func-returns-value]
        )
    changed = [np.abs(a.astype(int) - b).mean() > 0.5 for a, b in zip(kept, originals, strict=True)]
    assert changed == [number < 3 or number >= 9 for number in range(12)] and report.frames == 12 and built == ["other"]


def test_a_live_run_is_recorded_and_rendered_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a.mp4", Clip(frames=45, size=(160, 96)))
    track = tmp_path / "track.jsonl"
    live = here(capsys, "live", "--source", tmp_path / "a.mp4", "--no-loop", "--sink", "null",
                "--record-settings", track, "--playlist", "mixed0@0.5; conv2d_3 strength=0@0.5", "--cut", 0,
                "--warmup-steps", 0, "--json")
    assert live.returncode == 0, live.stderr
    events = [json.loads(line) for line in track.read_text().splitlines()]
    assert [event["set"]["layers"] for event in events] == ["mixed0", "conv2d_3", "mixed0"]
    assert [event.get("seconds") for event in events] == [None, pytest.approx(0.5, abs=0.04),
                                                          pytest.approx(1, abs=0.04)]
    again = here(capsys, "render", tmp_path / "a.mp4", "-o", tmp_path / "b.mp4", "--settings-track", track,
                 "--backend", "eager")
    assert again.returncode == 0, again.stderr
    before, after = decode(tmp_path / "a.mp4"), decode(tmp_path / "b.mp4")
    difference = [float(np.abs(a.astype(int) - b).mean()) for a, b in zip(before, after, strict=True)]
    assert max(difference[18:29]) < 3 < min(difference[33:])
    fails(here(capsys, "live", "--source", tmp_path / "a.mp4", "--sink", "null", "--record-settings", track), 2,
          "exists; -y overwrites it")
    fails(here(capsys, "render", tmp_path / "a.mp4", "-o", "null", "--settings-track", track, "--playlist", "mixed3"),
          2, "exclude each other")
    fails(here(capsys, "live", "--source", "lavfi:testsrc2", "--sink", "null", "--playlist", "mixed3; mixed99"), 2,
          "unknown layer 'mixed99'")


def test_a_rendered_dream_is_stronger_where_the_sound_is_loud(tmp_path: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a.mp4", Clip(frames=20, size=(160, 96), rate=Fraction(10), time_base=Fraction(1, 10)))
    write_beats(tmp_path / "beats.wav", 2)
    result = here(capsys, "render", tmp_path / "a.mp4", "-o", tmp_path / "b.mp4", "--sound", tmp_path / "beats.wav",
                  "--sound-depth", 1, "--cut", 0, "--warmup-steps", 0, "--backend", "eager")
    assert result.returncode == 0, result.stderr
    before, after = decode(tmp_path / "a.mp4"), decode(tmp_path / "b.mp4")
    size = [float(np.abs(a.astype(int) - b).mean()) for a, b in zip(before, after, strict=True)]
    assert np.mean(size[5:9]) > 2 * np.mean(size[16:])
