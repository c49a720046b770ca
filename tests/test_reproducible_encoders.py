"""An encoder writes the same bytes again, whatever its memory held and how many cores there are."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from support.clips import Clip, make
from support.commands import PROGRAM_ENVIRONMENT

from streamdream.media.opencv import cv2

OUTPUTS = ["libx264.mkv", "libx264.mp4", "libx264rgb.mkv", "libx265.mkv", "libsvtav1.mkv", "libvpx-vp9.webm",
           "libvpx.mkv", "mpeg4.avi", "mpeg2video.mkv", "mjpeg.mkv", "prores_ks.mov", "ffv1.mkv", "gif.gif",
           "apng.apng", "libwebp_anim.webp"]
"""A codec and what holds it."""
FRAMES, SIZES = 10, [(160, 192), (64, 48)]
RUNS = [("1", False), ("127", True), ("255", False)]
"""What glibc fills memory with that was not written yet, for MALLOC_PERTURB_; and whether there is one core only."""
PROGRAM = """
import hashlib, json, os, sys
clips, outputs, folder, has_one_core = json.loads(sys.argv[1])
if has_one_core:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import av
from support.sink_outputs import copy
from streamdream.settings import RenderSettings

digests = {}
for output in outputs:
    codec, _, suffix = output.partition(".")
    for number, clip in enumerate(clips):
        path = f"{folder}/{number}{output}"
        copy(clip, path, RenderSettings(codec=codec))
        with av.open(path) as file:  # its header may hold a random number
            packets = b"".join(bytes(packet) for packet in file.demux(video=0))
        digests.setdefault(output, []).append(hashlib.sha256(packets).hexdigest())
print(json.dumps(digests))
"""


def rolling(seed: int, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Pictures of a texture that moves, and of which each is lighter than the one before."""
    width, height = size
    texture = np.random.default_rng(seed).integers(0, 256, (height, width + 4 * FRAMES, 3), np.uint8)
    texture = np.clip(cv2().GaussianBlur(texture, (0, 0), 2) * 3.0 - 256, 0, 255)
    for number in range(FRAMES):
        part = texture[:, 3 * number:3 * number + width] + 5 * number % 7
        yield np.ascontiguousarray(np.clip(part, 0, 255).astype(np.uint8))


def test_an_encoder_does_not_depend_on_memory_and_cores(tmp_path: Path) -> None:
    """In libx264 one function for AVX-512 reads what nobody wrote; with more threads many write other bytes."""
    clips = [make(tmp_path / f"{seed}{size[0]}.mkv", Clip(FRAMES, size, codec="ffv1", pixels="bgr0"),
                  rolling(seed, size)) for seed in range(3) for size in SIZES]
    seen = []
    for fill, has_one_core in RUNS:
        folder = tmp_path / fill
        folder.mkdir()
        task = json.dumps([clips, OUTPUTS, str(folder), has_one_core and hasattr(os, "sched_setaffinity")])
        result = subprocess.run([sys.executable, "-c", PROGRAM, task], capture_output=True, text=True, timeout=300,
                                env=PROGRAM_ENVIRONMENT | {"MALLOC_PERTURB_": fill})
        assert result.returncode == 0, result.stderr
        seen.append(json.loads(result.stdout))
    different = [name for name in OUTPUTS if any(digests[name] != seen[0][name] for digests in seen)]
    assert not different, different
