"""Rates and timestamps."""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from support.inputs.boxes import truncate
from support.inputs.codecs import encoded
from support.inputs.row import Input, Make, made, whole
from support.inputs.write import FRAMES, MILLISECOND, Sound, Video, write

TEN_HOURS = 36_000_000
"""In ms."""
IRREGULAR = (0, 30, 75, 110, 200, 233, 266, 330, 390, 410, 470, 520)
"""In ms: a phone that exposes longer in the dark."""
WILD = ("timestamp|time",)
REPAIRED = ("timestamp|clock|backward|begins anew|recording",)
INVERSE = Fraction(1, 90_000)


def seconds(milliseconds: Sequence[int]) -> tuple[float, ...]:
    return tuple(time / 1000 for time in milliseconds)


def steady(rate: Fraction | int, count: int = FRAMES) -> tuple[float, ...]:
    return tuple(float(number / Fraction(rate)) for number in range(count))


def timed(times: Sequence[int], *sounds: Sound, **more: object) -> Make:
    """Frames at these times in ms."""
    video = Video(tick=MILLISECOND, times=times, frames=len(times), options={"bf": "0"}, **more)  # type: ignore[arg-type]
    return made(video, *sounds)


def at_rate(rate: Fraction | int) -> dict[str, object]:
    return whole(rate=Fraction(rate), duration=float(FRAMES / Fraction(rate)))


def joined(path: Path) -> None:
    """Two recordings in one file: the clock begins anew. Each lasts longer than a clock may err."""
    piece = path.with_name("piece.ts")
    write(piece, Video(rate=Fraction(10)), Sound())
    path.write_bytes(piece.read_bytes() * 2)
    piece.unlink()


def trimmed(path: Path) -> None:
    """Cut without encoding anew: the file begins at a keyframe, and an edit list hides five pictures."""
    whole_file = path.with_name("whole.mp4")
    write(whole_file, Video(options={"g": "50"}), Sound())
    with av.open(str(whole_file)) as source, av.open(str(path), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None or packet.pts is None:
                continue
            shift = round(Fraction(1, 5) / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream.index]
            output.mux(packet)
    whole_file.unlink()


def shuffled(times: Sequence[int], streams: Sequence[Sound] = ()) -> Make:
    """Timestamps in ms that no encoder writes, in this order."""
    def make(path: Path) -> None:
        with av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as output:
            stream = output.add_stream("mjpeg", rate=25)
            video = Video("mjpeg", "yuvj420p", frames=len(times), color=(6, 6, 6, 2))
            stream.codec_context.width, stream.codec_context.height = video.size
            stream.codec_context.pix_fmt = video.pixels
            from support.inputs.write import pictures

            for number, frame in enumerate(pictures(video)):
                for packet in stream.encode(frame):
                    # Matroska does not store dts; so they may be anything that the muxer accepts.
                    packet.time_base, packet.pts, packet.dts = MILLISECOND, times[number], number - 10_000
                    output.mux(packet)

    return make


RATES = [
    Input("cinema.mp4", "23.976 pictures a second", "exactly 24000/1001", made(Video(rate=Fraction(24000, 1001))),
          holds=at_rate(Fraction(24000, 1001))),
    Input("ntsc.mkv", "29.97 pictures a second in Matroska, whose clock has milliseconds", "constant",
          made(Video(rate=Fraction(30000, 1001))),
          holds=whole(rate=Fraction(30000, 1001), duration=float(12 * Fraction(1001, 30000)))),
    Input("fifty.mp4", "50 pictures a second", "exactly 50", made(Video(rate=Fraction(50))), holds=at_rate(50)),
    Input("slow-motion.mp4", "240 pictures a second", "exactly 240", made(Video(rate=Fraction(240))),
          holds=at_rate(240)),
    Input("time-lapse.mp4", "one picture a second", "exactly 1", made(Video(rate=Fraction(1))), holds=at_rate(1)),
    Input("single.mp4", "a single picture", "one picture", made(Video(frames=1)),
          holds={"frames": 1, "colors": 10, "upright": True, "duration": 0.04}),
    Input("sixty.mp4", "60 pictures a second", "a GIF of the same length, no picture under 20 ms",
          made(Video(rate=Fraction(60))), "gif",
          holds={"duration": 0.2, "delays": 0.02, "upright": True, "may_say": ("GIF|frames",)}, core=True),
    Input("thirty.mp4", "30 pictures a second", "a GIF with every picture", made(Video(rate=Fraction(30))), "gif",
          holds={"frames": 12, "numbers": range(12), "duration": 0.4, "delays": 0.02, "upright": True}),
    Input("varying.mp4", "a rate that varies, as phones record", "every frame keeps its time",
          timed(IRREGULAR, Sound()),
          holds={"frames": 12, "numbers": range(12), "times": seconds(IRREGULAR), "sound_copied": (0,)}, core=True),
    Input("varying.mp4", "the same", "every frame keeps its time", timed(IRREGULAR), "webm",
          holds={"frames": 12, "numbers": range(12), "times": seconds(IRREGULAR)}),
    Input("ninety-thousand.mp4", "constant, on a clock of 1/90000 s", "exactly 25", made(Video(tick=INVERSE)),
          holds=whole()),
    Input("milliseconds.mkv", "60 pictures a second, rounded to milliseconds", "constant",
          made(Video(rate=Fraction(60))), holds=whole(rate=60, duration=0.2)),
]
TIMES = [
    Input("starts-late.mkv", "a recording whose clock begins at 5 s", "whole, sound and pictures together",
          made(Video(tick=MILLISECOND, times=[5000 + 40 * number for number in range(12)]),
               Sound("flac", start=5.0)), "mkv",
          holds=whole(rate=None, duration=0.48, times=steady(25), sound_copied=(0,))),
    Input("clock.ts", "a broadcast whose clock begins at 20 h", "it begins at 0",
          made(Video(), Sound(), output_ts_offset="72000"),
          holds=whole(starts=0.0, sound=("aac",), sync=0.0), core=True),
    Input("joined.ts", "two recordings in one file: the clock begins anew", "one after the other, sound and pictures",
          joined, holds={"frames": 24, "numbers": [*range(12)] * 2, "duration": 2.4, "sound_seconds": (2.4,),
                         "sound": ("aac",), "tones": (440,), "may_say": REPAIRED}, core=True),
    Input("joined.ts", "the same", "one after the other", joined, "mkv",
          holds={"frames": 24, "numbers": [*range(12)] * 2, "duration": 2.4, "sound_seconds": (2.4,),
                 "may_say": REPAIRED}),
    Input("joined.ts", "the same", "one after the other, the sound encoded", joined, "webm",
          holds={"frames": 24, "numbers": [*range(12)] * 2, "duration": 2.4, "sound_seconds": (2.4,),
                 "sound": ("opus",), "may_say": REPAIRED, "says": encoded("aac")}),
    Input("wild.mkv", "a clock that leaps ten hours in the middle", "the gap is closed, and said",
          timed([40 * number + (TEN_HOURS if number >= 6 else 0) for number in range(12)]),
          holds={"frames": 12, "numbers": range(12), "times": steady(25), "duration": 0.48, "says": WILD}, core=True),
    Input("one-wild.mkv", "one timestamp ten hours off", "it is repaired, and said",
          shuffled([TEN_HOURS if number == 6 else 40 * number for number in range(12)]),
          holds={"frames": 12, "duration": 0.48, "colors": 14, "says": WILD}),
    Input("gap.mkv", "a gap of a second that the sound spans", "the gap stays: the sound goes on",
          timed([40 * number + (1000 if number >= 6 else 0) for number in range(12)], Sound(seconds=1.48)),
          holds={"frames": 12, "numbers": range(12), "sound_copied": (0,),
                 "times": seconds([40 * number + (1000 if number >= 6 else 0) for number in range(12)])}, core=True),
    Input("backwards.mkv", "timestamps that run backwards", "every picture, and said",
          shuffled([0, 40, 80, 60, 120, 160, 150, 240, 280, 320, 360, 400]),
          holds={"frames": 12, "colors": 14, "says": REPAIRED}),
    Input("doubled.mkv", "timestamps that come twice", "every picture, and said",
          shuffled([0, 40, 80, 80, 160, 200, 240, 240, 320, 360, 400, 440]),
          holds={"frames": 12, "colors": 14, "says": REPAIRED}),
    Input("negative.mkv", "timestamps below 0", "every picture", shuffled(range(-200, 280, 40)),
          holds={"frames": 12, "numbers": range(12), "times": steady(25), "colors": 14}),
    Input("trimmed.mp4", "a clip that a phone cut: an edit list hides the beginning", "nothing from before the cut",
          trimmed, "mkv", holds={"frames": 7, "numbers": range(5, 12), "duration": 0.28, "upright": True,
                                 "sound_seconds": (0.28,), "tones": (440,), "may_say": ("sound|audio",)}, core=True),
    Input("trimmed.mp4", "the same", "nothing from before the cut", trimmed, "mp4",
          holds={"frames": 7, "numbers": range(5, 12), "duration": 0.28, "rate": 25, "sound_seconds": (0.28,)}),
    Input("trimmed.mp4", "the same", "nothing from before the cut, the sound encoded", trimmed, "webm",
          holds={"frames": 7, "numbers": range(5, 12), "duration": 0.28, "sound_seconds": (0.28,),
                 "says": encoded("aac")}),
    Input("range.mp4", "a part of a video, with `-ss` and `-t`", "that part, and its sound", made(Video(), Sound()),
          "mp4", ("-ss", "0.2", "-t", "0.2"),
          {"frames": 5, "numbers": range(5, 10), "duration": 0.2, "rate": 25, "tones": (440,)}),
    Input("cut-off.mkv", "a file that was cut off in copying", "as much as is there, and said",
          lambda path: truncate(write(path, Video(frames=60, options={"g": "1"})), 0.4),
          holds={"upright": True, "colors": 10, "says": ("damaged|cut off|truncated|incomplete",)}),
    Input("cut-off.mp4", "an mp4 without its end, where the index is", "refused as damaged",
          lambda path: truncate(write(path, Video()), 0.6), holds={"refused": "damaged|not a video"}),
    Input("empty.mp4", "a file of no bytes", "refused", lambda path: path.write_bytes(b""), holds={"refused": "empty"}),
    Input("text.mp4", "a text named as a video", "refused", lambda path: path.write_text("hello " * 100),
          holds={"refused": "damaged|not a video"}, core=True),
    Input("sound.m4a", "sound alone", "refused", made(Sound()), holds={"refused": "no video, only sound"}),
    Input("list.mp4", "a play list named as a video", "refused: it could name any file",
          lambda path: path.write_text("ffconcat version 1.0\nfile /etc/passwd\n"),
          holds={"refused": "damaged|not a video"}),
]
ROWS = [*RATES, *TIMES]
