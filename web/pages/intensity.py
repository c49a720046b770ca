"""The slider *Intensity*: what it does to the settings, for the script that does it (``assets/intensity.js``)."""
from __future__ import annotations

import itertools

POINTS: dict[str, tuple[tuple[float, float], ...]] = {
    "strength": ((0, 0), (50, 1), (100, 1.3)),
    "step_size": ((0, 1), (50, 1), (100, 2.2)),
}
"""Setting -> (position 0..100, factor of the look's own value), straight lines between them.

On 160 lines of a photograph and of a road, with eyes live and roses as a still, the picture changes by 0, 9, 18, 30 and
37 to 45 of 255 levels at 0, 25, 50, 75 and 100, and at most a tenth of its values is clipped. Of three times the step
more than that is clipped; 2.5 times the strength alone is only harsher.
"""


def factor(name: str, position: float) -> float:
    """Return the factor of a setting at a position of 0..100."""
    points = POINTS[name]
    low, high = next((one, other) for one, other in itertools.pairwise(points) if position <= other[0])
    return low[1] + (high[1] - low[1]) * (position - low[0]) / (high[0] - low[0])
