"""What one frame passes on to the next, as arrays on the host or as tensors on a device."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamdream.media.opencv import cv2
from streamdream.media.resize import downscale_area

if TYPE_CHECKING:
    from streamdream.dream.device_frame import FrameState


@dataclass(frozen=True)
class DreamState:
    """What one frame passes on to the next. A dream starts from an empty state.

    With ``tensors`` the arrays are None: ``to_host`` makes them.
    """

    residual: NDArray[np.float32] | None = None
    """[h, w, 3], at the size of the field: dream minus frame, in [-1, 1] units."""
    grey: NDArray[np.uint8] | None = None
    """[h, w]: the frame that the residual belongs to."""
    index: int = 0
    """Frames dreamed so far; with the seed it determines the random shifts."""
    cuts: int = 0
    """Scene cuts so far; without those that only the device knows of, see ``DreamOptions.cut_on_device``."""
    doubt: NDArray[np.float32] | None = None
    """How far each region was doubted in the last frames, see ``trust.decay_doubt``."""
    maturity: NDArray[np.float32] | None = None
    """[h, w] in 0..1: how much of its final strength the residual has reached there (see step_gain.py)."""
    tensors: FrameState | None = None
    """All but ``index`` and ``cuts``, of a dream whose frames are dreamed on a device as a whole."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no dream to carry on."""
        return self.residual is None and self.tensors is None

    def emptied(self) -> DreamState:
        """Return the state without its dream: the next frame begins anew."""
        return DreamState(index=self.index, cuts=self.cuts)

    def faded(self, kept: float) -> DreamState:
        """Return the state with that fraction of its residual, which is as much younger."""
        if kept >= 1 or self.is_empty:
            return self
        if self.tensors is not None:
            return replace(self, tensors=self.tensors._replace(residual=self.tensors.residual * kept,
                                                               maturity=self.tensors.maturity * kept))
        assert self.residual is not None
        return replace(self, residual=self.residual * np.float32(kept),
                       maturity=None if self.maturity is None else self.maturity * np.float32(kept))

    def to_host(self) -> DreamState:
        """Return the state as arrays; waits for the device."""
        if self.tensors is None:
            return self
        from streamdream.media.frame import to_array

        residual, grey, doubt, maturity = (to_array(plane) for plane in self.tensors[:4])
        return DreamState(residual, grey[..., 0].astype(np.uint8), self.index, self.cuts, doubt[..., 0],
                          maturity[..., 0])

    def resized(self, height: int, width: int) -> DreamState:
        """Return the state for a field of another size, so that a change of size does not restart the dream."""
        if self.tensors is not None:
            from streamdream.dream.device_frame import resize_state

            return replace(self, tensors=resize_state(self.tensors, height, width))
        if self.residual is None or self.grey is None or self.grey.shape == (height, width):
            return self
        residual = cv2().resize(self.residual, (width, height), interpolation=cv2().INTER_LINEAR)
        maturity = None if self.maturity is None else cv2().resize(self.maturity, (width, height))
        return replace(self, residual=residual, grey=downscale_area(self.grey, height, width), maturity=maturity)
