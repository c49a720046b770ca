"""Measure how loud a sound is: the strength of a dream can follow it.

``LevelMeter`` turns samples into a level; ``open_sound`` reads the samples of a file or of the microphone.
"""
from __future__ import annotations

import logging
import math
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import MissingPackage, SourceError, StreamdreamError, UsageError, error_text
from streamdream.media.input_container import open_file, stated_end

BANDS = {"all": (20.0, 20_000.0), "bass": (20.0, 150.0), "mid": (150.0, 2_000.0), "treble": (2_000.0, 20_000.0)}
"""Lower and upper bound in Hz."""
HZ = 22_050
BLOCK = 441
"""Samples of one level: 20 ms."""
RANGE_DB = 30.0
"""Level 1 is the recent peak, level 0 this far below it."""
ATTACK_SECONDS, RELEASE_SECONDS = 0.03, 0.25
PEAK_DECAY_DB = 1.0
"""The recent peak falls by this much a second, so that a quiet part counts after a loud one."""
SILENCE_DB = -70.0
"""Below full scale; the recent peak stays at least ``RANGE_DB`` above it."""
MAX_MISSING_SECONDS = 0.5
"""A sound that ends this much before its stated end is damaged."""

Samples = NDArray[np.float32]
log = logging.getLogger(__name__)


class LevelMeter:
    """The level, 0..1, of one band: its energy in decibels below the recent peak, smoothed."""

    def __init__(self, band: str = "all") -> None:
        low, high = BANDS[band]
        bins = np.fft.rfftfreq(BLOCK, 1 / HZ)
        self._band_bins = (bins >= low) & (bins < high)
        self._window = np.hanning(BLOCK)
        self._peak_db = SILENCE_DB + RANGE_DB
        self._level = 0.0

    def add(self, block: Samples) -> float:
        """``block`` [BLOCK], in -1..1, mono at HZ -> the level after it."""
        spectrum = np.abs(np.fft.rfft(block * self._window))[self._band_bins]
        energy = float(np.sum(spectrum * spectrum)) / (BLOCK / 4) ** 2  # a full-scale sine has about 1
        decibels = 10 * np.log10(max(energy, 1e-12))
        seconds = BLOCK / HZ
        self._peak_db = max(decibels, SILENCE_DB + RANGE_DB, self._peak_db - PEAK_DECAY_DB * seconds)
        target = min(1.0, max(0.0, 1 + (decibels - self._peak_db) / RANGE_DB))
        time_constant = ATTACK_SECONDS if target > self._level else RELEASE_SECONDS
        self._level += (target - self._level) * min(1.0, seconds / time_constant)
        return self._level


class LevelSource(Protocol):
    def level(self, seconds: float) -> float:
        """0..1 at ``seconds`` of the run."""

    def close(self) -> None: ...


class FileLevel:
    """The sound of a file, read ahead in a thread. At the end of the file it starts again, as a looped picture does.

    A sound that breaks off is silent from there to the end of the file, with a warning in the log. Raises SourceError
    when nothing can be read.
    """

    def __init__(self, path: str, band: str = "all") -> None:
        self._path, self._band = path, band
        self._levels = array("f")  # 200 bytes a second: hours fit
        self._loop_seconds = 0.0
        """Length of the file, infinite when it is not known; 0 until all is read."""
        self._ready, self._stop = threading.Condition(), threading.Event()
        self._error: StreamdreamError | None = None
        self._thread = threading.Thread(target=self._read, name="streamdream-sound", daemon=True)
        self._thread.start()
        with self._ready:
            self._ready.wait_for(lambda: self._levels or self._loop_seconds)
        if self._error is not None and not self._levels:
            raise self._error

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
        meter = LevelMeter(self._band)
        audio_seconds = file_seconds = 0.0
        try:
            audio_seconds, file_seconds = _durations(self._path)
            for block in _blocks(self._path):
                if self._stop.is_set():
                    break
                with self._ready:
                    self._levels.append(meter.add(block))
                    self._ready.notify_all()
        except StreamdreamError as error:
            self._error = error
        except Exception as error:  # a damaged end: what was read counts
            self._error = SourceError(f"the sound of {self._path} cannot be read: {error_text(error)}")
        read_seconds = len(self._levels) * BLOCK / HZ
        is_cut = self._error is not None or audio_seconds > read_seconds + MAX_MISSING_SECONDS
        if is_cut and read_seconds and not self._stop.is_set():
            log.warning("the sound of %s is damaged after %.1f s; --sound follows silence from there on", self._path,
                        read_seconds)
        with self._ready:
            self._loop_seconds = max(file_seconds, read_seconds, BLOCK / HZ)
            if is_cut and not file_seconds:
                self._loop_seconds = math.inf
            self._ready.notify_all()


def _blocks(path: str) -> Iterator[Samples]:
    """Mono float32 [BLOCK] at HZ, in order; silence before a sound that starts late."""
    import av

    with open_file(path) as file:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=HZ)
        pending, is_first = np.zeros(0, np.float32), True
        start = float((file.start_time or 0) / av.time_base)
        for frame in file.decode(audio=0):
            if is_first and frame.time is not None:
                pending, is_first = np.zeros(max(0, round((frame.time - start) * HZ)), np.float32), False
            parts = [part.to_ndarray().ravel() for part in resampler.resample(frame)]
            pending = np.concatenate([pending, *parts])
            while len(pending) >= BLOCK:
                yield pending[:BLOCK]
                pending = pending[BLOCK:]


def _durations(path: str) -> tuple[float, float]:
    """Seconds of the sound (up to its end) and of the file, as its header says; 0 when it does not say. Raises
    SourceError for a file without sound.
    """
    import av

    with open_file(path) as file:
        if not file.streams.audio:
            raise SourceError(f"{path} has no sound for --sound to follow")
        end = stated_end(file, file.streams.audio[0])
        origin = float((file.start_time or 0) / av.time_base)
        return 0.0 if end is None else float(end) - origin, float((file.duration or 0) / av.time_base)


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
            self._stream = sounddevice.InputStream(HZ, BLOCK, channels=1, dtype="float32", callback=self._on_samples)
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise SourceError(f"no microphone can be opened ({error})") from None

    def _on_samples(self, samples: Any, count: int, when: object, status: object) -> None:
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
