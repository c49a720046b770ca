"""The options of an encoder: quality and preset from the settings, then what the user gave with ``-e``."""
from __future__ import annotations

import re
from typing import Any

from streamdream.errors import UnknownName, UsageError
from streamdream.media.opencv import cv2
from streamdream.media.sinks.encoders import Encoder
from streamdream.media.sinks.pixel_formats import has_alpha
from streamdream.settings import RenderSettings

ENCODING, VIDEO = 1, 16
"""FFmpeg's AV_OPT_FLAG_*."""
MAX_CRF = 63
X264_ENCODERS = ("libx264", "libx264rgb")
AVX512 = 256
"""OpenCV's CV_CPU_AVX512_SKX: all of AVX-512 that x264 asks for."""


def encoder_options(context: Any, encoder: Encoder, settings: RenderSettings, warnings: list[str]) -> dict[str, str]:
    """Return the options of the encoder, and set the rest on ``context``.

    Raises UnknownName for a wrong preset or option, UsageError for options that cannot be read.
    """
    known = {option.name for option in context.supported_options.private}
    options, given = dict(encoder.options), parse_options(settings.encoder_options)
    if context.name in X264_ENCODERS and "asm=" not in settings.encoder_options and cv2().checkHardwareSupport(AVX512):
        # Its macroblock tree for AVX-512 reads memory that nobody wrote: the same pictures gave other bytes each time.
        options["x264-params"] = "asm=avx2"
    check_options(context, given, known)
    if settings.encoder_preset != "auto":
        if "preset" not in known or context.name.startswith("libwebp"):
            warnings.append(f"{context.name} has no presets; {settings.encoder_preset!r} was not used")
        elif encoder.presets and settings.encoder_preset not in encoder.presets:
            raise UnknownName(f"preset of {context.name}", settings.encoder_preset, encoder.presets)
        else:
            options["preset"] = encoder.presets.get(settings.encoder_preset, settings.encoder_preset)
    context.bit_rate = encoder.bit_rate
    if not {"b", "ab", "qp", "crf", "cq"} & set(given):  # with a rate of the user's there is no quality to keep
        options |= quality_options(context, encoder, settings.crf, known)
    for name, value in given.items():
        join_option(options, name, value)
    return options


def quality_options(context: Any, encoder: Encoder, crf: int, known: set[str]) -> dict[str, str]:
    """How the encoder calls what ``--crf`` says; where it is an attribute of ``context``, it is set."""
    quality = str(min(max(crf, encoder.crf[0]), encoder.crf[1]))
    maker = context.name.rpartition("_")[2]
    if "crf" in known:
        return {"crf": quality}
    if "cq" in known:  # NVENC; 0 would be its own choice
        return {"rc": "vbr", "cq": str(max(int(quality), 1))}
    if maker == "qsv":
        return {"global_quality": str(max(int(quality), 1))}
    if maker == "amf":
        return {"rc": "cqp", "qp_i": quality, "qp_p": quality}
    if maker == "videotoolbox":  # 1 to 100, better upwards, in units of FFmpeg's lambda
        return {"flags": "+qscale", "global_quality": str(118 * max(1, 100 - crf * 100 // MAX_CRF))}
    if context.name.startswith("libwebp"):  # whose lossy animations may lose alpha
        return {"lossless": "1"} if has_alpha(context.pix_fmt) or not crf else {"quality": str(100 - crf)}
    if "mpv_flags" in known or context.name == "mjpeg":  # the MPEG family has a scale of 1 to 31
        context.qmin = context.qmax = max(1, min(31, crf // 4))
    return {}


def parse_options(text: str) -> dict[str, str]:
    """``tune=grain,bf=2`` -> {"tune": "grain", "bf": "2"}; a value may have commas. Raises UsageError."""
    options = {}
    for part in re.split(r",(?=[\w:-]+=)", text) if text else ():
        name, sign, value = part.strip().partition("=")
        if not sign or not name or not value:
            raise UsageError(f"-e {text}: it takes key=value,key=value, as in 'tune=grain,bf=2', and {part!r} is not")
        options[name] = value
    return options


def check_options(context: Any, given: dict[str, str], known: set[str]) -> None:
    """Raise UnknownName for an option that the encoder does not have."""
    generic = {option.name for option in context.supported_options.generic
               if option.flags & ENCODING and option.flags & VIDEO} if given else set()
    for name in given:
        if name not in known | generic:
            raise UnknownName(f"option of {context.name}", name, sorted(known | generic),
                              f"ffmpeg -h encoder={context.name}")


def join_option(options: dict[str, str], name: str, value: str) -> None:
    """Set an option; to a list of parameters, as x265-params is, more are added, and the later ones win."""
    options[name] = f"{options[name]}:{value}" if name.endswith("-params") and name in options else value
