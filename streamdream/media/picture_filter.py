"""Chains of FFmpeg's filters that turn one picture into one picture."""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from streamdream.media.pyav import copy_times

FilterChain = Sequence[tuple[str, str]]
"""Names of filters with their arguments."""


def make_graph(picture: Any, filters: FilterChain) -> Any:
    """A graph for pictures of this size and pixel format. Raises FFmpegError where a filter cannot take them."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1  # others decode and dream meanwhile
    source = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format,
                              time_base=picture.time_base or Fraction(1, 1000))
    graph.link_nodes(source, *(graph.add(name, args) for name, args in filters), graph.add("buffersink"))
    graph.configure()
    return graph


class PictureFilter:
    """Filters that give a picture for each one at once; it keeps its times."""

    def __init__(self, filters: FilterChain) -> None:
        self._filters = filters
        self._graph: Any = None
        self._layout: tuple[int, int, str] | None = None

    def __call__(self, picture: Any) -> Any:
        """Raises FFmpegError."""
        if layout_of(picture) != self._layout:
            self._graph, self._layout = make_graph(picture, self._filters), layout_of(picture)
        self._graph.vpush(picture)
        filtered = self._graph.vpull()
        copy_times(picture, filtered)
        return filtered


def layout_of(picture: Any) -> tuple[int, int, str]:
    """Width, height and pixel format: what a graph is made for."""
    return picture.width, picture.height, picture.format.name
