"""Write a video file in one pass, with sound, subtitles and metadata copied from its input."""
from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from streamdream.media.frame import Frame, Picture
from streamdream.media.sinks.picture_clock import new_clock
from streamdream.media.sinks.video_encoder import check_size, to_video_frame
from streamdream.media.sinks.video_output import VideoOutput
from streamdream.settings import RenderSettings
from streamdream.system.atomic_file import OutputTarget

if TYPE_CHECKING:
    from streamdream.media.sinks.picture_clock import PictureClock
    from streamdream.media.sources.video import Source


class VideoWriter:
    """Encode pictures into a ``VideoOutput``, whose arguments and errors these are."""

    def __init__(self, path: str, source: Source, settings: RenderSettings, input_path: str | None,
                 overwrite: bool = False, recording: bool = False, recipe: Callable[[], str] = lambda: "") -> None:
        self._source = source
        self._output = VideoOutput(path, source, settings, input_path, overwrite, recording, recipe)
        self.warnings = self._output.warnings
        self._clock = new_clock(self._output.kind, source, settings)

    @property
    def partial(self) -> OutputTarget:
        return self._output.partial

    @property
    def bytes_written(self) -> int:
        return self._output.bytes_written

    def prepare(self, image: Picture, frame: Frame) -> tuple[Any, Fraction]:
        """A PyAV frame and its time in seconds. Raises ValueError for a picture of another size."""
        check_size(image, self._source, self.partial.name)
        return to_video_frame(image), frame.pts * Fraction(*frame.time_base)

    def write(self, item: tuple[Any, Fraction]) -> None:
        picture, seconds = item
        self._output.mux(self._output.encoder.add(picture, self._clock(seconds)))

    def complete(self) -> None:
        end_pts = self._clock.end(self._source)
        self._output.mux_last(self._output.encoder.finish(end_pts), end_pts)
        self.warnings += describe_moved_pictures(self._clock, self.partial.name)

    def commit(self) -> None:
        self._output.commit()

    def discard(self) -> None:
        self._output.discard()

    def keep(self) -> None:
        self._output.keep()

    @property
    def kept(self) -> str:
        return self._output.kept


def describe_moved_pictures(clock: PictureClock, name: str) -> list[str]:
    """A warning where the container's ticks were too coarse for the times of the pictures."""
    if clock.max_shift <= clock.tick:
        return []
    return [f"{name} cannot hold the times of all frames: some were moved by up to {float(clock.max_shift):.2f} s; "
            ".mkv and .mp4 keep them"]
