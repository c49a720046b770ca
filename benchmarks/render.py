"""Measure the frame rate of a whole render: decoding, dreaming, and encoding with sound.

Several frame paths and encoders are measured in turn, twice: the speed of a machine changes within minutes.
"""
from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from streamdream.dream.build import build_dreamer
from streamdream.errors import SinkError, SourceError, UsageError
from streamdream.media.pyav import open_av
from streamdream.media.sample_files import CLIP, sample_file
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.video import open_source
from streamdream.render.pipeline import render_video
from streamdream.settings import DreamSettings, RenderSettings, StreamSettings

from . import LAYERS, Options, Progress, Report, conditions

DEFAULT_SIZE = (384, 512)
DEFAULT_FRAMES = 150
ROUNDS = 2
INPUT_CRF = "12"
"""Quality of the clip to render: close to the original."""


def run(options: Options, progress: Progress) -> Report:
    """Return a row for each frame path and encoder. ``fps`` excludes the first frame, which waits for the weights and
    takes more steps.
    """
    path = options.clip or str(sample_file(CLIP))
    settings = DreamSettings(layers=options.layers or LAYERS)
    paths, encoders = options.frame_path.split(","), options.encoder.split(",")
    variants = [(frame_path, encoder) for encoder in encoders for frame_path in paths]
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {variant: [] for variant in variants}
    common: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="streamdream-bench-") as folder:
        clip = str(Path(folder) / "clip.mp4")
        frames = options.frames or DEFAULT_FRAMES
        prepare(path, clip, frames, options.height or DEFAULT_SIZE[0], options.width or DEFAULT_SIZE[1])
        for frame_path, encoder in variants * (1 if len(variants) == 1 else ROUNDS):
            progress(f"rendering {frames} frames of {Path(path).name}, {frame_path} {encoder}".rstrip())
            stream = StreamSettings(model=options.model, field_height=options.field_height, backend=options.backend,
                                    device=options.device, precision=options.precision, seed=options.seed,
                                    frame_path=frame_path)
            try:
                row, report = measure(clip, folder, encoder, settings, stream)
            except (UsageError, SinkError) as error:  # this machine lacks the encoder
                if len(variants) == 1:
                    raise
                row = {"refused": str(error)}
            else:
                common = {name: report[name] for name in ("backend", "precision", "device", "model", "layers", "field")}
            runs[frame_path, encoder].append(row)
    rows = [{"clip": Path(path).name, **_middle(of_variant), "frame_path": frame_path, "encoder": encoder or "default"}
            for (frame_path, encoder), of_variant in runs.items()]
    return Report("render", conditions(**common, seed=options.seed), rows)


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run whose rate is the median, the lower of two, with the rates of all."""
    if len(runs) == 1 or "refused" in runs[0]:
        return runs[0]
    ordered = sorted(runs, key=lambda row: row["fps"])
    return {**ordered[(len(runs) - 1) // 2], "fps_of_runs": [row["fps"] for row in runs]}


def measure(clip: str, folder: str, encoder: str, settings: DreamSettings, stream: StreamSettings
            ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Render the clip into the folder; return the row and the report of the run."""
    output = "null" if encoder == "null" else str(Path(folder) / "dream.mp4")
    encoding = RenderSettings() if encoder in ("", "null") else RenderSettings(codec=encoder)
    started_at, done_at = time.perf_counter(), []
    with open_source(clip) as source:
        dreamer = build_dreamer(stream)
        source.deliver_pictures(*dreamer.options.field_size(source.height, source.width))
        with open_sink(output, source, encoding, overwrite=True, input_path=clip) as sink:
            report = render_video(source, sink, dreamer, settings, lambda _: done_at.append(time.perf_counter()))
        size = f"{source.width}x{source.height}"
    ended_at = time.perf_counter()
    row = {"size": size, "fps": round((report.frames - 1) / (ended_at - done_at[0]), 2), "frames": report.frames,
           "first_frame_s": round(done_at[0] - started_at, 2), "seconds": round(ended_at - started_at, 2),
           "peak_rss_mb": report.peak_rss_mb, "stages": report.stages}
    return row, report.as_json()


def prepare(path: str, output: str, frames: int, height: int, width: int) -> None:
    """Write the first ``frames`` of a clip, scaled, with their sound, as H.264. Raises SourceError."""
    import av

    try:
        with open_av(path) as source, open_av(output, "w") as target:
            video = source.streams.video[0]
            sounds = {stream: target.add_stream_from_template(stream) for stream in source.streams.audio[:1]}
            encoder = target.add_stream("libx264", video.average_rate, width=width, height=height, pix_fmt="yuv420p",
                                        options={"crf": INPUT_CRF, "preset": "veryfast"})
            done = 0
            for packet in source.demux(video, *sounds):
                if packet.stream in sounds and packet.dts is not None:
                    packet.stream = sounds[packet.stream]
                    target.mux(packet)
                elif packet.stream is video:
                    for frame in video.decode(packet)[:frames - done]:
                        target.mux(encoder.encode(frame.reformat(width, height, "yuv420p")))
                        done += 1
                if done >= frames:
                    break
            target.mux(encoder.encode(None))
    except (av.FFmpegError, OSError, IndexError) as error:
        raise SourceError(f"{path} cannot be measured: {error}") from None
