"""Which sound a container's players know, and what other sound is encoded as: tables, and the rules that read them."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamdream.errors import SettingsError, UnknownName, UsageError
from streamdream.media.pyav import fraction, pads_all_hidden
from streamdream.media.sinks.encoders import supported_codecs
from streamdream.media.sinks.pixel_formats import LOSSY_CODECS
from streamdream.settings import RenderSettings

COPY, AUTO = "copy", "auto"
ALIASES = {"opus": "libopus", "mp3": "libmp3lame"}
"""FFmpeg's own encoder of that name is experimental, or there is none."""


@dataclass(frozen=True)
class SoundSupport:
    """Of a container."""

    known: frozenset[str]
    """Codecs that it holds and its players know."""
    encoder: str
    """For all others."""
    surround_encoder: str
    """The same, for more than two channels."""
    refused: frozenset[str] = frozenset()
    """Encoders whose sound FFmpeg says that it holds, but it does not, or nothing reads it."""
    skips_all_padding: bool = False
    """Whether its players skip as much sound as the header states, which is wrong where an edit list hides some."""
    stores_times: bool = True
    """Whether sound can begin late, and an encoder's delay is cut off by players."""


PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})
MPEG = frozenset({"aac", "ac3", "eac3", "mp3"})
SOUND = {
    "mp4": SoundSupport(MPEG | {"alac", "flac", "opus"}, "aac", "aac"),
    "mov": SoundSupport(MPEG | PCM | {"alac", "pcm_s16be", "pcm_s24be", "pcm_s32be", "pcm_f32be", "pcm_alaw",
                                      "pcm_mulaw"}, "aac", "aac", frozenset({"flac", "libopus"})),
    "matroska": SoundSupport(MPEG | PCM | {"alac", "dts", "flac", "mlp", "mp2", "opus", "pcm_s16be", "pcm_s24be",
                                           "truehd", "tta", "vorbis", "wavpack"}, "libopus", "libopus",
                             skips_all_padding=True),
    "webm": SoundSupport(frozenset({"opus", "vorbis"}), "libopus", "libopus"),
    "nut": SoundSupport(MPEG | PCM | {"alac", "flac", "mp2", "opus", "pcm_mulaw", "pcm_alaw", "vorbis"}, "pcm_s16le",
                        "pcm_s16le"),
    "avi": SoundSupport(PCM | {"aac", "ac3", "mp2", "mp3", "pcm_alaw", "pcm_mulaw", "pcm_u8"},
                        "libmp3lame", "ac3", frozenset({"eac3", "flac"}), stores_times=False),
}
"""By FFmpeg's name of the container; one that is missing holds no sound."""
ENCODERS = ("aac", "ac3", "alac", "eac3", "flac", "libmp3lame", "libopus", "mp2", "pcm_s16le", "pcm_s24le",
            "pcm_f32le", "tta", "wavpack")
"""The usual ones, to name them; any other that FFmpeg has works, too."""
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
MAX_PRIMING_SAMPLES = 4096
"""The most that encoders need before the sound begins."""
MAX_DELAY_SECONDS = Fraction(1, 20)
"""That nobody notices."""
CHANNEL_BIT_RATE = 96_000
"""In bits/s; a lossy encoder is all but transparent with it."""
SURROUND_BIT_RATE = 64_000
"""Of each channel, where there are more than two."""
MAX_BITS_PER_SAMPLE = 6
"""Of AAC, in each channel."""
MIN_RATES = {"libmp3lame": 16_000}
"""In Hz; below that it is no standard, and mp4 refuses it."""
MIN_BIT_RATE, MAX_BIT_RATE = 6_000, 6_000_000


@dataclass(frozen=True)
class SoundEncoding:
    """How a sound track is encoded."""

    codec: str
    rate: int
    layout: str
    format: str
    bit_rate: int
    """In bits/s; 0 for the encoder's own."""
    delay: int
    """Samples by which the encoder is late."""


def choose_encoder(stream: Any, container: str, settings: RenderSettings, delay: Fraction) -> str:
    """The encoder for a sound track in that container; "" where its packets are copied. ``delay`` is when it begins, in
    seconds.

    Raises UnknownName or UsageError for an encoder that is not there, or that the container cannot hold.
    """
    support, name = SOUND[container], check_encoder(container, settings)
    if name == COPY or (name == AUTO and _is_known(stream, support, delay)):
        return ""
    if name != AUTO:
        return name
    return support.encoder if stream.codec_context.layout.nb_channels <= 2 else support.surround_encoder


def _is_known(stream: Any, support: SoundSupport, delay: Fraction) -> bool:
    # AAC of a transport stream has its parameters in each packet, where readers of such a container do not look.
    is_bare = codec_name(stream) == "aac" and not stream.codec_context.extradata
    if not support.stores_times and (delay >= MAX_DELAY_SECONDS or is_bare):
        return False
    if support.skips_all_padding and pads_all_hidden() and hidden_samples(stream) > MAX_PRIMING_SAMPLES:
        return False
    return codec_name(stream) in support.known


def hidden_samples(stream: Any) -> int:
    """Of sound that an edit list hides at its beginning, an encoder's delay included; 0 where there is no such list."""
    index: Any = stream.index_entries if "mov" in stream.container.format.name else ()
    hidden = -index[0].timestamp * fraction(stream.time_base) if len(index) else Fraction(0)
    return max(round(hidden * (stream.codec_context.sample_rate or 0)), 0)


def check_encoder(container: str, settings: RenderSettings) -> str:
    """The encoder of ``-c:a``, ``copy`` or ``auto``. Raises UnknownName or UsageError."""
    from av.codec.codec import Codec, UnknownCodecError

    name = ALIASES.get(settings.audio_codec, settings.audio_codec)
    bit_rate(settings)
    if name in (COPY, AUTO):
        return name
    legal = [AUTO, COPY, *encoders_of(container)]
    try:
        codec = Codec(name, "w")
    except UnknownCodecError:
        raise UnknownName("sound encoder", name, legal) from None
    if codec.type != "audio":
        raise UsageError(f"{name} is an encoder for {codec.type}; -c:a takes one for sound: {', '.join(legal)}")
    if container in SOUND and name not in supported(container):
        raise UsageError(f"{container} cannot hold sound of {name}; -c:a takes {', '.join(legal)}")
    return name


def bit_rate(settings: RenderSettings) -> int:
    """``-b:a`` in bits/s, 0 where it is not given. Raises SettingsError."""
    if not settings.audio_bit_rate:
        return 0
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([kKmM]?)", settings.audio_bit_rate, re.ASCII)
    value = round(float(match[1]) * {"": 1, "k": 1000, "m": 1_000_000}[match[2].lower()]) if match else 0
    if not MIN_BIT_RATE <= value <= MAX_BIT_RATE:
        raise SettingsError(f"-b:a is {settings.audio_bit_rate!r}, but must be a bit rate such as 160k, "
                            f"from {MIN_BIT_RATE // 1000}k to {MAX_BIT_RATE // 1_000_000}M")
    return value


def supported(container: str) -> set[str]:
    """Names of all encoders and decoders whose sound a container holds."""
    return supported_codecs(container) - SOUND[container].refused


def encoders_of(container: str) -> list[str]:
    """The usual encoders whose sound a container holds; all of them where it holds none."""
    held = supported(container) if container in SOUND else set(ENCODERS)
    return [name for name in ENCODERS if name in held]


def codec_name(stream: Any) -> str:
    """FFmpeg's name of the codec, as ``mp3`` where the decoder is ``mp3float``."""
    return str(stream.codec_context.codec.canonical_name)


def plan_encoding(name: str, stream: Any, bits: int) -> SoundEncoding | None:
    """How a sound track is encoded by that encoder, with ``bits`` a second or, if 0, a good number of them.

    All channels are kept where the encoder has such a layout, else they are mixed to stereo. None where nothing works,
    as for a damaged track without a sample rate.
    """
    source = stream.codec_context
    if not source.sample_rate or not source.layout.nb_channels:
        return None
    rate, sample_format = _nearest_rate(name, source.sample_rate), _nearest_format(name, source.format)
    for layout in _layouts(source.layout):
        encoding = SoundEncoding(name, rate, layout, sample_format, bits or _good_bit_rate(name, rate, layout), 0)
        delay = _try_encoder(encoding)
        if delay is not None:
            return SoundEncoding(name, rate, layout, sample_format, encoding.bit_rate, delay)
    return None


def configure(context: Any, encoding: SoundEncoding) -> None:
    """Set up the context of an encoder that is not open yet."""
    context.sample_rate, context.layout, context.format = encoding.rate, encoding.layout, encoding.format
    context.bit_rate = encoding.bit_rate


def _layouts(layout: Any) -> Iterator[str]:
    names = [layout.name, LAYOUTS.get(layout.nb_channels, "stereo"), "stereo", "mono"]
    yield from dict.fromkeys(name for name in names if not name.endswith("channels"))


def _nearest_rate(name: str, rate: int) -> int:
    """The lowest rate of the encoder that keeps all of the sound; else its highest one."""
    from av.codec.codec import Codec

    offered = sorted(each for each in Codec(name, "w").audio_rates or [rate] if each >= MIN_RATES.get(name, 0))
    return next((each for each in offered if each >= rate), offered[-1])


def _nearest_format(name: str, source: Any) -> str:
    """A sample format of the encoder with as many bits as the source's, if there is one."""
    from av.codec.codec import Codec

    offered = list(Codec(name, "w").audio_formats or [])
    same = [each for each in offered if each.packed.name == source.packed.name]
    enough = [each for each in offered if each.bits >= source.bits]
    return str((same or enough or sorted(offered, key=lambda each: each.bits)[::-1] or [source])[0].name)


def _good_bit_rate(name: str, rate: int, layout: str) -> int:
    from av.audio.layout import AudioLayout
    from av.codec.codec import Codec

    if not Codec(name, "w").properties & LOSSY_CODECS:
        return 0
    channels = AudioLayout(layout).nb_channels
    each = min(CHANNEL_BIT_RATE if channels <= 2 else SURROUND_BIT_RATE, MAX_BITS_PER_SAMPLE * rate)
    return channels * each


def _try_encoder(encoding: SoundEncoding) -> int | None:
    """Encode a little silence; return the delay of the encoder in samples, or None where it refuses."""
    import av

    context: Any = av.CodecContext.create(encoding.codec, "w")
    try:
        configure(context, encoding)
        context.open(strict=False)
        silence = av.AudioFrame(encoding.format, encoding.layout, context.frame_size or 1024)
        # PyAV gives a ninth plane of eight, which is no memory.
        for plane in silence.planes[:silence.layout.nb_channels if silence.format.is_planar else 1]:
            plane.update(bytes(plane.buffer_size))
        silence.sample_rate, silence.pts, silence.time_base = encoding.rate, 0, context.time_base
        packets = [*context.encode(silence), *context.encode(None)]
    except (av.FFmpegError, ValueError):
        return None
    return max(-int(packets[0].pts or 0), 0) if packets else 0
