"""Small files of every kind that streamdream reads, made by PyAV, Pillow and the libraries of the weights."""
from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from support.clips import Clip, make, marked

from fuzz.chunks import png_chunk

FRAMES, RATE, SAMPLE_RATE = 8, Fraction(25), 48_000
MKV_TEXT = ((0, 100, "one"), (100, 300, "two"))
VIDEO, SOUND, PICTURE = ("render", "image", "atlas"), ("sound", "guide"), ("image", "atlas", "render", "mask")


@dataclass(frozen=True)
class Seed:
    """``make`` writes the file ``name``; ``doors`` are the names of the commands that read it, of ``doors.DOORS``."""

    name: str
    make: Callable[[Path], object]
    doors: tuple[str, ...]


def pictures(alpha: bool = False, size: tuple[int, int] = (64, 48)) -> list[NDArray[np.uint8]]:
    """Marked pictures with noise, so that there is something to damage."""
    chance = np.random.default_rng(20)
    noise = chance.integers(0, 60, (FRAMES, size[1], size[0], 3), np.uint8)
    images = [marked(number, size) // 2 + noise[number] for number in range(FRAMES)]
    if alpha:
        opacity = np.linspace(0, 255, size[0], dtype=np.uint8)[None, :, None].repeat(size[1], 0)
        images = [np.dstack([image, opacity]) for image in images]
    return images


def video(path: Path, codec: str, pixels: str, audio: str = "", alpha: bool = False,
          options: dict[str, str] | None = None, color: tuple[int, int, int, int] | None = None) -> None:
    """Eight pictures, and as much sound, by encoders of one thread: the same file each time."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 48, pixels, 1
        if color:
            context = stream.codec_context
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = color
        sound: Any = output.add_stream(audio, rate=SAMPLE_RATE) if audio else None
        if sound is not None:
            sound.codec_context.layout = "mono"
            sound.codec_context.open(strict=False)
        for number, image in enumerate(pictures(alpha)):
            picture = av.VideoFrame.from_ndarray(image, "rgba" if alpha else "rgb24").reformat(format=pixels)
            picture.pts, picture.time_base = number, 1 / RATE
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
        if sound is not None:
            mux_sound(output, sound)


def mux_sound(output: Any, stream: Any) -> None:
    layout, size = stream.codec_context.format.name, stream.codec_context.frame_size or 1024
    noise = np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE // 3)
    for start in range(0, len(noise) - size, size):
        part = noise[None, start:start + size]
        samples = part.astype(np.float32) if layout.startswith("flt") else (part * 32767).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(samples, format=layout, layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        output.mux(stream.encode(sound))
    output.mux(stream.encode())


def make_mkv(path: Path) -> None:
    make(path, Clip(FRAMES, rate=RATE, time_base=1 / RATE, audio="aac", audio_seconds=0.3, subtitles=MKV_TEXT,
                    chapters=((0, 200, "begin"),), attachment=b"font" * 64, metadata={"title": "a clip"}), pictures())


def animated(path: Path) -> None:
    from PIL import Image

    first, *rest = [Image.fromarray(image) for image in pictures(alpha=path.suffix == ".webp")]
    first.save(path, save_all=True, append_images=rest, duration=40, loop=0)


def make_jpeg(path: Path) -> None:
    from PIL import Image, ImageCms

    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "a camera", {0x9286: b"ASCII\0\0\0a comment"}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pictures()[3]).save(path, exif=exif, icc_profile=profile, quality=90)


def make_png(path: Path) -> None:
    """16 bits a channel, which Pillow does not write, and text chunks in between."""
    rows = pictures()[3].astype(">u2") * 257
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0))
                     + png_chunk(b"gAMA", struct.pack(">I", 45455)) + png_chunk(b"tEXt", b"Title\0a picture")
                     + png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"long " * 99))
                     + png_chunk(b"iTXt", b"Author\0\0\0en\0\0nobody") + png_chunk(b"IDAT", zlib.compress(raw, 1))
                     + png_chunk(b"IEND", b""))


def make_tiff(path: Path) -> None:
    from PIL import Image

    Image.fromarray(pictures()[3]).save(path, compression="tiff_lzw")


def stored_weights(model: str) -> dict[str, Any]:
    """All tensors of a network, constant, so that a compressed file is small."""
    import torch

    from streamdream import models
    from streamdream.models.weights.random import random_weights

    return {key: torch.full_like(tensor, 0.01) for key, tensor in random_weights(models.get(model).nodes()).items()}


def make_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({key: tensor.half() for key, tensor in stored_weights("bvlc_googlenet").items()}, path)


def make_pth(path: Path) -> None:
    import torch

    torch.save({key.replace("/", "_"): tensor.half() for key, tensor in stored_weights("bvlc_googlenet").items()}, path)


def make_caffemodel(path: Path) -> None:
    from support.weight_files import caffemodel

    path.write_bytes(caffemodel(stored_weights("bvlc_googlenet")))


def make_pb(path: Path) -> None:
    from support.weight_files import frozen_graph

    path.write_bytes(frozen_graph(stored_weights("inception5h")))


def make_h5(path: Path) -> None:
    import h5py
    from support.weight_files import keras_tensors, to_tensorflow

    with h5py.File(path, "w", track_order=False) as file:
        for key, tensor in keras_tensors().items():
            layer, _, kind = key.partition(".")
            data = np.full(to_tensorflow(tensor).shape, 0.01, np.float32)
            file.require_group(layer).create_dataset(f"{layer}/{kind}:0", data=data, compression="gzip")


def make_preset(path: Path) -> None:
    from streamdream import settings

    run = settings.resolve({}, {})
    path.write_text('about = "A preset"\n' + settings.to_toml((run.dream, run.stream, run.zoom, run.render)))


def make_track(path: Path) -> None:
    from dataclasses import asdict

    from streamdream import settings

    dream = asdict(settings.resolve({"layers": "conv2d_2", "octaves": "1", "warmup_steps": "1"}, {}).dream)
    lines: list[dict[str, Any]] = [{"format": "streamdream settings 1", "frozen": False,
                                    "set": {**dream, "model": "inception_v3"}}]
    lines += [{"seconds": number / 25, "set": {"strength": number / 8, "keep": 0.9}} for number in range(1, 8)]
    lines += [{"seconds": 0.3, "frozen": True}, {"seconds": 0.31, "reset": True}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def recipe_text() -> str:
    from streamdream import settings
    from streamdream.media.metadata import MARK

    run = settings.resolve({"layers": "conv2d_2"}, {})
    lines = [settings.toml_line(name, getattr(group, name)) for group in (run.dream, run.stream)
             for name in group.__dataclass_fields__ if name not in ("device", "memory")]
    return "\n".join([MARK, *lines, "[recipe]", 'version = "1.0"', "[recipe.sha256]", ""])


def make_recipe_mkv(path: Path) -> None:
    make(path, Clip(2, rate=RATE, time_base=1 / RATE, metadata={"GROUPING": recipe_text()}))


def make_recipe_png(path: Path) -> None:
    from PIL import Image

    from streamdream.media.metadata import to_exif

    data = io.BytesIO()
    Image.fromarray(pictures()[0]).save(data, "png", exif=b"Exif\0\0" + to_exif(recipe_text()).tobytes())
    path.write_bytes(data.getvalue())


X264 = {"crf": "20", "g": "4", "bf": "2", "preset": "ultrafast"}
X265 = {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=4", "preset": "ultrafast"}
HDR = (9, 9, 16, 1)
SEEDS: dict[str, Seed] = {
    "mp4": Seed("clip.mp4", lambda path: video(path, "libx264", "yuv420p", "aac", options=X264), VIDEO + SOUND),
    "mov": Seed("clip.mov", lambda path: video(path, "libx265", "yuv420p10le", options=X265, color=HDR), VIDEO),
    "mkv": Seed("clip.mkv", make_mkv, VIDEO + SOUND),
    "webm": Seed("clip.webm", lambda path: video(path, "libvpx-vp9", "yuva420p", "libopus", alpha=True), VIDEO),
    "avi": Seed("clip.avi", lambda path: video(path, "mjpeg", "yuvj420p", "adpcm_ima_wav"), VIDEO + SOUND),
    "ts": Seed("clip.ts", lambda path: video(path, "mpeg2video", "yuv420p", "mp2"), VIDEO + SOUND),
    "gif": Seed("clip.gif", animated, VIDEO),
    "webp": Seed("clip.webp", animated, PICTURE),
    "jpeg": Seed("photo.jpg", make_jpeg, PICTURE),
    "png": Seed("photo.png", make_png, PICTURE),
    "tiff": Seed("photo.tif", make_tiff, PICTURE),
    "safetensors": Seed("own.safetensors", make_safetensors, ("fetch bvlc_googlenet",)),
    "caffemodel": Seed("own.caffemodel", make_caffemodel, ("fetch bvlc_googlenet",)),
    "pth": Seed("own.pth", make_pth, ("fetch bvlc_googlenet",)),
    "pb": Seed("own.pb", make_pb, ("fetch inception5h",)),
    "h5": Seed("own.h5", make_h5, ("fetch keras_inception_v3",)),
    "preset": Seed("own.toml", make_preset, ("preset", "preset-dream")),
    "track": Seed("track.jsonl", make_track, ("track",)),
    "recipe-mkv": Seed("dream.mkv", make_recipe_mkv, ("recipe", "preset", "preset-dream")),
    "recipe-png": Seed("dream.png", make_recipe_png, ("recipe", "preset", "preset-dream")),
}
