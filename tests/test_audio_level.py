"""The loudness of a sound, 0 to 1: of its band, at a time, and where the file is damaged."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import Clip, make
from support.sounds import SAMPLE_RATE, tone, write_beats, write_wav

from streamdream.errors import StreamdreamError
from streamdream.media.audio_level import BLOCK, HZ, FileLevel, LevelMeter, open_sound


def write_tone(path: Path) -> str:
    """Write 4 s of a tone as AAC; beside it the same as .wav."""
    write_wav(path.with_suffix(".wav"), tone(4))
    with av.open(str(path.with_suffix(".wav"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("aac", rate=SAMPLE_RATE)
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return str(path)


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_sound_counts_as_silence_from_there(is_cut: bool, tmp_path: Path,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    """What was left of it was looped without a word: a run followed its first seconds for an hour."""
    path = write_tone(tmp_path / "a.mkv")
    data = bytearray((tmp_path / "a.mkv").read_bytes())
    half = len(data) // 2
    (tmp_path / "a.mkv").write_bytes(data[:half] if is_cut else data[:half] + b"\xff" * 8000 + data[half + 8000:])
    sound = FileLevel(path)
    levels = [sound.level(seconds) for seconds in (1.0, 3.0, 3.9, 5.0)]
    sound.close()
    assert [level > 0.5 for level in levels] == [True, False, False, True]  # the file is 4 s long and starts again
    assert "a.mkv is damaged after" in caplog.text and "--sound follows silence from there on" in caplog.text


def test_a_whole_sound_causes_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tone(tmp_path / "a.mkv")
    sound = FileLevel(str(tmp_path / "a.wav"))
    assert sound.level(3.9) > 0.5 and sound.level(7.9) > 0.5
    sound.close()
    assert caplog.text == ""


def blocks(hertz: float, loudness: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
    """Yield the blocks of a sine with a loudness each."""
    seconds = np.arange(len(loudness) * BLOCK) / HZ
    samples = np.sin(2 * np.pi * hertz * seconds) * np.repeat(loudness, BLOCK)
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


def test_the_level_adapts_to_a_quiet_passage_but_not_to_silence() -> None:
    meter = LevelMeter()
    loudness = np.concatenate([np.full(50, 0.9), np.full(1500, 0.02), np.full(3000, 0.0)])
    levels = np.array([meter.add(block) for block in blocks(440, loudness)])
    assert levels[60:90].max() < levels[1500] and levels[1500] > 0.8 and levels[-1] == pytest.approx(0, abs=1e-3)


def test_the_level_of_a_file_repeats_after_its_end(tmp_path: Path) -> None:
    write_beats(tmp_path / "beats.wav", 4)
    sound = FileLevel(str(tmp_path / "beats.wav"))
    levels = [sound.level(seconds) for seconds in (0.5, 1.9, 2.5, 3.9, 4.5, 5.9, 400.5)]
    sound.close()
    assert [level > 0.5 for level in levels] == [True, False, True, False, True, False, True]


def test_a_missing_sound_is_one_error_line(tmp_path: Path) -> None:
    make(tmp_path / "mute.mp4", Clip(frames=4, size=(64, 48), audio=None))
    with pytest.raises(StreamdreamError, match="has no sound"):
        open_sound("source", str(tmp_path / "mute.mp4"), "all")
    with pytest.raises(StreamdreamError, match="needs a file, and webcam:0 is none"):
        open_sound("source", "webcam:0", "all")
    with pytest.raises(StreamdreamError, match=r"no such file: .*gone\.wav"):
        open_sound(str(tmp_path / "gone.wav"), "webcam:0", "all")
