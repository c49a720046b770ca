"""Write sounds for tests as WAV files."""
from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 44_100


def write_wav(path: Path, samples: NDArray[np.float64]) -> None:
    """Write mono ``samples`` (-1 to 1) with 16 bits each."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def tone(seconds: int) -> NDArray[np.float64]:
    """Return a sine of 220 Hz."""
    return 0.6 * np.sin(2 * np.pi * 220 * np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE)


def write_beats(path: Path, seconds: int) -> None:
    """Write a tone that is on in every even second and off in every odd one."""
    is_on = np.arange(seconds * SAMPLE_RATE) // SAMPLE_RATE % 2 == 0
    write_wav(path, tone(seconds) * is_on)
