"""What becomes of pictures before they are dreamed: turned, cropped, mirrored, fitted."""
from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamdream.errors import SettingsError
from streamdream.media.frame import Frame
from streamdream.media.resize import letterbox
from streamdream.media.sources.transform import Transformed, parse_region


class Still:
    """A source of one picture."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image, (self.height, self.width) = image, image.shape[:2]
        self.pixel_aspect, self.warnings = Fraction(4, 3), ["a word"]

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(self.image, 0.0)


@pytest.mark.parametrize(("turn", "times"), [("0", 0), ("90", 3), ("180", 2), ("270", 1)])
def test_pictures_are_turned_cropped_and_mirrored(turn: str, times: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    source = Transformed(Still(image), turn, "4x3+1+2", mirror=True)
    expected = np.rot90(image, times)[2:5, 1:5][:, ::-1]
    np.testing.assert_array_equal(next(iter(source)).image, expected)
    assert (source.width, source.height) == (4, 3) and source.warnings == ["a word"]
    assert source.pixel_aspect == (Fraction(3, 4) if times % 2 else Fraction(4, 3))


def test_a_region_is_in_the_middle_or_where_it_is_said() -> None:
    assert vars(parse_region("4x2", (10, 10))) == {"width": 4, "height": 2, "left": 3, "top": 4}
    for text in ("4", "0x5", "4x5+1", "a"):
        with pytest.raises(SettingsError, match="is no region"):
            parse_region(text)
    with pytest.raises(SettingsError, match="--crop is '9x9', but the picture is 8x6"):
        Transformed(Still(np.zeros((6, 8, 3), np.uint8)), crop="9x9")


def test_fitting_keeps_the_shape() -> None:
    """A round thing stays round, and what is beside it is black."""
    disc = np.zeros((100, 100, 3), np.uint8)
    cv2.circle(disc, (50, 50), 40, (255, 255, 255), -1)
    fitted = letterbox(disc, 320, 200)
    rows, columns = np.nonzero(fitted[..., 0] > 128)
    assert fitted.shape == (200, 320, 3)
    assert np.ptp(rows) == pytest.approx(160, abs=3) and np.ptp(columns) == pytest.approx(160, abs=3)
    assert columns.mean() == pytest.approx(160, abs=1) and np.max(fitted[:, :50]) == 0
