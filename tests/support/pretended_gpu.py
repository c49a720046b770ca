"""A device that decodes, where there is none: software, whose pictures come as those of a GPU, and which fails at will.

It takes the place of the three functions that touch a device; all else is what runs with a GPU.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from av.error import ExternalError
from av.video.reformatter import VideoReformatter

from streamdream.media import hardware_decoding

FORMATS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}


@dataclass
class PretendedGpu:
    """``fails_after`` that many pictures, in all that it decodes; None for never."""

    fails_after: int | None = None
    opens: bool = True
    pictures: int = 0
    """That it gave."""
    opened: int = 0
    """Streams that it began to decode."""
    change: Any = field(default=lambda picture: picture)
    """Done to each picture: what a faulty driver might."""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
        monkeypatch.setattr(hardware_decoding, "device_failure", lambda *names: "")
        monkeypatch.setattr(hardware_decoding, "accelerator", self._accelerator)
        monkeypatch.setattr(hardware_decoding, "decoding_context", lambda stream: PretendedContext(self, stream))
        hardware_decoding.say_once.cache_clear()
        return self

    def _accelerator(self, *names: str) -> Any:
        from av.codec.hwaccel import HWAccel

        return None if self.opens else HWAccel("cuda", "99")  # no machine has that many


class PretendedContext:
    """The codec context of a stream that is decoded on the device."""

    def __init__(self, gpu: PretendedGpu, stream: Any) -> None:
        self._gpu, self._context, self._reformat = gpu, stream.codec_context, VideoReformatter().reformat
        gpu.opened += 1
        self.thread_count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def decode(self, packet: Any) -> list[Any]:
        pictures = [self._of_device(picture) for picture in self._context.decode(packet)]
        if self._gpu.fails_after is not None and self._gpu.pictures > self._gpu.fails_after:
            raise ExternalError(-542398533, "generic error in an external library")
        return pictures

    def _of_device(self, picture: Any) -> Any:
        self._gpu.pictures += 1
        pixels = FORMATS.get(picture.format.name, picture.format.name)
        return self._gpu.change(self._reformat(picture, format=pixels, threads=1))
