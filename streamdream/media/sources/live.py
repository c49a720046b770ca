"""Open live sources: cameras, the screen, network streams; and files and filter graphs at their own rate.

``open_live`` chooses the type by the name; a new type is one more row of ``SOURCES``. A live source never waits for
its consumer, and always gives frames: a lost source is reopened while its last picture is repeated.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import UsageError
from streamdream.media.hardware_decoding import IN_SOFTWARE, HardwareDecoding, Hwaccel
from streamdream.media.opencv import cv2
from streamdream.media.sources import cameras, network
from streamdream.media.sources.base import REPEAT_SECONDS, TICK, LiveSource, timestamped_frame
from streamdream.media.sources.cameras import CaptureRequest
from streamdream.media.sources.paced_file import PacedFileSource
from streamdream.media.sources.reconnecting import ReconnectingSource
from streamdream.media.sources.screen import ScreenReader
from streamdream.media.sources.transform import Transformed, parse_region
from streamdream.media.sources.video import open_source
from streamdream.settings import LiveSettings

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

__all__ = ["REPEAT_SECONDS", "SOURCES", "TICK", "LiveSource", "open_live", "timestamped_frame"]


@dataclass(frozen=True)
class LiveSourceType:
    """``open`` returns the source for a name that ``matches``; ``example`` is such a name."""

    example: str
    matches: Callable[[str], bool]
    open: Callable[[str, LiveSettings, Hwaccel], Source]


def _capture_request(settings: LiveSettings) -> CaptureRequest:
    region = parse_region(settings.capture_size) if settings.capture_size else None
    return CaptureRequest((region.width, region.height) if region else None, settings.capture_rate)


def _open_webcam(name: str, settings: LiveSettings, hwaccel: Hwaccel) -> Source:
    request = _capture_request(settings)
    return ReconnectingSource(name, cameras.open_webcam(name, request), requested_rate=request.requested_rate,
                              is_camera=True)


def _open_device(name: str, settings: LiveSettings, hwaccel: Hwaccel) -> Source:
    request = _capture_request(settings)
    return ReconnectingSource(name, cameras.open_av_device(name, request), requested_rate=settings.capture_rate,
                              is_camera=True)


def _open_screen(name: str, settings: LiveSettings, hwaccel: Hwaccel) -> Source:
    part = name.partition(":")[2]
    region, request = parse_region(part) if part else None, _capture_request(settings)
    return ReconnectingSource(name, lambda stop: ScreenReader(name, region, request, stop))


def _open_network(name: str, settings: LiveSettings, hwaccel: Hwaccel) -> Source:
    address = network.address_of(name)
    hardware = HardwareDecoding(hwaccel if hwaccel.is_named else IN_SOFTWARE)  # it is opened twice, which takes seconds
    return ReconnectingSource(name, lambda stop: network.NetworkReader(address, stop, hardware), settings.loop,
                              hardware=hardware)


def _open_graph(name: str, settings: LiveSettings, hwaccel: Hwaccel) -> Source:
    return PacedFileSource(name, lambda: open_source(name), loop=False)


def _open_file(name: str, settings: LiveSettings, hwaccel: Hwaccel) -> Source:
    if (":" in name and not Path(name).exists()) or name in SOURCES:
        examples = ", ".join(source_type.example for source_type in SOURCES.values())
        raise UsageError(f"{name!r} is neither a file nor another source: {examples}")
    return PacedFileSource(name, lambda: open_source(name, hwaccel=hwaccel), settings.loop)


SOURCES: dict[str, LiveSourceType] = {
    "webcam": LiveSourceType("webcam:0 or webcam:NAME", lambda name: name.startswith("webcam:"), _open_webcam),
    "device": LiveSourceType("v4l2:/dev/video0, avfoundation:0 or dshow:NAME",
                   lambda name: name.partition(":")[0] in cameras.AV_DEVICES, _open_device),
    "screen": LiveSourceType("screen: or screen:640x480+10+20", lambda name: name.startswith("screen:"), _open_screen),
    "graph": LiveSourceType("lavfi:GRAPH", lambda name: name.startswith("lavfi:"), _open_graph),
    "network": LiveSourceType("an rtsp, rtmp, http, hls or udp URL", lambda name: "://" in name, _open_network),
    "file": LiveSourceType("a file", lambda name: True, _open_file),
}
"""In order; the first match is used."""


def open_live(name: str, settings: LiveSettings | None = None, hwaccel: Hwaccel = IN_SOFTWARE) -> Source:
    """Open the live source of a name (``SOURCES`` has examples) with the source options of ``settings``; ``hwaccel``
    says what decodes files and network streams.

    Raises SourceError when it cannot be opened, UsageError for a wrong name or option, MissingPackage.
    """
    cv2()  # before PyAV: see WindowSink
    settings = settings or LiveSettings()
    if name.isdecimal() and not Path(name).exists():  # as OpenCV and many programs name cameras
        name = f"webcam:{name}"
    source_type = next(source_type for source_type in SOURCES.values() if source_type.matches(name))
    source = source_type.open(name, settings, hwaccel)
    if settings.mirror or settings.crop or settings.rotate_source != "0":
        try:
            source = Transformed(source, settings.rotate_source, settings.crop, settings.mirror)
        except BaseException:
            source.close()
            raise
    return source
