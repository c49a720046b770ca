"""A video file that is being written: one encoded stream, and the streams and metadata copied from the input."""
from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamdream.media.metadata import set_recipe
from streamdream.media.picture_files import is_video_file
from streamdream.media.pyav import open_av
from streamdream.media.sinks.encoders import CONTAINERS, PIPES
from streamdream.media.sinks.pipe import StandardOutput, is_pipe
from streamdream.media.sinks.recording import Recording
from streamdream.media.sinks.sound_formats import check_encoder
from streamdream.media.sinks.stream_copy import StreamCopier
from streamdream.media.sinks.stream_selection import StreamSelection
from streamdream.media.sinks.video_encoder import VideoEncoder
from streamdream.settings import RenderSettings
from streamdream.system.atomic_file import AtomicFile

if TYPE_CHECKING:
    from streamdream.media.sources.video import Source

BUFFER_BYTES = 1 << 20
"""Write buffer of a recording."""


class VideoOutput:
    """The container of ``path`` with its ``encoder``, under a hidden name until ``commit``.

    Packets are interleaved with those copied from ``input_path``. With ``recording`` the unfinished file plays, and it
    is kept after any error. ``recipe`` is called when the settings were checked; "" is none.

    Raises SinkError when the folder cannot be written, UsageError or UnknownName for settings that do not work.
    """

    def __init__(self, path: str, source: Source, settings: RenderSettings, input_path: str | None = None,
                 overwrite: bool = False, recording: bool = False, recipe: Callable[[], str] = lambda: "") -> None:
        self.warnings: list[str] = []
        self._copier: StreamCopier | None = None
        self._container: Any = None
        self._lead: int | None = None
        """By how much the first packet is decoded before it is shown, in ticks of the encoder."""
        self.partial: AtomicFile | StandardOutput
        if is_pipe(path):
            self.partial = StandardOutput(path)
        else:
            self.partial = Recording(path, overwrite) if recording else AtomicFile(path, overwrite=overwrite)
        self.kind = (PIPES if is_pipe(path) else CONTAINERS)[self.partial.target.suffix.lower()]
        try:
            self._open(source, settings, input_path, recipe)
        except Exception as error:
            self.discard()
            self.partial.raise_error(error)

    def _open(self, source: Source, settings: RenderSettings, input_path: str | None, recipe: Callable[[], str]
              ) -> None:
        if isinstance(self.partial, Recording):
            self._container = open_av(self.partial.file, "w", format=self.kind.format, buffer_size=BUFFER_BYTES,
                                      container_options=self.kind.options | self.kind.recording_options)
        elif isinstance(self.partial, StandardOutput):
            self._container = open_av(self.partial, "w", format=self.kind.format, container_options=self.kind.options)
        else:
            self._container = open_av(str(self.partial.path), "w", format=self.kind.format,
                                      container_options=self.kind.options)
        self.encoder = VideoEncoder(self._container, self.kind, str(self.partial.target), source, settings)
        self.warnings += self.encoder.warnings
        StreamSelection(settings.map), check_encoder(self.kind.format, settings)
        if input_path and "://" in input_path:
            self.warnings.append(f"only pictures come from {input_path}: sound is copied from files")
        elif input_path and is_video_file(input_path):
            self._copier = StreamCopier(input_path, self._container, self.encoder.stream, settings, self.warnings)
        set_recipe(self._container, recipe(), self.warnings)
        self._container.start_encoding()

    def mux(self, packets: list[Any]) -> None:
        """Write packets of the encoder, with times in its ticks, and the copied packets that are due before them."""
        for packet in packets:
            if self._lead is None and packet.dts is not None:
                self._lead = packet.pts - packet.dts
            if self._copier:
                self._copier.copy_until(float((packet.dts or 0) * self.encoder.tick))
            self._container.mux_one(packet)
            if isinstance(self.partial, Recording):
                self.partial.file.mark_whole()

    def mux_last(self, packets: list[Any], end_pts: int) -> None:
        """Write the last packets, which end at ``end_pts``, then all that is left to copy; close the file."""
        if packets and self.kind.format in ("mp4", "mov"):
            # These muxers take the length of the video from the last packet, which need not be the last picture:
            # from the first packet to it in the order of decoding, and then its duration.
            last = packets[-1]
            if last.dts is not None and self._lead is not None:
                last.duration = max(end_pts - self._lead - last.dts, last.duration or 0, 1)
        self.mux(packets)
        if self._copier:
            self._copier.copy_until(float("inf"))
            self._copier.close()
        self._container.close()

    @property
    def bytes_written(self) -> int:
        return self.partial.size

    def commit(self) -> None:
        self.partial.commit()

    def discard(self) -> None:
        if isinstance(self.partial, Recording):
            self._close()
            self.partial.discard()
        else:  # first, so that closing does not write the index
            self.partial.discard()
            self._close()

    def keep(self) -> None:
        if isinstance(self.partial, Recording):
            self._close()
            self.partial.keep()
        else:
            self.discard()

    @property
    def kept(self) -> str:
        return self.partial.describe() if isinstance(self.partial, Recording) else ""

    def _close(self) -> None:
        from av import FFmpegError

        if self._copier:
            self._copier.close()
        if self._container:
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                self._container.close()
