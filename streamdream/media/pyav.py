"""PyAV, whichever release there is: what 18 (Python 3.11) and 19 (3.12 and later) do differently is here only."""
from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal


def open_av(target: Any, mode: Literal["r", "w"] = "r", **how: Any) -> Any:
    """``av.open``. Metadata that are not UTF-8 survive being copied, their odd bytes as surrogates: PyAV 19 does that
    of itself and takes no such wish. Raises what ``av.open`` does.
    """
    import av

    if int(av.__version__.partition(".")[0]) < 19:
        how["metadata_errors"] = "surrogateescape"
    return av.open(target, mode, **how)


def fraction(value: Any, default: Fraction = Fraction(0)) -> Fraction:
    """PyAV's rationals (``Fraction``, or its own; ``None`` or 0 when unset, by release) -> Fraction."""
    return Fraction(value.numerator, value.denominator) if value else default
