"""What two runs must share, so that the second resumes the first and gives the same frames."""
from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamdream import __version__
from streamdream.media.picture_files import is_many, picture_files
from streamdream.media.sinks.encoders import CONTAINERS, find_codec
from streamdream.render.job import RenderJob, settings_text

if TYPE_CHECKING:
    from streamdream.settings import StreamSettings

SAMPLE_BYTES = 1 << 20
"""Of the head and of the tail of a file; a film is too long to be read twice."""
PACKAGES = ("torch", "openvino", "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "numpy", "av",
            "opencv-python", "opencv-python-headless", "pillow", "pi-heif")
"""Whose versions decide on the last bit of a frame."""
WITHOUT_EFFECT = ("memory", "threads", "backend", "precision", "frame_path", "hwaccel")
"""Settings that change no frame, or that the plan fixes on its own."""


def identify(job: RenderJob, stream: StreamSettings) -> dict[str, Any]:
    """``stream`` holds the backend, the precision, the path of frames and the threads that the render uses, in place of
    ``auto``.
    """
    run = job.run
    settings = {**settings_text(run.dream), **settings_text(stream), **settings_text(run.automation),
                **settings_text(run.render)}
    files = {"guide": run.dream.guide, "style": run.dream.style, "mask": run.dream.mask,
             "sound": run.automation.sound if run.automation.sound != "source" else "", "settings track":
             job.settings_track}
    for name in (*files, *WITHOUT_EFFECT):
        settings.pop(name, None)
    suffix = Path(job.output).suffix.lower()
    if run.render.codec == "gpu" and suffix in CONTAINERS:  # another machine may have another one
        settings["codec"] = find_codec("gpu", CONTAINERS[suffix]).name
    return {
        "source": describe_source(job.input),
        "settings": settings,
        "files": {name: describe_source(path) for name, path in files.items() if path},
        "weights": weights_digest(stream.model),
        "backend": stream.backend,
        "precision": stream.precision,
        "frame_path": stream.frame_path,
        "threads": stream.threads,
        "output format": suffix,
        "versions": {"streamdream": __version__, **package_versions()},
    }


def describe_source(name: str) -> dict[str, Any]:
    """Size, time and a digest of a file or of a sequence of them; of anything else only the name."""
    path = Path(name)
    if is_many(name):
        files = picture_files(name)
        listing = "\n".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
        return {"pictures": len(files), "digest": hashlib.sha256(listing.encode()).hexdigest()[:16]}
    if not path.is_file():
        return {"name": name}
    return {"bytes": path.stat().st_size, "modified": path.stat().st_mtime_ns, "digest": sample_digest(path)}


def sample_digest(path: Path) -> str:
    """SHA-256, 16 hexadecimal digits, of the first and the last megabyte of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(SAMPLE_BYTES))
        file.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def weights_digest(model_name: str) -> str:
    """Of the file that holds the weights of a network; "" for those that are part of the package."""
    from streamdream import models
    from streamdream.models import fetch

    path = fetch.find(model_name) if models.get(model_name).sources else None
    return sample_digest(path) if path else ""


def package_versions() -> dict[str, str]:
    """Of those packages that are installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
