"""Read the frames of a container that PyAV can open: a file, a network stream, a filter graph, a pipe."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from streamdream.errors import SourceError, StreamdreamError, UsageError
from streamdream.media import planes
from streamdream.media.conform import Conformer, PictureForm
from streamdream.media.frame import Frame, picture_checksum
from streamdream.media.hardware_decoding import IN_SOFTWARE, HardwareDecoding, HardwareError, Hwaccel, say_once
from streamdream.media.hdr_metadata import HdrMetadata, static_metadata
from streamdream.media.input_container import TimeRange, clock_origin, stated_end
from streamdream.media.losses import losses
from streamdream.media.packet_scan import estimate_pictures
from streamdream.media.picture_reader import PictureReader, ReadPicture
from streamdream.media.pyav import fraction
from streamdream.media.timestamps import RESET_SECONDS, SourcePosition, TimestampRepair, frame_rate

SEEK_MARGINS_SECONDS = (0, 2, 20)
"""How far before the start to seek, in turn, while a poor index leads to a picture after it."""
RESUME_MARGINS_SECONDS = (2, 20)
"""The same, to go on within a file: near an open group of pictures the first few cannot be decoded."""


class _Taken(NamedTuple):
    """A picture with its repaired timestamp."""

    picture: Any
    pts: int
    form: PictureForm
    is_new_form: bool
    position: SourcePosition


class AvSource:
    """A container that PyAV can open, as a ``Source``. The constructor decodes the first picture.

    ``open`` returns an av container; it is called again when seeking fails. Raises SourceError when there is no video
    in it or nothing can be decoded, UsageError when ``span`` starts after the last frame. ``deinterlace`` is one of
    ``deinterlace.MODES``. What is not ``is_seekable`` is opened once. Where ``hwaccel`` decodes on a device, ``open``
    takes PyAV's ``HWAccel`` as ``hwaccel``.
    """

    def __init__(self, name: str, open: Callable[..., Any], span: TimeRange, deinterlace: str = "auto",
                 is_seekable: bool = True, hwaccel: Hwaccel = IN_SOFTWARE) -> None:
        self.name = name
        self.warnings: list[str] = []
        self.last_duration = Fraction(0)
        self._span, self._is_seekable = span, is_seekable
        self._skipped = 0
        """Frames of the range that were left out."""
        self.pixel_format, self.transparent = "rgb24", False
        self._delivers_pictures = False
        self._hwaccel, self._hardware = hwaccel, HardwareDecoding(hwaccel)
        self._reader = PictureReader(open, name, deinterlace, self._hardware, is_seekable)
        try:
            self.time_base = self._reader.time_base
            self.rate = frame_rate(self._reader.stream)
            self._step = 1 / self.rate / self.time_base
            self._window = span.ticks(clock_origin(self._reader.container), self.time_base)
            self._next: _Taken | None = self._first()
            self._describe(self._next)
        except BaseException:
            self._reader.close()
            raise

    def _describe(self, taken: _Taken) -> None:
        """Take the properties of all frames from the first picture."""
        picture = taken.picture
        self._form, self._conform = taken.form, Conformer(taken.form)
        self._size = self._image_size = picture.width, picture.height
        self._rotation = self._reader.decoder.describe(picture, taken.form.rotation)
        self.width, self.height = self._size[::-1] if self._rotation.transpose else self._size
        self.pixel_aspect, self.color = taken.form.upright[2], self._reader.decoder.color
        reader = self._reader
        self.frame_count = estimate_pictures(reader.container, reader.stream, self._span, self.rate,
                                             reader.open if self._is_seekable and "://" not in self.name else None)
        self.hdr_metadata: HdrMetadata | None = static_metadata(picture)
        for loss in losses(picture):
            self._warn_once(loss)
        if self._hardware.reason:
            self._say_software(self._hardware.reason)
        elif self._hardware.device_type:
            say_once(f"{self.name} is decoded with {self._hardware.device_type}")

    def deliver_pictures(self, image_height: int, image_width: int) -> None:
        """As of ``FileSource``."""
        assert self._next is not None
        self._delivers_pictures = True
        self._image_size = (image_height, image_width) if self._rotation.transpose else (image_width, image_height)
        planar = self._reader.decoder.to_planar(self._next.picture, self._rotation, self._size)
        self.pixel_format, self.transparent = planar.format.name, not planes.is_opaque(planar)

    @property
    def constant_rate(self) -> bool:
        return bool(self.rate == fraction(self._reader.stream.base_rate))

    @property
    def decoder(self) -> str:
        return self._hardware.decoder

    @property
    def decoder_reason(self) -> str:
        return self._hardware.reason

    # Reading: pictures -> pictures with a timestamp -> frames.

    def __iter__(self) -> Iterator[Frame]:
        taken, self._next = self._next, None
        last, count = 0, self._skipped
        while taken is not None and taken.pts < self._window.end:
            last, count = taken.pts, count + 1
            self.last_duration = (taken.picture.duration or self._step) * self.time_base
            yield self._frame(taken)
            taken = self._following(taken, count - 1)
        if taken is not None and count:
            self.last_duration = min(self.last_duration, Fraction(self._window.end - last) * self.time_base)
        elif count:
            self._check_completeness(last, count)

    def _frame(self, taken: _Taken) -> Frame:
        pts = taken.pts - self._window.shift
        time_base = self.time_base.numerator, self.time_base.denominator
        picture, decoder = self._conformed(taken), self._reader.decoder
        image = decoder.to_rgb(picture, self._rotation, self._image_size)
        planar = None
        if self._delivers_pictures:
            planar = decoder.to_planar(picture, self._rotation, self._size, self.pixel_format)
        return Frame(image, float(pts * self.time_base), pts, time_base, taken.position, planar, taken.is_new_form)

    def _conformed(self, taken: _Taken) -> Any:
        from av import FFmpegError

        if taken.form.shape != self._form.shape:
            self._warn_once(f"changes its size or orientation; all pictures are fitted into {self.width}x{self.height}")
        try:
            return self._conform(taken.picture, taken.form)
        except (FFmpegError, ValueError):
            raise SourceError(f"{self.name} has pictures that cannot be read, {taken.form.pixel_format}") from None

    def _warn_once(self, text: str) -> None:
        if (line := f"{self.name} {text}") not in self.warnings:
            self.warnings.append(line)

    def _following(self, taken: _Taken, index: int) -> _Taken | None:
        """The picture after that of frame ``index``; by software from there on, where a device fails."""
        try:
            return self._take()
        except HardwareError as error:
            self._hardware.fail(str(error))
            self._say_software(f"{error} after {index + 1} frames")
            self._go_to(taken.position, index)
            self._next = None  # it was delivered
            return self._take()

    def _say_software(self, reason: str) -> None:
        """A warning where the user has named a device; else nothing is amiss."""
        if self._hwaccel.is_named:
            self._warn_once(f"is decoded in software, not with --hwaccel {self._hwaccel.name}: {reason}")
        elif self._hardware.was_tried:
            say_once(f"{self.name} is decoded in software: {reason}")

    def _take(self) -> _Taken | None:
        read = self._reader.next()
        return None if read is None else self._timed(read)

    def _timed(self, read: ReadPicture) -> _Taken:
        pts = read.picture.pts
        position = self._clock.position(pts, self._reader.decoder.damaged)
        following = self._reader.peek() if self._clock.is_jump(pts) else None
        time = self._clock(pts, following.picture.pts if following else None)
        if self._reader.deinterlacer.used:
            self._warn_once("is interlaced: its pictures are made whole")
        return _Taken(read.picture, time, read.form, read.is_new_form, position)

    def _first(self) -> _Taken:
        """The first picture of the range."""
        try:
            return self._find_first()
        except HardwareError as error:
            self._hardware.fail(str(error))
            self._reader.reopen()
            return self._find_first()

    def _find_first(self) -> _Taken:
        taken = self._seek_to_start()
        while taken is not None and taken.pts < self._window.first:
            taken = self._take()
        if taken is None:
            raise self._no_frames_error()
        if taken.pts >= self._window.end:
            raise UsageError(f"{self.name} has no frame between {float(self._span.start):g} and "
                             f"{float(self._span.end or 0):g} s")
        return taken._replace(is_new_form=False)

    def _seek_to_start(self) -> _Taken | None:
        """A picture at or before the start, or the first one of the input."""
        if not self._is_seekable or not self._span.start:
            return self._restart()
        for margin in SEEK_MARGINS_SECONDS:
            target = max(int(self._window.first - margin / self.time_base), self._reader.stream.start_time or 0)
            if not self._reader.seek(target):
                break
            taken = self._restart()
            # A deinterlaced picture is made of the one before it, too.
            latest = self._window.first - self._reader.deinterlacer.used
            if taken is not None and taken.position.raw_pts is not None and taken.pts <= latest:
                return taken
        self._reader.reopen()
        return self._restart()

    def _restart(self) -> _Taken | None:
        self._start_decoding()
        return self._take()

    def _start_decoding(self) -> None:
        self._reader.start()
        self._clock = TimestampRepair(self._step, self.time_base, self._warn_once, self._reader.sound)

    def resume_at(self, position: SourcePosition, index: int, checksum: int | None) -> None:
        """As of ``FileSource``. The frame is looked for behind a seek, where the index of the file may be poor, and
        otherwise by decoding all that comes before.
        """
        self._skipped = index
        try:
            self._go_to(position, index, checksum)
        except HardwareError as error:
            self._hardware.fail(str(error))
            self._say_software(str(error))
            self._go_to(position, index, checksum)

    def _go_to(self, position: SourcePosition, index: int, checksum: int | None = None) -> None:
        for margin in RESUME_MARGINS_SECONDS if position.raw_pts is not None else ():
            if self._seek_near(position, margin) and self._matches(checksum):
                return
        self._reader.reopen()
        self._next = self._first()
        for _ in range(index):
            self._next = self._take()
        if not self._matches(checksum):
            raise SourceError(f"{self.name} decodes into other pictures than before")

    def _seek_near(self, position: SourcePosition, margin: float) -> bool:
        """Decode from a keyframe at least ``margin`` seconds before the position up to it; False if it is not met."""
        assert position.raw_pts is not None
        target = position.raw_pts - int(margin / self.time_base)
        if target <= (self._reader.stream.start_time or 0):
            return False
        self._reader.reopen()
        if not self._reader.seek(target):
            return False
        self._start_decoding()
        while read := self._reader.next():
            pts = read.picture.pts
            if pts == position.raw_pts:
                self._clock.restore(position)
                self._reader.decoder.damaged = position.damaged
                self._next = self._timed(read)
                return not read.is_first  # what came before it counts, too
            if pts is not None and pts > position.raw_pts + RESET_SECONDS / self.time_base:
                break
        return False

    def _matches(self, checksum: int | None) -> bool:
        """Whether it is at a frame, with that checksum where it is known."""
        return self._next is not None and (checksum is None or picture_checksum(self._frame(self._next)) == checksum)

    def _no_frames_error(self) -> StreamdreamError:
        start, origin = self._span.start, clock_origin(self._reader.container)
        last = (self._clock.last or 0) * self.time_base - origin
        end = self._stated_end()
        length = last if end is None else end - origin
        if start >= length and self._clock.last is not None:
            return UsageError(f"the start at {float(start):g} s is beyond the end of {self.name}, "
                              f"which lasts {float(length):.4g} s")
        if self._clock.last is not None and not self._reader.broken and not self._reader.decoder.damaged:
            return UsageError(f"{self.name} has no frame at or after {float(start):g} s; its last one is at "
                              f"{float(last):.4g} s")
        if not self._is_seekable and "mov" in self._reader.container.format.name:
            return SourceError(f"{self.name} has its index after its pictures, so it cannot come through a pipe; name "
                               "the file, or send another container, such as nut")
        return SourceError(f"{self.name} is damaged: nothing in it could be decoded")

    def _stated_end(self) -> Fraction | None:
        """Where the header says that the video ends, in seconds, without the gaps that were closed."""
        stated = stated_end(self._reader.container, self._reader.stream)
        return None if stated is None else stated + min(self._clock.shift, 0) * self.time_base

    def _check_completeness(self, last_pts: int, count: int) -> None:
        """Warn at the end of the input when something is missing."""
        last, reader = last_pts * self.time_base, self._reader
        reached = last + self.last_duration
        if reached >= self._window.end * self.time_base:
            return
        stated = (None if self._clock.has_doubtful_end else self._stated_end()) or reached
        index: Any = reader.stream.index_entries if "mov" in reader.container.format.name else ()
        # The index of an mp4 is exact. A stated end is not: the last frame may last long.
        missing = (index[-1].timestamp > reader.last_dts if index
                   else stated > reached + max(Fraction(1), 10 / self.rate))
        if reader.broken or missing:
            length = float(reached - clock_origin(reader.container))
            self.warnings.append(f"{self.name} is damaged after {length:.1f} s; the {count} frames before were kept")
        elif stated > last and "asf" not in reader.container.format.name:  # there it is that of the longest stream
            self.last_duration = stated - last
        if reader.decoder.damaged:
            self.warnings.append(f"{reader.decoder.damaged} damaged packets of {self.name} were skipped")

    @property
    def has_sound(self) -> bool:
        return bool(self._reader.container.streams.audio)

    def close(self) -> None:
        self._next = None
        self._reader.close()

    def __enter__(self) -> AvSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
