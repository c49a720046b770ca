"""The footage of the quality benchmark is what it says, and its metrics tell good from bad."""
from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from streamdream_bench import footage


@pytest.mark.parametrize("name", [name for name in footage.FOOTAGE if name not in footage.CLIPS])
def test_footage_has_the_size_asked_for_moves_and_repeats(name: str) -> None:
    pictures = footage.FOOTAGE[name](4, 48, 64)
    assert [(picture.shape, picture.dtype) for picture in pictures] == [((48, 64, 3), np.uint8)] * 4
    assert all((a != b).any() for a, b in itertools.pairwise(pictures))
    assert pictures[0].std() > 20
    assert all((a == b).all() for a, b in zip(pictures, footage.FOOTAGE[name](3, 48, 64), strict=False))


def test_clips_that_are_missing_are_left_out(world: Path, tmp_path: Path) -> None:
    assert len(footage.all_footage(str(tmp_path))) == 6
    (tmp_path / "clouds.mp4").write_bytes(world.read_bytes())
    kinds = footage.all_footage(str(tmp_path))
    assert len(kinds) == 7 and len(kinds["clouds"](3, 48, 64)) == 3
