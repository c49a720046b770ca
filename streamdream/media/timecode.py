"""SMPTE timecodes: where a part of a video begins."""
from __future__ import annotations

import math
import re
from fractions import Fraction

TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d{2,3})", re.ASCII)
MAX_RATE = 120
DROPPED_OF_30 = 2
"""Numbers that are left out in each minute but the tenth ones, at 29.97 frames a second."""


def advance(timecode: str, frames: int, rate: Fraction) -> str | None:
    """The timecode ``frames`` later, at ``rate`` frames a second; None where it is not legal at that rate.

    One with ``;`` or ``.`` drops numbers of frames, so that it follows the clock at 29.97 or 59.94 frames a second.
    """
    match, base = TIMECODE.fullmatch(timecode), math.floor(rate + Fraction(1, 2))
    if match is None or not 1 <= base <= MAX_RATE:
        return None
    hours, minutes, seconds, number = (int(match[group]) for group in (1, 2, 3, 5))
    drops = match[4] != ":"
    if minutes > 59 or seconds > 59 or number >= base or (drops and base % 30):
        return None
    dropped = DROPPED_OF_30 * base // 30 if drops else 0
    in_minute, in_ten = base * 60 - dropped, base * 600 - 9 * dropped
    total = ((hours * 60 + minutes) * 60 + seconds) * base + number
    total -= dropped * (hours * 54 + minutes - minutes // 10)
    total = (total + frames) % (in_ten * 144)
    if drops:
        tens, rest = divmod(total, in_ten)
        total += 9 * dropped * tens + dropped * max((rest - dropped) // in_minute, 0)
    seconds, number = divmod(total, base)
    width = len(match[5])
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{match[4]}{number:0{width}}"
