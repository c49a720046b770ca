"""What ``step.shape_gradient`` makes of a gradient, as data."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamdream.ascent.terms import Term
    from streamdream.settings import DreamSettings

EQUAL_BANDS = 3


@dataclass(frozen=True)
class GradientShape:
    """How what came through the network is smoothed and coloured."""

    smooth: float = 0.0
    """Factor of ``SIGMAS``; 0 for no smoothing."""
    color: float = 1.0
    """Saturation, 0..1."""
    palette: float = 0.0
    """Power of the natural covariance of colours that the gradient is multiplied by; 0 leaves its own colours."""
    bands: int = 0
    """Frequency bands that get equal energy, 0 for none: a Laplacian pyramid without its resizing, for engines."""

    @property
    def parts(self) -> int:
        """Gradients that ``shape_gradient`` makes of one: they are normalised apart."""
        return max(self.bands, 1)

    def parts_of(self, term: Term) -> int:
        return self.parts if self.smooth > 0 and term.taps else 1

    @classmethod
    def of(cls, settings: DreamSettings) -> GradientShape:
        return cls(settings.smooth, settings.color, settings.palette, EQUAL_BANDS if settings.equalize else 0)
