"""Make whole pictures of interlaced ones, whose odd and even lines were taken at different times."""
from __future__ import annotations

from typing import Any

from streamdream.media.picture_filter import layout_of, make_graph
from streamdream.media.pyav import copy_times

MODES = {"auto": "where a picture says that it is interlaced", "on": "all pictures", "off": "none"}


class Deinterlacer:
    """FFmpeg's ``bwdif`` in its mode ``send_frame``: one picture for each, with its time, in its pixel format.

    ``mode`` is one of ``MODES``; the order of the fields is what each picture says. A picture is made of the one before
    it, itself and the one after it, and nothing else, so that what comes out is the same wherever decoding began, but
    for the first picture. Progressive pictures go through untouched, unless ``mode`` is ``on``.
    """

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self.used = False
        """Whether a picture was made whole."""
        self._graph: Any = None
        self._before: Any = None
        """The last picture that came while there was no graph."""
        self._waiting: list[Any] = []
        """Pictures in the graph; None for one whose result is dropped."""

    def __call__(self, picture: Any) -> list[Any]:
        """The pictures that are complete with this one; None is the end."""
        from av import FFmpegError

        if picture is None:
            return self._finish()
        done = []
        if self._before is not None and layout_of(self._before) != layout_of(picture):
            done = self._finish()
        before, self._before = self._before, picture
        if self._graph is None:
            if not (self._mode == "on" or (self._mode == "auto" and picture.interlaced_frame)):
                return [*done, picture]
            try:
                self._graph = _make_graph(picture, self._mode)
            except FFmpegError:  # a palette, or fewer lines than the filter needs
                self._mode = "off"
                return [*done, picture]
            self.used = True
            if before is not None and not done and layout_of(before) == layout_of(picture):
                self._push(picture, None)  # the first interlaced one is made of itself alone
                self._push(before, None)
        return [*done, *self._push(picture, picture)]

    def _finish(self) -> list[Any]:
        """All pictures that are in the graph, which is gone then."""
        done = [] if self._graph is None else self._push(None, None)
        self._graph, self._before, self._waiting = None, None, []
        return done

    def _push(self, picture: Any, waiting: Any) -> list[Any]:
        from av.error import BlockingIOError, EOFError

        done: list[Any] = []
        if picture is not None:
            self._waiting.append(waiting)
        self._graph.vpush(picture)
        while True:
            try:
                whole = self._graph.vpull()
            except (BlockingIOError, EOFError):  # it needs the next picture; it has ended
                return done
            original = self._waiting.pop(0)
            if original is not None:  # the filter's own times are in another unit, and none where there were none
                copy_times(original, whole)
                done.append(whole)


def _make_graph(picture: Any, mode: str) -> Any:
    only = "all" if mode == "on" else "interlaced"
    return make_graph(picture, [("bwdif", f"mode=send_frame:parity=auto:deint={only}"),
                                ("format", f"pix_fmts={picture.format.name}")])
