"""Codecs and containers: what cameras, recorders, editors and archives write."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from support.inputs.chart import moving_bar
from support.inputs.row import Input, Make, made, whole
from support.inputs.write import BT709, FRAMES, FULL, Sound, Video, encoded_packets

LENGTH = FRAMES / 25
HEARD = {"sound_seconds": (LENGTH,), "tones": (440,), "sync": 0.0}
"""The sound is whole, however it is coded."""
AAC = {**HEARD, "sound": ("aac",)}
OPUS = {**HEARD, "sound": ("opus",)}
COPIED = {"sound_copied": (0,)}
ENCODED = ("sound|audio",)
"""What may be said where both are right: sound that is copied, or encoded anew."""
VORBIS = Sound("vorbis", layout="stereo", options={"strict": "-2"})
WMA1_HEAD = 2048 / 44100
"""FFmpeg's decoder needs so much before it gives the first sound; that keeps its place."""
MP3_HEAD = 1105 / 44100
"""Seconds that the encoder adds: AVI and FLV hold no time below 0, and would shift the pictures."""
LOW_QUALITY = 14
"""Tolerance of old codecs, in levels."""
WIDE = (256, 128)


def encoded(codec: str) -> tuple[str, ...]:
    """The pattern of the line about sound that is encoded anew."""
    return (rf"\b{codec}\b.*(encode|aac|opus)|(encode|aac|opus).*\b{codec}\b",)


def bare(video: Video) -> Make:
    """A stream without a container, and so without timestamps."""
    def make(path: Path) -> None:
        path.write_bytes(b"".join(bytes(packet) for packet in encoded_packets(video)))

    return make


ROWS = [
    Input("base.mp4", "H.264 with AAC in mp4, with B-frames", "whole; the sound is copied; the rate stays constant",
          made(Video(), Sound()), holds=whole(**COPIED, **AAC), core=True),
    Input("base.mp4", "the same", "whole; the sound is encoded as Opus, which WebM holds", made(Video(), Sound()),
          "webm", holds=whole(**OPUS, says=encoded("aac")), core=True),
    Input("base.mp4", "the same", "whole; the sound is copied", made(Video(), Sound()), "mkv",
          holds=whole(**COPIED, **AAC)),
    Input("base.mp4", "the same", "whole; the sound is copied", made(Video(), Sound()), "mov",
          holds=whole(**COPIED, **AAC)),
    Input("base.mp4", "the same", "whole, with sound", made(Video(), Sound()), "avi",
          holds=whole(**HEARD, may_say=ENCODED)),
    Input("base.mp4", "the same", "HEVC with the tag `hvc1`, which Apple's players want", made(Video(), Sound()), "mp4",
          ("-c:v", "libx265"), whole(**COPIED, codec="hevc", tag="hvc1"), core=True),
    Input("base.mp4", "the same", "HEVC with the tag `hvc1`", made(Video(), Sound()), "mov", ("-c:v", "libx265"),
          whole(**COPIED, codec="hevc", tag="hvc1")),
    Input("fragmented.mp4", "mp4 in fragments, of a stream or a recorder", "whole; the sound is copied",
          made(Video(), Sound(), movflags="frag_keyframe+empty_moov"), holds=whole(**COPIED)),
    Input("phone.mov", "HEVC with AAC of a phone", "whole; the sound is copied",
          made(Video("libx265", codec_tag="hvc1", color=BT709), Sound()),
          holds=whole(**COPIED, tagged="bt709"), core=True),
    Input("hev1.mp4", "HEVC with the tag `hev1`", "whole; the sound is copied", made(Video("libx265"), Sound()),
          holds=whole(**COPIED)),
    Input("apple.m4v", "H.264 with ALAC", "whole, with sound", made(Video(), Sound("alac")), holds=whole(**HEARD)),
    Input("vorbis.webm", "VP8 with Vorbis", "the sound is encoded as AAC: players ignore Vorbis in mp4",
          made(Video("libvpx"), VORBIS), holds=whole(**AAC, says=encoded("vorbis")), core=True),
    Input("vorbis.webm", "the same", "whole; the sound is copied", made(Video("libvpx"), VORBIS), "webm",
          holds=whole(**COPIED)),
    Input("youtube.webm", "VP9 with Opus", "whole; the sound is copied",
          made(Video("libvpx-vp9"), Sound("libopus", 48000)), "webm", holds=whole(**COPIED)),
    Input("youtube.webm", "the same", "whole, with sound", made(Video("libvpx-vp9"), Sound("libopus", 48000)),
          holds=whole(**HEARD, may_say=ENCODED)),
    Input("av1.mp4", "AV1 with AAC", "whole; the sound is copied", made(Video("libsvtav1"), Sound()),
          holds=whole(**COPIED)),
    Input("camera.avi", "Motion JPEG with ADPCM of a small camera",
          "the sound is encoded as AAC; the colours of the full range stay",
          made(Video("mjpeg", "yuvj422p", color=FULL), Sound("adpcm_ima_wav")),
          holds=whole(**AAC, says=encoded("adpcm_ima_wav")), core=True),
    Input("adpcm-ms.avi", "MPEG-4 with Microsoft's ADPCM", "the sound is encoded as AAC",
          made(Video("mpeg4", options={"b": "4M"}), Sound("adpcm_ms")),
          holds=whole(**AAC, says=encoded("adpcm_ms"))),
    Input("divx.avi", "MPEG-4 with MP3 in AVI", "whole, with sound",
          made(Video("mpeg4", options={"b": "4M"}), Sound("libmp3lame", start=MP3_HEAD)),
          holds=whole(**HEARD, may_say=ENCODED)),
    Input("divx3.avi", "DivX 3 with MP3", "whole, with sound",
          made(Video("msmpeg4", options={"b": "4M"}), Sound("libmp3lame", start=MP3_HEAD)),
          holds=whole(**HEARD, colors=LOW_QUALITY, may_say=ENCODED)),
    Input("windows.wmv", "Windows Media", "the sound is encoded as AAC",
          made(Video("wmv2", options={"b": "4M"}), Sound("wmav2", options={"b": "64k"}), format="asf"),
          holds=whole(**AAC, colors=LOW_QUALITY, says=encoded("wmav2")), core=True),
    Input("windows7.wmv", "Windows Media 7", "the sound is encoded",
          made(Video("wmv1", options={"b": "4M"}), Sound("wmav1", options={"b": "64k"}), format="asf"), "mkv",
          holds=whole(**{**HEARD, "sync": WMA1_HEAD}, colors=LOW_QUALITY, may_say=ENCODED)),
    Input("flash.flv", "Flash video with MP3", "whole, with sound",
          made(Video("flv", options={"b": "4M"}), Sound("libmp3lame", start=MP3_HEAD)),
          holds=whole(**HEARD, colors=LOW_QUALITY, may_say=ENCODED)),
    Input("stream.flv", "H.264 with AAC in FLV, of a stream", "whole; the sound is copied", made(Video(), Sound()),
          holds=whole(**AAC)),
    Input("old-phone.3gp", "H.263 with AMR of an old phone", "the sound is encoded as AAC",
          made(Video("h263", size=(128, 96), options={"b": "4M"}), Sound("libopencore_amrnb", 8000)),
          holds=whole(**AAC, colors=LOW_QUALITY, says=encoded("amr_?nb"))),
    Input("video-cd.mpg", "MPEG-1 with MP2", "whole, with sound",
          made(Video("mpeg1video", options={"b": "4M"}), Sound("mp2"), format="mpeg"),
          holds=whole(**HEARD, may_say=ENCODED)),
    Input("dvd.mpg", "MPEG-2 of a DVD: interlaced, with pixels that are not square",
          "whole pictures without combs; the shape of the pixels stays",
          made(Video("mpeg2video", fields="tff", aspect=Fraction(32, 27), picture=moving_bar, frames=8,
                     options={"b": "8M"}), Sound("mp2"), format="mpeg"),
          holds={"frames": 8, "combs": 4.0, "aspect": Fraction(32, 27), "rate": 25, "duration": 0.32,
                 "sound_seconds": (0.32,), "tones": (440,), "says": ("interlaced",), "may_say": ENCODED}, core=True),
    Input("tape.dv", "DV of a tape: interlaced, with pixels that are not square", "whole pictures without combs",
          made(Video("dvvideo", size=(720, 576), fields="bff", picture=moving_bar, frames=4),
               Sound("pcm_s16le", 48000, "stereo")),
          holds={"frames": 4, "combs": 4.0, "rate": 25, "duration": 0.16, "sound": ("aac",), "tones": (440,),
                 "sound_seconds": (0.16,), "says": ("interlaced", *encoded("pcm_s16le"))}, core=True),
    Input("television.ts", "MPEG-2 with AC-3 in a transport stream", "whole, with sound",
          made(Video("mpeg2video", options={"b": "4M"}), Sound("ac3", 48000), format="mpegts"),
          holds=whole(**HEARD, may_say=ENCODED)),
    Input("recorder.m2ts", "H.264 with AC-3 of a camcorder", "whole, with sound",
          made(Video(), Sound("ac3", 48000), format="mpegts", mpegts_m2ts_mode="1"),
          holds=whole(**HEARD, may_say=ENCODED)),
    Input("stream.ts", "H.264 with AAC in a transport stream", "whole, with sound; the clock begins at 0",
          made(Video(), Sound(), format="mpegts"), holds=whole(**AAC, starts=0.0)),
    Input("broadcast.mxf", "MPEG-2 with PCM in MXF", "the sound is encoded as AAC",
          made(Video("mpeg2video", "yuv422p", options={"b": "8M"}), Sound("pcm_s16le", 48000)),
          holds=whole(**AAC, says=encoded("pcm_s16le"))),
    Input("editor.mov", "ProRes with 24-bit PCM of an editor", "the sound is encoded as AAC",
          made(Video("prores_ks", "yuv422p10le", color=BT709), Sound("pcm_s24le", 48000)),
          holds=whole(**AAC, tagged="bt709", says=encoded("pcm_s24le")), core=True),
    Input("editor.mov", "the same", "ProRes; the sound is copied",
          made(Video("prores_ks", "yuv422p10le", color=BT709), Sound("pcm_s24le", 48000)), "mov",
          ("-c:v", "prores_ks"), whole(**COPIED, codec="prores", pixels=("yuv422p10le",), tagged="bt709")),
    Input("dnxhr.mov", "DNxHR of an editor", "whole",
          made(Video("dnxhd", "yuv422p", size=WIDE, color=BT709, options={"profile": "dnxhr_hq"})), holds=whole()),
    Input("cineform.mov", "CineForm", "whole", made(Video("cfhd", "yuv422p10le")), holds=whole()),
    Input("animation.mov", "QuickTime Animation", "whole", made(Video("qtrle", "rgb24")), holds=whole()),
    Input("png.mov", "PNG pictures in QuickTime", "whole", made(Video("png", "rgb24")), holds=whole()),
    Input("jpeg2000.mov", "JPEG 2000 in QuickTime", "whole", made(Video("jpeg2000", "rgb24", options={"q:v": "1"})),
          holds=whole()),
    Input("sorenson.mov", "Sorenson video with PCM, of old QuickTime", "the sound is encoded as AAC",
          made(Video("svq1", "yuv410p"), Sound("pcm_s16be")),
          holds=whole(**AAC, colors=None, upright=None, says=encoded("pcm_s16be"))),
    Input("cinepak.avi", "Cinepak, of a CD-ROM", "whole",
          made(Video("cinepak", "rgb24", frames=4)), holds=whole(frames=4, numbers=range(4), duration=0.16, colors=40)),
    Input("screen.avi", "a screen recording in ZMBV", "whole", made(Video("zmbv", "bgr0")), holds=whole()),
    Input("huffyuv.avi", "HuffYUV with PCM of a capture card", "the sound is encoded as AAC",
          made(Video("huffyuv", "yuv422p"), Sound("pcm_s16le")), holds=whole(**AAC, says=encoded("pcm_s16le"))),
    Input("utvideo.avi", "Ut Video", "whole", made(Video("utvideo", "gbrp")), holds=whole()),
    Input("raw.avi", "pictures that are not compressed, with 8-bit PCM", "the sound is encoded as AAC",
          made(Video("rawvideo", "bgr24"), Sound("pcm_u8")), holds=whole(**AAC, says=encoded("pcm_u8"))),
    Input("archive.mkv", "FFV1 with FLAC of an archive", "FFV1, bit for bit; the sound is copied",
          made(Video("ffv1"), Sound("flac")), "mkv", ("-c:v", "ffv1"), whole(**COPIED, lossless=True), core=True),
    Input("pipe.nut", "NUT, as programs hand it on", "whole; the sound is encoded as AAC",
          made(Video("ffv1"), Sound("pcm_s16le")), holds=whole(**AAC, says=encoded("pcm_s16le"))),
    Input("pipe.y4m", "YUV4MPEG, as programs hand it on", "whole", made(Video("wrapped_avframe")), holds=whole()),
    Input("bare.h264", "a bare H.264 stream without timestamps", "25 frames a second", bare(Video()),
          holds=whole()),
    Input("bare.hevc", "a bare HEVC stream without timestamps", "25 frames a second", bare(Video("libx265")),
          holds=whole()),
    Input("bare.m2v", "a bare MPEG-2 stream", "whole", bare(Video("mpeg2video")), holds=whole()),
    Input("bare.mjpeg", "a bare Motion JPEG stream", "25 frames a second",
          bare(Video("mjpeg", "yuvj420p", color=FULL)), holds=whole()),
    Input("av1.ivf", "AV1 in IVF", "whole", made(Video("libsvtav1")), holds=whole()),
]
