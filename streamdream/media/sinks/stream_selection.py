"""``-map``: which streams of the input the output keeps, in FFmpeg's form."""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamdream.errors import UsageError
from streamdream.media.input_container import is_attached_picture

LEGAL_FORM = ("streams in ffmpeg's form, separated by spaces: 0:3 (the fourth stream), 0:a:1 (the second sound track), "
              "0:s (all subtitles), 0:m:language:eng, -0:d (without data), 0:a? (if there is one)")
SPECIFIER = re.compile(r"(?P<minus>-?)0(?::(?P<stream>.+?))?(?P<optional>\??)", re.ASCII)
TYPES: dict[str, Callable[[Any], bool]] = {
    "v": lambda stream: stream.type == "video",
    "V": lambda stream: stream.type == "video" and not is_attached_picture(stream),
    "a": lambda stream: stream.type == "audio",
    "s": lambda stream: stream.type == "subtitle",
    "d": lambda stream: stream.type == "data",
    "t": lambda stream: stream.type == "attachment",
}


@dataclass(frozen=True)
class _Specifier:
    text: str
    keeps: bool
    optional: bool
    stream: str

    def matches(self, streams: list[Any]) -> set[int]:
        """The indices of the streams that it names. Raises UsageError for a form that is not legal."""
        kind, _, rest = self.stream.partition(":")
        if not self.stream:
            return {stream.index for stream in streams}
        if kind in TYPES:
            streams = [stream for stream in streams if TYPES[kind](stream)]
            if not rest:
                return {stream.index for stream in streams}
            kind = rest
        elif kind == "m" and rest:
            key, _, value = rest.partition(":")
            return {stream.index for stream in streams
                    if key in stream.metadata and value in ("", stream.metadata[key])}
        if not kind.isdecimal() or (kind != rest and rest):
            raise illegal(self.text)
        return {stream.index for stream in streams[int(kind):int(kind) + 1]}


class StreamSelection:
    """The text of ``-map``. Raises UsageError where it is not in FFmpeg's form.

    Without any specifier that keeps streams all are kept; later ones win. The video that is dreamed is always there.
    """

    def __init__(self, text: str) -> None:
        self._specifiers = []
        for part in text.split():
            match = SPECIFIER.fullmatch(part)
            if match is None:
                raise illegal(part)
            specifier = _Specifier(part, not match["minus"], bool(match["optional"]), match["stream"] or "")
            specifier.matches([])
            self._specifiers.append(specifier)

    def select(self, name: str, streams: list[Any]) -> set[int]:
        """The indices of the streams of the file ``name`` that are kept. Raises UsageError for one that is not there.
        """
        kept = set() if any(each.keeps for each in self._specifiers) else {stream.index for stream in streams}
        for specifier in self._specifiers:
            found = specifier.matches(streams)
            if not found and not specifier.optional:
                there = ", ".join(f"0:{stream.index} ({stream.type})" for stream in streams)
                raise UsageError(f"-map {specifier.text} matches no stream of {name}, which has {there}; "
                                 f"{specifier.text}? takes it if it is there")
            kept = kept | found if specifier.keeps else kept - found
        return kept


def illegal(text: str) -> UsageError:
    return UsageError(f"-map is {text!r}, but must be {LEGAL_FORM}")
