"""A guide that is a video: the frame of it that belongs to each frame of the input."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from streamdream.dream.reference_images import References, file_version, read
from streamdream.errors import SourceError, StreamdreamError
from streamdream.media import images

if TYPE_CHECKING:
    from streamdream.media.frame import Frame
    from streamdream.media.sources.video import Source
    from streamdream.settings import DreamSettings

log = logging.getLogger(__name__)


class GuideVideo:
    """Guide, style and mask over time: ``references_at`` returns those of a frame's time. A guide that is a video is
    repeated from its start when it ends.

    A context manager. Raises what ``read`` and ``open_source`` raise.
    """

    def __init__(self, settings: DreamSettings) -> None:
        self._open = ExitStack()
        self._video = settings.guide if settings.guide and not images.is_image_file(settings.guide) else ""
        if self._video:
            if "://" not in self._video and not self._video.startswith("lavfi:"):
                file_version("guide", self._video)
            settings = replace(settings, guide="")
        self._references = read(settings)
        self._frames: Iterator[Frame] = iter(())
        self._next: Frame | None = None
        self._began_seconds = 0.0
        if self._video:
            self._start(0.0)

    def __enter__(self) -> GuideVideo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._open.close()

    def references_at(self, pts_seconds: float) -> References:
        """The references for the frame at ``pts_seconds``, which must not decrease from call to call."""
        due = None
        while self._next is not None and self._began_seconds + self._next.pts_seconds <= pts_seconds:
            due, self._next = self._next, next(self._frames, None)
            if self._next is None:
                self._start(max(pts_seconds, self._began_seconds + due.pts_seconds + 1e-3))
        if due is not None:
            self._references = replace(self._references, guide=due.image)
        return self._references

    def _start(self, began_seconds: float) -> None:
        from streamdream.media.sources.video import open_source

        self._open.close()
        try:
            source: Source = self._open.enter_context(open_source(self._video))
            self._frames = iter(source)
            self._next = next(self._frames, None)
        except StreamdreamError as error:
            raise type(error)(f"--guide: {error}") from None
        if self._next is None:
            raise SourceError(f"--guide: {self._video} holds no frame")
        self._began_seconds = began_seconds - self._next.pts_seconds
        if self._references.guide is None:
            self._references = replace(self._references, guide=self._next.image)
