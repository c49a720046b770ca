"""What a file says of its pictures that the output cannot say: done to the pictures, or named."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.clips import Clip, make
from support.mp4_boxes import add_boxes, clean_aperture, equirectangular, side_by_side

from streamdream.media.planes import to_rgb
from streamdream.media.sources.video import open_source


@pytest.mark.parametrize("rotation", [None, (90, False, False)])
def test_only_the_clean_aperture_is_shown(tmp_path: Path, rotation: tuple[float, bool, bool] | None) -> None:
    """What lies outside is black here, as at the edge of a digitised tape."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[2:42, 12:60] = 200
    path = make(tmp_path / "a.mp4", Clip(30, options={"crf": "1", "g": "10"}, rotation=rotation), [image] * 30)
    add_boxes(path, clean_aperture(48, 40, 4, -2))
    for start in (0, 0.5):
        with open_source(path, start=start) as source:
            assert (source.width, source.height) == ((40, 48) if rotation else (48, 40))
            source.deliver_pictures(source.height, source.width)
            frames = list(source)
            assert len(frames) == 30 - start * 30 and source.warnings == []
        shape = (source.height, source.width, 3)
        for shown in (frames[0].image, to_rgb(frames[-1].picture)):
            assert shown.shape == shape and shown[2:-2, 2:-2].min() > 180


def test_what_no_output_keeps_is_said(tmp_path: Path) -> None:
    path = add_boxes(make(tmp_path / "a.mp4", Clip(3)), equirectangular(), side_by_side())
    with open_source(path) as source:
        assert len(list(source)) == 3
        assert ["360°" in warning for warning in source.warnings] == [True, False]
        assert "each eye" in source.warnings[1] and all(path in warning for warning in source.warnings)
