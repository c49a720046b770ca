"""How loud a sound is, moment by moment: what the strength of a dream follows.

``Meter`` turns samples into a level; ``open_sound`` finds the samples: a file's own sound, or the microphone.
"""
from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import MissingPackage, SourceError, StreamdreamError, UsageError

BANDS = {"all": (20.0, 20_000.0), "bass": (20.0, 150.0), "mid": (150.0, 2_000.0), "treble": (2_000.0, 20_000.0)}
"""Hz, from and to."""
HZ = 22_050
BLOCK = 441
"""Samples a level is made of: 20 ms."""
RANGE_DB = 30.0
"""From the loudest of late down to nothing."""
ATTACK_SECONDS, RELEASE_SECONDS = 0.03, 0.25
PEAK_DECAY_DB = 1.0
"""By so much a second the loudest of late is forgotten, so that a quiet piece counts after a loud one."""
SILENCE_DB = -70.0
"""Nothing below full scale by so much counts as loud, however quiet all the rest is."""

Samples = NDArray[np.float32]


class LevelMeter:
    """The level, 0..1, of one band: its energy in decibels below the loudest of late, smoothed."""

    def __init__(self, band: str = "all") -> None:
        low, high = BANDS[band]
        bins = np.fft.rfftfreq(BLOCK, 1 / HZ)
        self._inside = (bins >= low) & (bins < high)
        self._window = np.hanning(BLOCK)
        self._loudest_db = SILENCE_DB + RANGE_DB
        self._level = 0.0

    def add(self, block: Samples) -> float:
        """``block`` [BLOCK], in -1..1, mono at HZ -> the level after it."""
        spectrum = np.abs(np.fft.rfft(block * self._window))[self._inside]
        energy = float(np.sum(spectrum * spectrum)) / (BLOCK / 4) ** 2  # a full-scale sine has about 1
        decibels = 10 * np.log10(max(energy, 1e-12))
        seconds = BLOCK / HZ
        self._loudest_db = max(decibels, SILENCE_DB + RANGE_DB, self._loudest_db - PEAK_DECAY_DB * seconds)
        now = min(1.0, max(0.0, 1 + (decibels - self._loudest_db) / RANGE_DB))
        slowness = ATTACK_SECONDS if now > self._level else RELEASE_SECONDS
        self._level += (now - self._level) * min(1.0, seconds / slowness)
        return self._level


class LevelSource(Protocol):
    def level(self, seconds: float) -> float:
        """0..1 at that time of the run."""

    def close(self) -> None: ...


@dataclass
class FileLevel:
    """A file's sound, read ahead in a thread. Past its end it begins again, as a looped picture does."""

    path: str
    band: str = "all"

    def __post_init__(self) -> None:
        self._levels = array("f")  # 200 bytes a second: hours fit
        self._loop_seconds = 0.0
        self._ready, self._stop = threading.Condition(), threading.Event()
        self._failed: StreamdreamError | None = None
        self._thread = threading.Thread(target=self._read, name="streamdream-sound", daemon=True)
        self._thread.start()
        with self._ready:
            self._ready.wait_for(lambda: self._levels or self._loop_seconds or self._failed)
        if self._failed is not None:
            raise self._failed

    def level(self, seconds: float) -> float:
        with self._ready:  # a render may be faster than the reading
            self._ready.wait_for(lambda: int(seconds * HZ / BLOCK) < len(self._levels) or self._loop_seconds
                                 or self._stop.is_set())
            index = int((seconds % self._loop_seconds if self._loop_seconds else seconds) * HZ / BLOCK)
            return self._levels[index] if index < len(self._levels) else 0.0

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        meter = LevelMeter(self.band)
        seconds = 0.0
        try:
            for block in _blocks(self.path):
                if self._stop.is_set():
                    break
                with self._ready:
                    self._levels.append(meter.add(block))
                    self._ready.notify_all()
            seconds = _duration(self.path)
        except StreamdreamError as error:
            self._failed = error
        except Exception as error:  # a damaged end: what was read counts
            self._failed = SourceError(f"the sound of {self.path} cannot be read: {error}")
        with self._ready:
            self._loop_seconds = max(seconds, len(self._levels) * BLOCK / HZ, BLOCK / HZ)
            self._ready.notify_all()


def _blocks(path: str) -> Any:
    """Mono float32 [BLOCK] at HZ, one after the other; silence before a sound that begins late."""
    import av

    from streamdream.media.container import open_file

    with open_file(path) as file:
        if not file.streams.audio:
            raise SourceError(f"{path} has no sound for --sound to follow")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=HZ)
        waiting, first = np.zeros(0, np.float32), True
        start = float((file.start_time or 0) / av.time_base)
        for frame in file.decode(audio=0):
            if first and frame.time is not None:
                waiting, first = np.zeros(max(0, round((frame.time - start) * HZ)), np.float32), False
            parts = [part.to_ndarray().ravel() for part in resampler.resample(frame)]
            waiting = np.concatenate([waiting, *parts])
            while len(waiting) >= BLOCK:
                yield waiting[:BLOCK]
                waiting = waiting[BLOCK:]


def _duration(path: str) -> float:
    import av

    from streamdream.media.container import open_file

    with open_file(path) as file:
        return float((file.duration or 0) / av.time_base)


class Microphone:
    """The default microphone by PortAudio. Raises MissingPackage, or SourceError where none can be opened."""

    def __init__(self, band: str = "all") -> None:
        try:
            import sounddevice
        except ImportError:
            raise MissingPackage("the microphone needs sounddevice: pip install 'streamdream[sound]'") from None
        except OSError:  # the library that it loads
            raise MissingPackage("the microphone needs PortAudio: apt-get install libportaudio2") from None
        self._meter, self._level = LevelMeter(band), 0.0
        try:
            self._stream = sounddevice.InputStream(HZ, BLOCK, channels=1, dtype="float32", callback=self._take)
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise SourceError(f"no microphone can be opened ({error})") from None

    def _take(self, samples: Any, count: int, when: object, status: object) -> None:
        if count == BLOCK:
            self._level = self._meter.add(samples[:, 0])

    def level(self, seconds: float) -> float:
        return self._level

    def close(self) -> None:
        self._stream.close()


def open_sound(name: str, source_path: str, band: str) -> LevelSource:
    """``mic``, ``source`` (the sound of the file ``source_path``) or the path of a file. Raises StreamdreamError."""
    if name == "mic":
        return Microphone(band)
    if name == "source" and not Path(source_path).is_file():
        raise UsageError(f"--sound source needs a file, and {source_path} is none; --sound mic, or name a file")
    return FileLevel(source_path if name == "source" else name, band)
