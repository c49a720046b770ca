"""Check and time decoding and encoding on a GPU against software, by the ways that renders take.

    python -m streamdream_bench.device_codecs [FILE ...]

prints one JSON object. Without files it makes clips of 1920x1080. It ends with 1 where a GPU gives other frames than
software, and runs whole where there is no GPU: then it says what is missing.
"""
from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from streamdream.errors import StreamdreamError
from streamdream.media import hardware_decoding, planes
from streamdream.media.hardware_decoding import IN_SOFTWARE, Hwaccel
from streamdream.media.sinks.encoders import GPU_CODECS, runs_here
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.video import FileSource, open_source
from streamdream.settings import RenderSettings

from . import conditions

FRAMES, SIZE = 60, "1920x1080"
PATTERN = "lavfi:testsrc2=size={size}:rate=30:duration={seconds},noise=alls=5:allf=t"
"""Moving shapes under a little noise, so that a frame takes some bits."""
CLIPS = {"h264.mkv": RenderSettings(codec="libx264", crf=20), "vp9.mkv": RenderSettings(codec="libvpx-vp9", crf=30),
         "hevc.mkv": RenderSettings(codec="libx265", crf=20, pixel_format="yuv420p10le")}
FIELD_HEIGHT = 240
ENCODERS = tuple(f"{kind}_nvenc" for kind in (*GPU_CODECS, "av1"))
ROUNDS = 2
"""Software and device are timed in turn; the faster round counts."""


def check_gpu_codecs(paths: Sequence[str] = (), frames: int = FRAMES, device_type: str = "cuda", size: str = SIZE
                     ) -> dict[str, Any]:
    """Decode clips with the device and in software, and encode the first one; a row for each, and what is missing.

    ``equal`` is whether all frames are the same, bit for bit, with the same times.
    """
    failure = hardware_decoding.device_failure(device_type)
    missing = [f"{device_type}: {failure}"] if failure else []
    with tempfile.TemporaryDirectory(prefix="streamdream-bench-") as folder:
        clips = [*paths] or _make_clips(Path(folder), frames, size)
        decode = [_decode(path, frames, "" if failure else device_type) for path in clips]
        encode = [_encode(clips[0], Path(folder), name, frames) for name in ("libx264", *ENCODERS)
                  if name == "libx264" or runs_here(name)]
    missing += [f"{name} does not run here" for name in ENCODERS if not runs_here(name)]
    return {"conditions": conditions(pyav=_pyav(), device_type=device_type), "decode": decode, "encode": encode,
            "missing": missing}


def _make_clips(folder: Path, frames: int, size: str) -> list[str]:
    pattern = PATTERN.format(size=size, seconds=frames / 30)
    for name, settings in CLIPS.items():
        with open_source(pattern) as source:
            _write(source, folder / name, settings, frames)
    return [str(folder / name) for name in CLIPS]


def _write(source: FileSource, path: Path, settings: RenderSettings, frames: int) -> float:
    """Seconds that reading and encoding take."""
    source.deliver_pictures(8, 8)
    began = time.perf_counter()
    with open_sink(str(path), source, settings, overwrite=True) as sink:
        for frame in islice(source, frames):
            sink.write(frame.picture, frame)
        sink.finish()
    return time.perf_counter() - began


def _decode(path: str, frames: int, device_type: str) -> dict[str, Any]:
    try:
        expected, row = _digests(path, frames, IN_SOFTWARE)
        for wanted in (Hwaccel(device_type), IN_SOFTWARE) * ROUNDS if device_type else ():
            timed = _time_decoding(path, frames, wanted)
            for name, value in timed.items():
                best = row.get(name)
                row[name] = value if best is None else max(best, value) if name.endswith("fps") else min(best, value)
        if device_type:
            found, said = _digests(path, frames, Hwaccel(device_type))
            differs = (number for number, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1])
            row |= {"decoder": said["decoder"], "reason": said["reason"], "equal": expected == found,
                    "first_difference": next(differs, None)}
        else:
            row |= _time_decoding(path, frames, IN_SOFTWARE)
    except StreamdreamError as error:
        return {"clip": Path(path).name, "error": str(error)}
    return row


def _digests(path: str, frames: int, wanted: Hwaccel) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """Time and checksum of each frame; and what the source says."""
    with open_source(path, hwaccel=wanted) as source:
        source.deliver_pictures(8, 8)
        digests = [(frame.pts, planes.checksum(frame.picture)) for frame in islice(source, frames)]
        return digests, {"clip": Path(path).name, "size": f"{source.width}x{source.height}",
                         "pixels": source.pixel_format, "frames": len(digests), "decoder": source.decoder,
                         "reason": source.decoder_reason}


def _time_decoding(path: str, frames: int, wanted: Hwaccel) -> dict[str, float]:
    """As a render reads: planes, and a small image. The first frame, which opens the device, is not counted."""
    with open_source(path, hwaccel=wanted) as source:
        source.deliver_pictures(FIELD_HEIGHT, round(FIELD_HEIGHT * source.width / source.height))
        reader = iter(source)
        next(reader, None)
        began, cpu_began = time.perf_counter(), time.process_time()
        count = sum(1 for _ in islice(reader, frames - 1))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    name = "software" if wanted is IN_SOFTWARE else "device"
    return {f"{name}_fps": round(count / seconds, 1), f"{name}_cpu_ms": round(1e3 * cpu / max(count, 1), 2)}


def _encode(path: str, folder: Path, codec: str, frames: int) -> dict[str, Any]:
    output = folder / f"{codec}{'.webm' if codec.startswith('av1') else '.mp4'}"
    try:
        with open_source(path) as source:
            seconds = _write(source, output, RenderSettings(codec=codec), frames)
        with open_source(path) as before, open_source(str(output)) as after:
            for source in (before, after):
                source.deliver_pictures(8, 8)
            errors = [_squared_error(*pair) for pair in zip(islice(before, frames), after, strict=False)]
    except StreamdreamError as error:
        return {"encoder": codec, "error": str(error)}
    return {"encoder": codec, "fps": round(frames / seconds, 1), "frames": len(errors),
            "psnr_db": round(float(-10 * np.log10(np.mean(errors) + 1e-12)), 2),
            "bytes": output.stat().st_size}


def _squared_error(before: Any, after: Any) -> float:
    """Mean of that of luma, of 1."""
    luma = [planes.component_views(frame.picture)[0] / np.float32(planes.maximum(frame.picture))
            for frame in (before, after)]
    return float(np.square(luma[0] - luma[1]).mean())


def _pyav() -> str:
    import av

    return f"{av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def main(paths: Sequence[str]) -> int:
    result = check_gpu_codecs(paths)
    sys.stdout.write(json.dumps(result) + "\n")
    return int(any(row.get("equal") is False for row in result["decode"]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
