"""What must hold of a rendered input: a check by its name. Each gets what was made and the value that a row names."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from support.inputs import chart
from support.inputs.rendered import Rendered, opened, packets, sounds, tone

FRAME_SECONDS = 0.04
"""Of most inputs."""
SOUND_SECONDS = 0.06
"""An encoder's blocks may make sound longer by so much."""
COLORS = {"bt601": (6, 6, 6), "bt470bg": (5, 5, 6), "bt709": (1, 1, 1), "bt2020": (9, 9, 14), "hlg": (9, 9, 18),
          "pq": (9, 9, 16), "untagged": (2, 2, 2)}
"""Name -> matrix, primaries, transfer."""
BLOCK = 1100
"""Samples of an encoder's block, about."""
BLACK_LEVEL = 30
Check = Callable[[Rendered, Any], None]


def _frames(made: Rendered, count: int) -> None:
    assert len(made.frames) == count, "number of frames"


def _numbers(made: Rendered, numbers: Sequence[int]) -> None:
    """The pictures with these numbers, in this order: none is lost, doubled or in another's place."""
    assert [chart.number_of(frame) for frame in made.frames] == list(numbers), "order of the frames"


def _times(made: Rendered, seconds: Sequence[float]) -> None:
    """Since the first frame, within a tick of the output."""
    found = np.array(made.seconds) - made.seconds[0]
    assert len(found) == len(seconds), "number of frames"
    late = np.abs(found - np.array(seconds)).max()
    assert late <= made.stream["tick"] + 1e-6, f"a frame is {late:.4f} s from its time"


def _starts(made: Rendered, seconds: float) -> None:
    """The first frame, but for the head of the sound that an encoder adds."""
    assert abs(made.seconds[0] - seconds) <= 0.05, f"the first frame is at {made.seconds[0]:.3f} s"


def _rate(made: Rendered, rate: Fraction | int) -> None:
    """Constant: the average is exact, and all frames last as long."""
    assert made.stream["rate"] == rate, "average rate"
    steps = np.diff(made.seconds)
    assert np.ptp(steps) <= 2 * min(made.stream["tick"], 0.0011), "a frame lasts longer than others"


def _duration(made: Rendered, seconds: float) -> None:
    """Of the pictures, to the end of the last one."""
    times = packets(made.output, "video")[0]
    length = max(start + lasts for start, lasts, _ in times) - min(start for start, _, _ in times)
    assert abs(length - seconds) <= made.stream["tick"] + 0.0015, f"{length:.4f} s long"


def _sound(made: Rendered, codecs: Sequence[str]) -> None:
    """Codecs of the sound streams."""
    assert [name for name, *_ in sounds(made.output)] == list(codecs), "codecs of the sound"


def _sound_copied(made: Rendered, streams: Sequence[int]) -> None:
    """These streams of the input, packet by packet, at the same times as before, seen from the pictures."""
    source, output = packets(made.source, "audio"), packets(made.output, "audio")
    shift = _first_picture(made.source) - _first_picture(made.output)
    assert len(output) == len(streams), "number of sound streams"
    for index, copied in zip(streams, output, strict=True):
        assert [data for *_, data in copied] == [data for *_, data in source[index]], "packets of the sound"
        late = [abs(time - before + shift) for (time, *_), (before, *_) in zip(copied, source[index], strict=True)]
        assert max(late) < 0.002, f"sound is {max(late):.3f} s late or early"


def _sound_seconds(made: Rendered, lengths: Sequence[float]) -> None:
    """Length of each sound stream, decoded."""
    found = [(length, len(samples) / length if length else 1) for _, _, length, samples in sounds(made.output)]
    assert len(found) == len(lengths), "number of sound streams"
    for (length, rate), wanted in zip(found, lengths, strict=True):
        assert abs(length - wanted) <= max(SOUND_SECONDS, BLOCK / rate), f"{length:.3f} s of sound"


def _tones(made: Rendered, hertz: Sequence[float]) -> None:
    """The tone of each sound stream."""
    found = [tone(samples, length) for _, _, length, samples in sounds(made.output)]
    assert len(found) == len(hertz), "number of sound streams"
    for frequency, wanted in zip(found, hertz, strict=True):
        assert abs(frequency - wanted) < 0.03 * wanted, f"a tone of {frequency:.0f} Hz"


def _sync(made: Rendered, seconds: float) -> None:
    """Start of the first sound, seen from the first picture."""
    found = sounds(made.output)
    assert found, "there is no sound"
    late = found[0][1] - made.seconds[0]
    assert abs(late - seconds) <= 0.03, f"sound starts {late:.3f} s after the pictures"


def _first_picture(path: Path | str) -> float:
    return min(time for time, *_ in packets(path, "video")[0])


def _subtitles(made: Rendered, lines: Sequence[tuple[float, str]]) -> None:
    """Start in s, seen from the first picture, and text of each line."""
    found = [line for stream in packets(made.output, "subtitle") for line in stream if len(line[2]) > 2]
    first = made.seconds[0]
    for start, text in lines:
        near = [data for time, _, data in found if abs(time - first - start) < 0.02]
        assert any(text.encode() in data for data in near), f"subtitle {text!r} at {start} s"
    assert len(found) == len(lines), "number of subtitles"


def _subtitle_codec(made: Rendered, names: Sequence[str]) -> None:
    with opened(made.output) as file:
        found = [stream.codec_context.codec.canonical_name for stream in file.streams.subtitles]
    assert found == list(names), "codecs of the subtitles"


def _chapters(made: Rendered, titles: Sequence[str]) -> None:
    """Titles; each begins 0.2 s after the one before."""
    chapters = made.stream["chapters"]
    assert [chapter["metadata"].get("title") for chapter in chapters] == list(titles), "chapters"
    starts = [float(chapter["start"] * chapter["time_base"]) for chapter in chapters]
    assert np.allclose(starts, 0.2 * np.arange(len(titles)), atol=0.002), "starts of chapters"


def _colors(made: Rendered, tolerance: float) -> None:
    """The patches of the chart, in the first and the last frame."""
    for frame in made.frames[:1] + made.frames[-1:]:
        for place, color in enumerate(chart.PATCHES):
            error = np.abs(chart.color_at(frame, chart.patch_box(place)) - color).max()
            assert error <= tolerance, f"patch {place} is off by {error:.0f}"


def _opaque_colors(made: Rendered, tolerance: float) -> None:
    """The patches of the right half."""
    for frame in made.frames[:1] + made.frames[-1:]:
        for place in (3, 4, 5):
            error = np.abs(chart.color_at(frame, chart.patch_box(place)) - chart.PATCHES[place]).max()
            assert error <= tolerance, f"patch {place} is off by {error:.0f}"


def _lossless(made: Rendered, _: bool) -> None:
    """Every sample of every plane."""
    source = Rendered(made.source, made.source).frames
    assert len(source) == len(made.frames), "number of frames"
    for number, (frame, before) in enumerate(zip(made.frames, source, strict=True)):
        assert frame.format.name == before.format.name, f"{before.format.name} became {frame.format.name}"
        for plane in range(len(before.planes)):
            assert np.array_equal(chart.samples(frame, plane), chart.samples(before, plane)), \
                f"frame {number}, plane {plane}"


def _grey(made: Rendered, _: bool) -> None:
    """Every sample of luma, and no colour: a dream has some, so grey does not stay grey."""
    source = Rendered(made.source, made.source).frames
    assert len(source) == len(made.frames), "number of frames"
    for number, (frame, before) in enumerate(zip(made.frames, source, strict=True)):
        assert np.array_equal(chart.samples(frame, 0), chart.samples(before, 0)), f"frame {number}, luma"
        for plane in (1, 2) if len(frame.planes) == 3 else ():
            kind: Any = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
            middle = 1 << frame.format.components[0].bits - 1
            chroma = np.ascontiguousarray(chart.samples(frame, plane)).view(kind)
            assert (chroma == middle).all(), f"frame {number}, plane {plane}"


def _hdr(made: Rendered, what: str) -> None:
    """``hlg`` or ``pq`` with 10 bits or more, or ``mapped`` to BT.709: never 8 bits that say HDR."""
    for frame in made.frames:
        is_hdr = frame.color_trc in (16, 18)
        bits = frame.format.components[0].bits
        assert not is_hdr or bits >= 10, f"HDR with {bits} bits"
        if what in ("hlg", "pq"):
            _tagged(made, what)
        else:
            assert (frame.colorspace, frame.color_primaries, frame.color_trc) == COLORS["bt709"], "BT.709"
            grey = chart.color_at(frame, chart.patch_box(3))
            assert 60 < grey.mean() < 220 and np.ptp(grey) < 12, f"grey became {grey}"


def _mastering(made: Rendered, _: bool) -> None:
    """Static metadata of HDR10, as the decoder finds them in the input."""
    kinds = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
    source = Rendered(made.source, made.source).frames[0]
    for kind in kinds:
        before, after = source.side_data.get(kind), made.frames[0].side_data.get(kind)
        assert after is not None and bytes(after) == bytes(before), kind


def _clean_aperture(made: Rendered, size: tuple[int, int]) -> None:
    """Cropped to it, or said."""
    if (made.frames[0].width, made.frames[0].height) != size:
        _says(made, ("clean aperture|clap|crop",))


def _tagged(made: Rendered, names: str | Sequence[str]) -> None:
    """The colour tags of all frames are those of one of these names in ``COLORS``."""
    legal = [COLORS[name] for name in ([names] if isinstance(names, str) else names)]
    for frame in made.frames:
        tags = frame.colorspace, frame.color_primaries, frame.color_trc
        assert tags in legal, f"tags {tags}"


def _upright(made: Rendered, whole: chart.Box | bool) -> None:
    """All frames; ``whole`` is the part of them that the chart fills."""
    box = (0, 0, 1, 1) if isinstance(whole, bool) else whole
    for number, frame in enumerate(made.frames):
        assert frame.rotation == 0, "a rotation that some players ignore"
        corners = chart.corners_of(frame, box)
        assert all(place == name for place, name in corners.items()), f"frame {number}: {corners}"


def _fitted(made: Rendered, boxes: Sequence[tuple[int, chart.Box]]) -> None:
    """In these frames the chart fills a box, upright, and what is outside is black."""
    for number, box in boxes:
        frame = made.frames[number]
        assert all(place == name for place, name in chart.corners_of(frame, box).items()), f"frame {number}"
        left, top, right, bottom = box
        for outside in ((0, 0, left - 0.03, 1), (right + 0.03, 0, 1, 1), (0, 0, 1, top - 0.03),
                        (0, bottom + 0.03, 1, 1)):
            if outside[0] < outside[2] and outside[1] < outside[3]:
                assert chart.color_at(frame, outside).max() < BLACK_LEVEL, f"frame {number}: no bars"


def _languages(made: Rendered, names: Sequence[str]) -> None:
    """Of the sound streams."""
    with opened(made.output) as file:
        assert [stream.metadata.get("language") for stream in file.streams.audio] == list(names), "languages"


def _timecode(made: Rendered, timecode: str) -> None:
    """Kept and right, or left out and said."""
    found = made.stream["metadata"].get("timecode")
    if found is None:
        _says(made, ("timecode|tmcd",))
    else:
        assert found == timecode, f"timecode {found}"


def _animation(made: Rendered, facts: tuple[int, int]) -> None:
    """Number of pictures, and what each lasts in ms, as Pillow finds them: FFmpeg does not read such WebP files."""
    from PIL import Image

    count, lasts = facts
    with Image.open(made.output) as image:
        assert getattr(image, "n_frames", 1) == count, "number of frames"
        for number in range(count):
            image.seek(number)
            image.load()
            assert abs(image.info["duration"] - lasts) <= 10, "duration of a picture"


def _size(made: Rendered, size: tuple[int, int]) -> None:
    assert {(frame.width, frame.height) for frame in made.frames} == {size}, "size of the frames"


def _aspect(made: Rendered, aspect: Fraction) -> None:
    assert made.stream["aspect"] == aspect, "shape of a pixel"


def _pixels(made: Rendered, names: Sequence[str]) -> None:
    found = {frame.format.name for frame in made.frames}
    assert found <= set(names), f"pixel format {found}"


def _codec(made: Rendered, name: str) -> None:
    assert made.stream["codec"] == name, "codec of the pictures"


def _tag(made: Rendered, tag: str) -> None:
    assert made.stream["tag"] == tag, "tag of the codec"


def _alpha(made: Rendered, opaque: Sequence[float]) -> None:
    """Opacity of the left and the right half of every frame."""
    for frame in made.frames:
        found = [chart.alpha_at(frame, box) for box in ((0.1, 0.1, 0.4, 0.9), (0.6, 0.1, 0.9, 0.9))]
        assert np.abs(np.array(found) - opaque).max() < 0.04, f"opacity {found}"


def _combs(made: Rendered, most: float) -> None:
    worst = max(chart.combs(frame) for frame in made.frames)
    assert worst <= most, f"neighbouring lines differ by {worst:.1f}"


def _delays(made: Rendered, least: float) -> None:
    """Of the pictures of a GIF, whose players slow down below 20 ms."""
    found = packets(made.output, "video")[0]
    lasts = [*np.diff([time for time, *_ in found]), found[-1][1]]
    assert min(lasts) >= least - 1e-6, f"a picture lasts {min(lasts)} s"


def _tags(made: Rendered, tags: dict[str, str]) -> None:
    found = made.stream["metadata"]
    assert tags.items() <= found.items(), f"metadata {found}"


def _streams(made: Rendered, types: Sequence[str]) -> None:
    assert sorted(made.stream["streams"]) == sorted(types), "streams"


def _says(made: Rendered, patterns: Sequence[str]) -> None:
    """A line for each pattern."""
    for pattern in patterns:
        found = any(re.search(pattern, line, re.IGNORECASE) for line in made.said)
        assert found, f"nothing says {pattern!r}: {made.said}"


def _may_say(made: Rendered, patterns: Sequence[str]) -> None:
    """Every warning is one of these."""
    for warning in made.warnings:
        assert any(re.search(pattern, warning, re.IGNORECASE) for pattern in patterns), warning


def _refused(made: Rendered, pattern: str) -> None:
    """One line that names the reason, and no output."""
    errors = [line for line in made.stderr.splitlines() if line.startswith("error: ")]
    assert made.code in (1, 2) and len(errors) == 1, made.stderr
    assert re.search(pattern, errors[0], re.IGNORECASE), errors[0]
    assert not Path(made.output).exists()


HOLDS: dict[str, Check] = {
    "frames": _frames, "numbers": _numbers, "times": _times, "starts": _starts, "rate": _rate, "duration": _duration,
    "sound": _sound, "sound_copied": _sound_copied, "sound_seconds": _sound_seconds, "tones": _tones, "sync": _sync,
    "subtitles": _subtitles, "subtitle_codec": _subtitle_codec, "chapters": _chapters, "colors": _colors,
    "tagged": _tagged, "upright": _upright, "fitted": _fitted, "size": _size, "aspect": _aspect, "pixels": _pixels,
    "codec": _codec, "tag": _tag, "alpha": _alpha, "combs": _combs, "delays": _delays, "tags": _tags,
    "streams": _streams, "languages": _languages, "timecode": _timecode, "animation": _animation, "says": _says,
    "may_say": _may_say, "lossless": _lossless, "grey": _grey, "opaque_colors": _opaque_colors, "hdr": _hdr,
    "mastering": _mastering, "clean_aperture": _clean_aperture, "refused": _refused,
}


def check(made: Rendered, holds: dict[str, Any]) -> None:
    """All that a row names, or one of the cases in ``either``; no warning passes that is not named.

    Raises AssertionError, with all failures.
    """
    if "either" in holds:
        _check_either(made, holds["either"])
        return
    assert "Traceback" not in made.stderr, made.stderr
    if "refused" not in holds:
        assert made.code == 0, made.stderr
        holds = {**holds, "may_say": (*holds.get("may_say", ()), *holds.get("says", ()))}
    failures = []
    for name, value in holds.items():
        try:
            HOLDS[name](made, value)
        except AssertionError as failure:
            failures.append(f"{name}: {str(failure).splitlines()[0]}")
    assert not failures, "\n".join(failures)


def _check_either(made: Rendered, cases: Sequence[dict[str, Any]]) -> None:
    failures = []
    for case in cases:
        try:
            check(made, case)
            return
        except AssertionError as failure:
            failures.append(str(failure))
    raise AssertionError(" and ".join(failures))
