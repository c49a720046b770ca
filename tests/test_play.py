"""What turns the knobs by itself: playlists, fades, stillness, the sound, recorded tracks; live and rendered."""
from __future__ import annotations

import json
import threading
import time
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_bench.live import Numbered
from support.clips import Clip, make
from support.commands import fails, here
from support.live_runs import images

from streamdream.automation.automation import Automation, Crossfade, PlaylistEntry, parse_playlist
from streamdream.automation.controls import Controls, DreamRequest
from streamdream.automation.settings_track import SettingsEvent, SettingsRecorder, read_track
from streamdream.backends import Backend
from streamdream.dream import warp
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import StreamdreamError
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.media.audio_level import BLOCK, HZ, FileLevel, LevelMeter, open_sound
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.video import open_source
from streamdream.models import get
from streamdream.render import pipeline
from streamdream.settings import DreamSettings

SETTINGS = DreamSettings(warmup_steps=0)


def frame(seconds: float, level: int = 0) -> Frame:
    return Frame(np.full((96, 160, 3), level, np.uint8), seconds)


def decode(path: Path) -> list[NDArray[np.uint8]]:
    with open_source(str(path)) as source:
        return [frame.image for frame in source]


# --- playlists and fades ----------------------------------------------------------------------------------------------

def test_a_playlist_is_read() -> None:
    entries = parse_playlist("mixed3@20; mixed4:1,mixed5:0.5 strength=1.5 @ 1:30 ;conv2d_3", 7)
    assert entries == (
        PlaylistEntry({"layers": "mixed3"}, 20),
        PlaylistEntry({"layers": "mixed4:1,mixed5:0.5", "strength": 1.5}, 90),
        PlaylistEntry({"layers": "conv2d_3"}, 7),
    )


@pytest.mark.parametrize(("text", "words"), [
    ("mixed3@soon", "mixed3@soon"), ("mixed3@0", "an entry is as"), ("@3", "an entry is as"),
    ("mixed3 strenght=2", "did you mean strength"), ("mixed3 strength=much", "must be a number")])
def test_a_playlist_that_is_wrong_is_one_line(text: str, words: str) -> None:
    with pytest.raises(StreamdreamError, match=words):
        parse_playlist(text, 5)


def test_a_playlist_plays_and_begins_again_and_leaves_what_is_changed_by_hand() -> None:
    controls = Controls(SETTINGS)
    play = Automation(controls, parse_playlist("mixed0@2; mixed1@1", 1))
    heard = []
    for number in range(14):
        play.on_frame(frame(number / 2))
        if number == 1:
            controls.change({"layers": "conv2d_3"})
        heard.append(controls.current().layers)
    assert heard == ["mixed0", "conv2d_3", "conv2d_3", "conv2d_3", "mixed1", "mixed1"] + ["mixed0"] * 4 + [
        "mixed1", "mixed1", "mixed0", "mixed0"]


def test_a_fade_hands_over_turn_by_turn() -> None:
    fade, old, new = (
        Crossfade(2.0),
        DreamRequest(SETTINGS),
        DreamRequest(replace(SETTINGS, layers="mixed0", strength=2.0)),
    )
    assert fade.select(old, 0.0) is old
    picked = [fade.select(new, 1.0 + number / 50) for number in range(150)]
    chosen = np.array([wish.dream.layers == "mixed0" for wish in picked])
    assert 0 < chosen[:25].mean() < 0.2 < chosen[40:60].mean() < 0.6 < chosen[80:100].mean() and chosen[101:].all()
    assert all(wish.dream.strength == 2.0 for wish in picked)  # what is not a matter of substance acts at once


def test_without_a_fade_a_change_acts_at_once() -> None:
    fade = Crossfade(0.0)
    fade.select(DreamRequest(SETTINGS), 0.0)
    assert fade.select(DreamRequest(replace(SETTINGS, layers="mixed0")), 0.1).dream.layers == "mixed0"


def test_stillness_dreams_and_motion_clears() -> None:
    flow = np.zeros((8, 8, 2), np.float32)
    flow[:, 4:] = 3, 4
    still = warp.stillness_mask(flow, 5.0)
    assert (still[:, :4] == 1).all() and still[:, 4:] == pytest.approx(np.exp(-1))


def test_where_it_moves_the_dream_is_cleared(eager: Backend) -> None:
    """A textured picture whose right half slides: with stillness on, the dream there stays thin."""
    random = np.random.default_rng(0)
    texture = np.kron(random.integers(0, 255, (24, 80, 3), np.uint8), np.ones((4, 4, 1), np.uint8))

    def dreamed(stillness: float) -> tuple[float, float]:
        settings = replace(SETTINGS, stillness=stillness, octaves=1, trust="full", cut=0.0)
        dreamer, state = Dreamer(get("inception_v3"), eager, 0), None
        for number in range(12):
            image = texture[:, :160].copy()
            image[:, 80:] = texture[:, 80 + 3 * number:160 + 3 * number]
            from streamdream.dream.dreamer import DreamState
            state = dreamer.advance(state or DreamState(), image, settings)
        assert state is not None and state.residual is not None
        size = np.abs(state.residual)
        return float(size[:, 8:64].mean()), float(size[:, 100:150].mean())

    (still_off, moving_off), (still_on, moving_on) = dreamed(0), dreamed(1.0)
    assert still_on == pytest.approx(still_off, rel=0.15)
    assert moving_on < 0.5 * moving_off


def test_another_network_is_prepared_while_the_first_one_dreams(eager: Backend, tmp_path: Path) -> None:
    """Both are dreamed with, no frame waits for the new one, and one that cannot be had is taken back."""
    settings = replace(SETTINGS, octaves=1)
    controls = Controls(settings, model="inception_v3")
    seen: list[str] = []
    enough: list[int] = []
    dreamers = {name: Dreamer(get("inception_v3"), eager, 96) for name in ("inception_v3", "other")}
    for name, dreamer in dreamers.items():
        advance = dreamer.advance

        def note(*args: object, name: str = name, advance: object = advance, **options: object) -> object:
            seen.append(name)
            return advance(*args, **options)  # type: ignore[operator]

        dreamer.advance = note  # type: ignore[method-assign,assignment]

    def build(model: str) -> Dreamer:
        if model == "missing":
            raise StreamdreamError("it is nowhere")
        enough.append(len(seen) + 4)
        deadline = time.monotonic() + 2
        while len(seen) < enough[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        return dreamers[model]

    run = Live(
        Numbered(images(), 30, 7.0),
        NullSink(),
        dreamers["inception_v3"],
        ResolutionController(96, 12, fixed=True),
        controls,
        automation=Automation(controls, fade=3.0),
        build=build,
    )
    timers = [threading.Timer(0.5, controls.change, ({"model": "other", "layers": "mixed0"},)),
              threading.Timer(4.5, controls.change, ({"model": "missing"},))]
    for timer in timers:
        timer.start()
    report = run.run()
    switch = seen.index("other")
    assert switch >= enough[0] and "inception_v3" in seen[switch:] and set(seen[-5:]) == {"other"}
    assert report.longest_gap_ms < 1000 and controls.request.model == "other" and report.layers == "mixed0"


# --- sound ------------------------------------------------------------------------------------------------------------

def blocks(hertz: float, loudness: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
    """A sine whose loudness is given for each block."""
    time = np.arange(len(loudness) * BLOCK) / HZ
    samples = np.sin(2 * np.pi * hertz * time) * np.repeat(loudness, BLOCK)
    return iter(samples.astype(np.float32).reshape(-1, BLOCK))


def test_the_level_follows_the_loudness_of_its_band() -> None:
    loudness = np.repeat([0.0001, 0.5, 0.0001, 0.25], 50)  # a second of each
    levels = {}
    for band in ("all", "bass", "treble"):
        meter = LevelMeter(band)
        levels[band] = np.array([meter.add(block) for block in blocks(80, loudness)])
    quiet, loud, again = levels["bass"][40:50].max(), levels["bass"][90:100].min(), levels["bass"][145]
    assert quiet < 0.1 and loud > 0.9 and again < 0.2 and 0.6 < levels["bass"][195] <= 1
    assert levels["all"][95] > 0.9 and levels["treble"].max() < 0.1
    assert np.abs(np.diff(levels["bass"])).max() < 0.7  # smoothed


def test_a_quiet_piece_counts_after_a_loud_one_and_silence_never() -> None:
    meter = LevelMeter()
    loudness = np.concatenate([np.full(50, 0.9), np.full(1500, 0.02), np.full(3000, 0.0)])
    levels = np.array([meter.add(block) for block in blocks(440, loudness)])
    assert levels[60:90].max() < levels[1500] and levels[1500] > 0.8 and levels[-1] == pytest.approx(0, abs=1e-3)


def write_beats(path: Path, seconds: int) -> None:
    """One second loud, one silent, and so on."""
    time = np.arange(seconds * 44_100) / 44_100
    samples = np.sin(2 * np.pi * 220 * time) * (time.astype(int) % 2 == 0) * 20_000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(samples.astype("<i2").tobytes())


def test_a_files_sound_has_its_level_at_each_time_and_is_looped(tmp_path: Path) -> None:
    write_beats(tmp_path / "beats.wav", 4)
    sound = FileLevel(str(tmp_path / "beats.wav"))
    levels = [sound.level(seconds) for seconds in (0.5, 1.9, 2.5, 3.9, 4.5, 5.9, 400.5)]
    sound.close()
    assert [level > 0.5 for level in levels] == [True, False, True, False, True, False, True]


def test_the_strength_follows_the_sound(tmp_path: Path) -> None:
    write_beats(tmp_path / "beats.wav", 2)
    sound = FileLevel(str(tmp_path / "beats.wav"))
    play = Automation(Controls(SETTINGS), sound=sound, sound_depth=0.8)
    loud, silent = play.display_settings_at(0.6).strength, play.display_settings_at(1.9).strength
    play.close()
    assert 1.6 < loud <= 1.8 and 0.19 < silent < 0.4 and play.controls.current().strength == 1


def test_no_sound_is_one_clear_line(tmp_path: Path) -> None:
    make(tmp_path / "mute.mp4", Clip(frames=4, size=(64, 48), audio=None))
    with pytest.raises(StreamdreamError, match="has no sound"):
        open_sound("source", str(tmp_path / "mute.mp4"), "all")
    with pytest.raises(StreamdreamError, match="needs a file, and webcam:0 is none"):
        open_sound("source", "webcam:0", "all")
    with pytest.raises(StreamdreamError, match=r"no such file: .*gone\.wav"):
        open_sound(str(tmp_path / "gone.wav"), "webcam:0", "all")


# --- tracks -----------------------------------------------------------------------------------------------------------

def test_what_is_played_comes_back_as_it_was(tmp_path: Path) -> None:
    path, controls = tmp_path / "show.jsonl", Controls(SETTINGS, model="inception_v3")
    with SettingsRecorder(str(path)) as recorder:
        play = Automation(controls, recorder=recorder)
        for number in range(40):
            if number == 10:
                controls.change({"layers": "mixed0", "strength": 2})
            if number == 20:
                controls.frozen = True
            if number == 30:
                controls.frozen = False
                controls.reset()
            play.on_frame(frame(number / 10))
        assert not path.exists()  # not before it is whole
    assert len(path.read_text().splitlines()) == 4
    again = Controls(DreamSettings(layers="mixed5", strength=0.1), model="inception_v3")
    replay, seen = Automation(again, track=read_track(str(path))), []
    for number in range(40):
        replay.on_frame(frame(number / 10))
        seen.append((again.current().layers, again.current().strength, again.frozen, again.resets))
    assert seen == ([("mixed3", 1, False, 0)] * 10 + [("mixed0", 2, False, 0)] * 10 + [("mixed0", 2, True, 0)] * 10
                    + [("mixed0", 2, False, 1)] * 10)


def test_a_frozen_picture_is_held_while_its_time_goes_on() -> None:
    controls = Controls(SETTINGS)
    play, seen = Automation(controls), []
    for number in range(4):
        controls.frozen = number in (1, 2)
        seen.append(play.on_frame(frame(number, 10 * number)))
    assert [(shown.image[0, 0, 0], shown.pts_seconds) for shown in seen] == [(0, 0), (10, 1), (10, 2), (30, 3)]


@pytest.mark.parametrize(("text", "words"), [
    ("", "is empty"), ("nonsense", "line 1: it is not as"), ('{"seconds": 1}', "line 1: it is no track"),
    ('{"format": "streamdream settings 1"}\n{"set": {}}', "line 2: it is not as"),
    ('{"format": "streamdream settings 1"}\n{"seconds": 2}\n{"seconds": 1}', "line 3: time goes backward")])
def test_a_damaged_track_says_where(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(StreamdreamError, match=words):
        read_track(str(tmp_path / "a.jsonl"))


def test_a_render_follows_its_play(eager: Backend, tmp_path: Path) -> None:
    """A track that sets the strength to 0 in the middle leaves those frames alone; one network fades to another."""
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


def test_a_show_is_recorded_and_rendered_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a.mp4", Clip(frames=45, size=(160, 96)))
    track = tmp_path / "show.jsonl"
    live = here(capsys, 
        "live",
        "--source",
        str(tmp_path / "a.mp4"),
        "--no-loop",
        "--sink",
        "null",
        "--record-settings",
        str(track),
        "--playlist",
        "mixed0@0.5; conv2d_3 strength=0@0.5",
        "--cut",
        "0",
        "--warmup-steps",
        "0",
        "--json",
    )
    assert live.returncode == 0, live.stderr
    events = [json.loads(line) for line in track.read_text().splitlines()]
    assert [event["set"]["layers"] for event in events] == ["mixed0", "conv2d_3", "mixed0"]
    assert [event.get("seconds") for event in events] == [None, pytest.approx(0.5, abs=0.04),
                                                          pytest.approx(1, abs=0.04)]
    again = here(capsys, "render", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.mp4"), "--settings-track",
                        str(track), "--backend", "eager")
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


def test_a_render_that_follows_its_sound_breathes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Silence and noise by turns: the frames of the loud half carry more of the dream."""
    make(tmp_path / "a.mp4", Clip(frames=60, size=(160, 96)))
    write_beats(tmp_path / "beats.wav", 2)
    result = here(capsys, 
        "render",
        str(tmp_path / "a.mp4"),
        "-o",
        str(tmp_path / "b.mp4"),
        "--sound",
        str(tmp_path / "beats.wav"),
        "--sound-depth",
        "1",
        "--cut",
        "0",
        "--warmup-steps",
        "0",
        "--backend",
        "eager",
    )
    assert result.returncode == 0, result.stderr
    before, after = decode(tmp_path / "a.mp4"), decode(tmp_path / "b.mp4")
    size = [float(np.abs(a.astype(int) - b).mean()) for a, b in zip(before, after, strict=True)]
    assert np.mean(size[15:28]) > 2 * np.mean(size[48:60])


