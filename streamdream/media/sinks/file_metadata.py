"""What belongs to the whole file: metadata that fit any container, chapters, the place of a recording, its timecode."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from streamdream.media.input_container import TimeRange, clock_origin
from streamdream.media.pyav import fraction
from streamdream.media.timecode import advance

CONTAINER_SPECIFIC_TAGS = re.compile(r"encoder|major_brand|minor_version|compatible_brands|vendor_id|rotate|name"
                        r"|alpha_mode|timecode|(duration|bps|number_of_|_statistics).*", re.IGNORECASE)
"""Metadata that describe one file, and are wrong or written again in another."""
TIMECODE_FORMATS = LOCATION_FORMATS = {"mp4", "mov", "matroska", "webm"}
LOCATION = re.compile(r"location(-.*)?|com\.apple\.quicktime\.location\.iso6709", re.IGNORECASE)


def portable_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Drop metadata of the input file. An mp4 reads a stream's title as ``name``, and writes it from ``title``."""
    portable = {key: value for key, value in metadata.items() if not CONTAINER_SPECIFIC_TAGS.fullmatch(key)}
    if "name" in metadata:
        portable.setdefault("title", metadata["name"])
    return portable


def copy_metadata(path: str, source: Any, output: Any, span: TimeRange, warnings: list[str]) -> None:
    """Copy metadata and chapters of the av container ``source``, which is the file ``path``, to ``output``, another."""
    output.metadata.update(portable_metadata(source.metadata))
    places = [value for key, value in source.metadata.items() if LOCATION.fullmatch(key)]
    if places and output.format.name in LOCATION_FORMATS:
        output.metadata.setdefault("location", places[0])
    elif places:
        warnings.append(f"{output.format.name} cannot hold the GPS position of {path}; it is left out")
    output.set_chapters(list(_chapters(source, span)))


def _chapters(source: Any, span: TimeRange) -> Iterator[dict[str, Any]]:
    length = None if span.end is None else span.end - span.start
    offset = clock_origin(source) + span.start
    for chapter in source.chapters():
        tick = fraction(chapter["time_base"], Fraction(1, 1000))
        start, end = (chapter[key] * tick - offset for key in ("start", "end"))
        start, end = max(start, Fraction(0)), end if length is None else min(end, length)
        if start < end:
            yield {**chapter, "start": round(start / tick), "end": round(end / tick)}


def timecode_streams(source: Any) -> dict[int, str]:
    """The timecodes of the streams that have one, by index."""
    return {stream.index: text for stream in source.streams if (text := _timecode(stream.metadata))}


def keep_timecode(path: str, source: Any, main: Any, video: Any, container: str, span: TimeRange, warnings: list[str]
                  ) -> tuple[bool, str]:
    """Set the timecode of the first picture on ``video``, the output's stream; the containers make a track of it.

    Return whether there is one now, and a text that tells it, or why not.
    """
    texts = timecode_streams(source)
    found = texts.get(main.index) or _timecode(source.metadata) or next(iter(texts.values()), "")
    rate = fraction(video.average_rate)
    now = advance(found, math.ceil(span.start * rate), rate)
    if now and container in TIMECODE_FORMATS:
        video.metadata["timecode"] = now
        return True, f"as the timecode {now} of the picture"
    reason = f"there is none such at {float(rate):.5g} frames a second"
    if container not in TIMECODE_FORMATS:
        reason = f"{container} cannot hold it"
    if re.search("[1-9]", found):
        warnings.append(f"the timecode {found} of {path} is left out: {reason}")
    return False, reason


def _timecode(metadata: dict[str, str]) -> str:
    return next((text for key, text in metadata.items() if key.lower() == "timecode"), "")
