"""Sound, subtitles, chapters and metadata."""
from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from support.inputs.boxes import make_spatial_sound, make_spherical
from support.inputs.codecs import AAC, COPIED, ENCODED, HEARD, LENGTH, VORBIS, encoded
from support.inputs.row import Input, made, whole
from support.inputs.write import Sound, Text, Video, write

ENGLISH, GERMAN = {"language": "eng"}, {"language": "deu"}
HELLO = ((0.1, "hello"),)
CONVERTED = {"may_say": ("subtitle",)}
GONE = ("subtitle|dvd",)


def cover(path: Path) -> None:
    """A video with a cover."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        picture = output.add_stream("png", rate=1)
        picture.width, picture.height, picture.pix_fmt = 16, 16, "rgb24"
        picture.disposition = av.stream.Disposition.attached_pic
        _fill(output, video)
        for packet in picture.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 77, np.uint8), "rgb24")):
            packet.pts = packet.dts = 0
            output.mux(packet)


def attachment(path: Path) -> None:
    """A video with a font."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        output.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
        _fill(output, video)


def _fill(output: av.container.OutputContainer, stream: object) -> None:
    from support.inputs.write import pictures

    video = Video()
    context = stream.codec_context  # type: ignore[attr-defined]
    context.width, context.height, context.pix_fmt = *video.size, "yuv420p"
    for frame in (*pictures(video), None):
        output.mux(stream.encode(frame))  # type: ignore[attr-defined]


def picture_subtitles(path: Path) -> None:
    """Subtitles of a DVD; nobody needs to read them to copy them."""
    write(path, Video(), Text("dvd_subtitle", ((100, 300, "not decoded, only copied"),)))


def late(path: Path) -> None:
    write(path, Video(), Sound(start=0.2, seconds=0.28))


SOUNDS = [
    Input("pcm.mov", "PCM of a camera", "the sound is encoded as AAC: players ignore PCM in mp4",
          made(Video(), Sound("pcm_s16le")), holds=whole(**AAC, says=encoded("pcm_s16le")), core=True),
    Input("pcm.mov", "the same", "the sound is copied", made(Video(), Sound("pcm_s16le")), "mov",
          holds=whole(**COPIED)),
    Input("pcm.mov", "the same", "copied with `-c:a copy`", made(Video(), Sound("pcm_s16le")), "mkv",
          ("-c:a", "copy"), whole(**COPIED, sound=("pcm_s16le",))),
    Input("floats.mov", "PCM of floats", "the sound is encoded as AAC", made(Video(), Sound("pcm_f32le", 48000)),
          holds=whole(**AAC, says=encoded("pcm_f32le"))),
    Input("telephone.mov", "G.711 of a telephone", "the sound is encoded as AAC",
          made(Video(), Sound("pcm_mulaw", 8000)), holds=whole(**AAC, says=encoded("pcm_mulaw"))),
    Input("eight-bit.avi", "8-bit PCM of an old camera", "the sound is encoded as AAC",
          made(Video("mjpeg", "yuvj420p"), Sound("pcm_u8", 11025)), holds=whole(**AAC, colors=None,
                                                                                 says=encoded("pcm_u8"))),
    Input("flac.mkv", "FLAC", "whole, with sound", made(Video(), Sound("flac")), holds=whole(**HEARD, may_say=ENCODED)),
    Input("opus.mkv", "Opus in Matroska", "the sound is copied", made(Video(), Sound("libopus", 48000)), "mkv",
          holds=whole(**COPIED)),
    Input("eac3.mkv", "E-AC-3 of a television", "the sound is copied", made(Video(), Sound("eac3", 48000)), "mkv",
          holds=whole(**COPIED)),
    Input("hires.mkv", "24 bit, 96 kHz", "whole, with sound", made(Video(), Sound("flac", 96000)), "webm",
          holds=whole(**HEARD, says=encoded("flac"))),
    Input("surround.mp4", "six channels", "the sound is copied",
          made(Video(), Sound(layout="5.1", rate=48000)), holds=whole(**COPIED)),
    Input("surround.mp4", "the same", "the sound is encoded as Opus",
          made(Video(), Sound(layout="5.1", rate=48000)), "webm",
          holds=whole(sound=("opus",), sound_seconds=(LENGTH,), says=encoded("aac"))),
    Input("iphone-spatial.mov", "an iPhone's second sound track, of a kind that no decoder knows",
          "the first track is kept, the other left out, and said", make_spatial_sound, "mov",
          holds=whole(**COPIED, sound=("aac",), tones=(440,), says=("apac|unknown|stream 2",)), core=True),
    Input("iphone-spatial.mov", "the same", "the first track is kept, the other left out, and said",
          make_spatial_sound, "webm",
          holds=whole(sound=("opus",), tones=(440,), says=("apac|unknown|stream 2", *encoded("aac")))),
    Input("two-languages.mkv", "two sound tracks", "both are copied, with their languages",
          made(Video(), Sound(tags=ENGLISH), Sound(hertz=880, tags=GERMAN)),
          holds=whole(sound_copied=(0, 1), tones=(440, 880), languages=("eng", "deu")), core=True),
    Input("two-languages.mkv", "the same", "with `-map` the one that is named",
          made(Video(), Sound(tags=ENGLISH), Sound(hertz=880, tags=GERMAN)), "mp4", ("-map", "0:a:1"),
          whole(sound_copied=(1,), tones=(880,), languages=("deu",))),
    Input("two-languages.mkv", "the same", "without sound with `-an`",
          made(Video(), Sound(tags=ENGLISH), Sound(hertz=880, tags=GERMAN)), "mp4", ("-an",),
          whole(sound=(), streams=("video",))),
    Input("base.mp4", "H.264 with AAC", "the sound is encoded as `-c:a` and `-b:a` say", made(Video(), Sound()), "mkv",
          ("-c:a", "libopus", "-b:a", "64k"), whole(**HEARD, sound=("opus",), may_say=encoded("aac"))),
    Input("late-sound.mp4", "sound that begins later than the pictures", "it stays as late", late,
          holds=whole(sound_copied=(0,), sync=0.2)),
    Input("late-sound.mp4", "the same", "it stays as late", late, "webm",
          holds=whole(sound=("opus",), tones=(440,), sync=0.2, says=encoded("aac")), core=True),
    Input("long-sound.mp4", "sound that is longer than the pictures", "it is kept whole",
          made(Video(), Sound(seconds=1.0)), holds=whole(sound_copied=(0,), sound_seconds=(1.0,))),
    Input("long-sound.mp4", "the same", "it is encoded whole", made(Video(), Sound(seconds=1.0)), "webm",
          holds=whole(sound=("opus",), sound_seconds=(1.0,), says=encoded("aac"))),
    Input("short-sound.mp4", "sound that is shorter than the pictures", "it is kept, and so are the pictures",
          made(Video(), Sound(seconds=0.2)), holds=whole(sound_copied=(0,))),
    Input("vorbis.mkv", "Vorbis in Matroska", "the sound is encoded as AAC", made(Video(), VORBIS),
          holds=whole(**AAC, says=encoded("vorbis"))),
]
TEXTS = [
    Input("subtitled.mp4", "subtitles in mp4", "they are kept", made(Video(), Sound(), Text("mov_text")),
          holds=whole(**CONVERTED, subtitles=HELLO, subtitle_codec=("mov_text",), **COPIED)),
    Input("subtitled.mp4", "the same", "they become SubRip", made(Video(), Sound(), Text("mov_text")), "mkv",
          holds=whole(**CONVERTED, subtitles=HELLO, **COPIED), core=True),
    Input("subtitled.mkv", "SubRip subtitles in Matroska", "they become those of mp4",
          made(Video(), Sound(), Text("subrip")),
          holds=whole(**CONVERTED, subtitles=HELLO, subtitle_codec=("mov_text",), **COPIED), core=True),
    Input("subtitled.mkv", "the same", "they are kept", made(Video(), Sound(), Text("subrip")), "mkv",
          holds=whole(**CONVERTED, subtitles=HELLO, subtitle_codec=("subrip",), **COPIED)),
    Input("subtitled.mkv", "the same", "they become WebVTT", made(Video(), Text("subrip")), "webm",
          holds=whole(**CONVERTED, subtitles=HELLO, subtitle_codec=("webvtt",))),
    Input("styled.mkv", "ASS subtitles with styles", "they become those of mp4",
          made(Video(), Text("ass")),
          holds=whole(**CONVERTED, subtitles=HELLO, subtitle_codec=("mov_text",))),
    Input("styled.mkv", "the same", "they are kept", made(Video(), Text("ass")), "mkv",
          holds=whole(**CONVERTED, subtitles=HELLO, subtitle_codec=("ass",))),
    Input("web.webm", "WebVTT subtitles", "they become those of mp4", made(Video("libvpx"), Text("webvtt")),
          holds=whole(**CONVERTED, subtitles=HELLO, subtitle_codec=("mov_text",))),
    Input("two-subtitles.mkv", "subtitles in two languages", "both are kept",
          made(Video(), Text("subrip", tags=ENGLISH), Text("subrip", ((200, 400, "hallo"),), tags=GERMAN)),
          holds=whole(**CONVERTED, subtitles=((0.1, "hello"), (0.2, "hallo")),
                      subtitle_codec=("mov_text", "mov_text"))),
    Input("dvd-subtitles.mkv", "subtitles that are pictures", "they are kept in Matroska", picture_subtitles, "mkv",
          holds=whole(**CONVERTED, subtitles=((0.1, "not decoded, only copied"),))),
    Input("dvd-subtitles.mkv", "the same", "they are left out, and said", picture_subtitles, "webm",
          holds=whole(streams=("video",), says=GONE)),
    Input("subtitled.mkv", "subtitles", "left out, and said: an AVI holds none", made(Video(), Text("subrip")), "avi",
          holds=whole(streams=("video",), says=("subtitle|subrip|srt",))),
]
METADATA = [
    Input("chapters.mp4", "chapters", "they are kept", made(Video(frames=15), chapters=("one", "two", "three")),
          holds=whole(frames=15, numbers=range(15), duration=0.6, chapters=("one", "two", "three"))),
    Input("chapters.mp4", "the same", "they are kept", made(Video(frames=15), chapters=("one", "two", "three")), "mkv",
          holds=whole(frames=15, numbers=range(15), duration=0.6, chapters=("one", "two", "three"))),
    Input("named.mp4", "title and artist", "they are kept", made(Video(), tags={"title": "a title", "artist": "she"}),
          "mkv", holds=whole(tags={"title": "a title"})),
    Input("place.mov", "the place where a phone recorded", "it is kept",
          made(Video(), tags={"location": "+52.5200+013.4050/"}), "mov",
          holds=whole(tags={"location": "+52.5200+013.4050/"})),
    Input("place.mov", "the same", "it is said that AVI holds no place",
          made(Video(), tags={"location": "+52.5200+013.4050/"}), "avi", holds=whole(says=("location|place|GPS",))),
    Input("timecode.mov", "the timecode of an editor", "kept and right, or left out and said",
          made(Video(tags={"timecode": "01:00:00:00"})), "mov",
          holds=whole(timecode="01:00:00:00", may_say=("timecode|tmcd",)), core=True),
    Input("timecode.mov", "the same", "kept and right, or left out and said",
          made(Video(tags={"timecode": "01:00:00:00"})), "mp4",
          holds=whole(timecode="01:00:00:00", may_say=("timecode|tmcd",))),
    Input("spherical.mp4", "a 360° camera", "it is said that the projection is not kept", make_spherical,
          holds=whole(says=("360|spherical|projection",), **COPIED)),
    Input("cover.mp4", "a cover", "it is kept, and is not the video", cover, "mp4",
          holds={"frames": 12, "streams": ("video", "video")}),
    Input("font.mkv", "a font for subtitles", "it is kept in Matroska", attachment, "mkv",
          holds={"frames": 12, "streams": ("attachment", "video")}),
    Input("font.mkv", "the same", "it is left out, and said", attachment, "mp4",
          holds={"frames": 12, "streams": ("video",), "says": ("attachment|font",)}),
]
ROWS = [*SOUNDS, *TEXTS, *METADATA]
