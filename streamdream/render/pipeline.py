"""START HERE: the way of a frame through streamdream, when a file is rendered.

    source ──frame──▶ match ──flow, trust, cut──▶ warp ──seed──▶ ascend ──residual──▶ compose ──▶ sink
                                                    ▲               │
                                                    └───residual────┘   in the state, for the next frame

    source    media/sources/
    match     dream/frame_matching.py, dream/optical_flow.py
    warp      dream/warp.py
    ascend    dream/dreamer.py, ascent/step.py, backends/
    compose   media/compose.py, media/upscale.py
    sink      media/sinks/

The source decodes and the sink encodes in threads of their own; in between one frame after the other is dreamed here,
and ``state`` is all that one leaves to the next. Where a GPU dreams, the next frame is matched meanwhile.

A file is rendered in chunks, so that a render can be interrupted: ``render_file`` in file_render.py makes their plan,
calls ``render_video`` for the frames of each (chunk_render.py), and joins them into the output.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streamdream.automation.automation import Automation
from streamdream.automation.controls import Controls
from streamdream.automation.model_switcher import ModelSwitcher
from streamdream.dream.frame_matching import FrameMatch
from streamdream.errors import SourceError
from streamdream.media.sources.prefetch import prefetch
from streamdream.render.report import RenderReport, summarize

if TYPE_CHECKING:
    from streamdream.dream.device_dreamer import DeviceMatch, PendingDream
    from streamdream.dream.dreamer import Dreamer
    from streamdream.dream.options import DreamOptions
    from streamdream.dream.reference_images import References
    from streamdream.dream.state import DreamState
    from streamdream.media.frame import Frame
    from streamdream.media.sinks.base import Sink
    from streamdream.settings import DreamSettings
    from streamdream.system.stats import Stats


def render_video(source: FrameStream, sink: Sink, dreamer: Dreamer, settings: DreamSettings | Automation,
           on_frame: Callable[[int], None] = lambda count: None,
           references_at: Callable[[float], References | None] = lambda pts_seconds: None,
           build: Callable[[str], Dreamer] | None = None,
           device_slot: Callable[[], AbstractContextManager[object]] = nullcontext,
           options: DreamOptions | None = None, start: RenderStart | None = None,
           checkpoints: Checkpoints | None = None) -> RenderReport:
    """Dream every frame of the source into the sink and finish it.

    ``on_frame`` gets the number of frames done; ``references_at`` gives guide, style and mask of a time in seconds
    (``GuideVideo.references_at``). An ``Automation`` changes the settings on the way, and the network, of which
    ``build`` makes a dreamer. ``device_slot`` is entered for each dream: runs that share a device wait there for it.
    ``options`` are for every dream, and the dreamer's own without them. ``start`` resumes a render whose first
    frames are done; the source must begin behind them. ``checkpoints`` learns of each frame and of the state after it.

    Raises SourceError when the source holds no frame; otherwise what source, dreamer or sink raise. The caller owns
    both ends: leaving ``with sink`` by an exception removes what was written.
    """
    from streamdream.dream.state import DreamState

    automation = settings if isinstance(settings, Automation) else Automation(Controls(settings))
    options, switcher = options or dreamer.options, ModelSwitcher(dreamer, build, patient=True)
    start = start or RenderStart(DreamState())
    start.replay(automation, switcher, references_at)
    stats, state, resets = options.stats, start.state, automation.controls.resets
    writer = _Writer(sink, stats, checkpoints, on_frame)
    with closing(prefetch(source)) as frames, closing(_with_matches(frames, dreamer, automation, options)) as pairs:
        while True:
            with stats.stage("decode_wait"):
                pair = next(pairs, None)
            if pair is None:
                break
            frame, frame_match = automation.on_frame(pair[0]), pair[1]
            dreamer, request = switcher.dreamer_for(
                automation.dream_request_at(frame.pts_seconds), automation.controls
            )
            if resets != automation.controls.resets or frame.discontinuity:
                state, resets = state.emptied(), automation.controls.resets
            with device_slot():
                references = references_at(frame.pts_seconds)
                state, dream = dreamer.submit(state.faded(request.kept), frame, request.dream, references, frame_match,
                                              options)
                # on a device, fetch the dream before while this one is computed
                writer.put(_Dreamed(pair[0], frame, state, dream, automation.frozen_frame),
                           in_flight=1 if dreamer.on_device(request.dream, options) else 0)
        writer.flush()
    if not state.index:
        raise SourceError(f"{source.name} holds no frame to dream")
    with stats.stage("finish"):
        sink.finish()
    return summarize(dreamer, options, automation.controls.current(), (source.height, source.width), state.index,
                     source.warnings + sink.warnings, state.cuts, source.decoder)


class _Dreamed(NamedTuple):
    """A frame as it was read and as it was dreamed, and what it left behind."""

    read: Frame
    frame: Frame
    state: DreamState
    dream: PendingDream
    frozen_frame: Frame | None


class _Writer:
    """Writes dreams, of which a device may still compute the last ones."""

    def __init__(self, sink: Sink, stats: Stats, checkpoints: Checkpoints | None, on_frame: Callable[[int], None]
                 ) -> None:
        self._sink, self._stats, self._checkpoints, self._on_frame = sink, stats, checkpoints, on_frame
        self._pending: deque[_Dreamed] = deque()

    def put(self, dreamed: _Dreamed, in_flight: int) -> None:
        """Write all but the last ``in_flight`` dreams, of which this is one."""
        self._pending.append(dreamed)
        self.flush(in_flight)

    def flush(self, in_flight: int = 0) -> None:
        while len(self._pending) > in_flight:
            read, frame, state, dream, frozen_frame = self._pending.popleft()
            picture = dream.result()
            if self._checkpoints:
                self._checkpoints.before_frame(read)
                self._checkpoints.before_write(state, frozen_frame)
            with self._stats.stage("encode_wait"):
                self._sink.write(picture, frame)
            self._on_frame(state.index)


class FrameStream(Protocol):
    """What is needed of a ``Source`` here."""

    @property
    def name(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def decoder(self) -> str: ...
    def __iter__(self) -> Iterator[Frame]: ...


class Checkpoints(Protocol):
    """Keeps what a later process needs to go on with the render; see ``chunk_writer.py``."""

    def before_frame(self, frame: Frame) -> None:
        """The dream of ``frame``, as the source gave it, is written next."""

    def before_write(self, state: DreamState, frozen_frame: Frame | None) -> None:
        """``state`` is that after this frame; ``frozen_frame`` is that of a frozen source."""


@dataclass(frozen=True)
class RenderStart:
    """Where a render goes on: the state after the frames that are done, and their times in seconds."""

    state: DreamState
    earlier_seconds: Sequence[float] = ()
    frozen_frame: Frame | None = None

    def replay(self, automation: Automation, switcher: ModelSwitcher,
               references_at: Callable[[float], References | None]) -> None:
        """Bring what changes over time to where it was after those frames."""
        from streamdream.media.frame import blank_frame

        for pts_seconds in self.earlier_seconds:
            automation.on_frame(blank_frame(pts_seconds))
            switcher.dreamer_for(automation.dream_request_at(pts_seconds), automation.controls)
            references_at(pts_seconds)
        if self.frozen_frame is not None:
            automation.freeze_at(self.frozen_frame)


def _with_matches(frames: Iterable[Frame], dreamer: Dreamer, automation: Automation, options: DreamOptions
                  ) -> Generator[tuple[Frame, FrameMatch | DeviceMatch | None], None, None]:
    """Each frame, and how it matches the one before it, where that is worth being known beforehand."""
    if matches_ahead(dreamer):
        yield from prefetch(match_stream(frames, dreamer, automation.controls.current, options), 1, "match")
    else:
        yield from ((frame, None) for frame in frames)


def matches_ahead(dreamer: Dreamer) -> bool:
    """Where steps and flow are computed by the same two cores it gained nothing; figures:
    docs/notebook/2026-11-26-match-ahead.md.
    """
    return dreamer.backend.device.type != "cpu"


def match_stream(frames: Iterable[Frame], dreamer: Dreamer, settings: Callable[[], DreamSettings],
                 options: DreamOptions | None = None) -> Generator[tuple[Frame, FrameMatch | DeviceMatch], None, None]:
    """Each frame, matched with the one before it by the settings of that moment. What they are when it is dreamed, the
    dreamer looks at again.
    """
    previous = None
    for frame in frames:
        frame_match = dreamer.match(frame.image, previous, settings(), options)
        previous = frame_match.reference
        yield frame, frame_match
