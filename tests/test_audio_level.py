"""The level of a file's sound that breaks off."""
from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from streamdream.media.audio_level import FileLevel


def write_tone(path: Path) -> str:
    """4 s of a tone as AAC; beside it the same as .wav."""
    samples = (np.sin(2 * np.pi * 220 * np.arange(4 * 44_100) / 44_100) * 20_000).astype("<i2")
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(samples.tobytes())
    with av.open(str(path.with_suffix(".wav"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("aac", rate=44_100)
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return str(path)


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_sound_that_breaks_off_is_silent_from_there(is_cut: bool, tmp_path: Path,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    """What was left of it was looped without a word: a show pulsed to its first seconds for an hour."""
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
