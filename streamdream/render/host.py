"""What a render takes from the program that it runs in. By default the device and the user's terminal are its own."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamdream.render.job import RenderJob, open_job_source

if TYPE_CHECKING:
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.media.sinks.base import Sink
    from streamdream.media.sources.video import FileSource
    from streamdream.settings import StreamSettings


def _build_dreamer(stream: StreamSettings) -> Dreamer:
    from streamdream.dream.build import build_dreamer

    return build_dreamer(stream)


@dataclass(frozen=True)
class RenderHost:
    """``RenderHost()`` is the command line."""

    build_dreamer: Callable[[StreamSettings], Dreamer] = _build_dreamer
    shares_backend: bool = False
    """Whether ``build_dreamer`` returns dreamers on a backend that others use, too: then none is chosen for the render.
    """
    open_source: Callable[[RenderJob], FileSource] = open_job_source
    device_slot: Callable[[], AbstractContextManager[object]] = nullcontext
    """Entered for each dream."""
    adapt_options: Callable[[DreamOptions], DreamOptions] = lambda options: options
    wrap_sink: Callable[[Sink], Sink] = lambda sink: sink
    """Gets the sink of each range of chunks, and returns one that also shows the frames, say."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Path of an input -> its name in the recipe, where the disk has another one."""
    says_how_to_resume: bool = True
    """Whether an error says that the same command resumes."""


COMMAND_LINE = RenderHost()
