"""Picture files: what is damaged is told in one line of ours, and decoders print nothing of their own."""
from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamdream.errors import SourceError
from streamdream.media.images import capture_decoder_noise, read_image


def damaged(path: Path, begin: int) -> str:
    """50 bytes in the middle of a picture of noise are overwritten."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = bytearray(cv2.imencode(path.suffix, image)[1].tobytes())
    data[begin: begin + 50] = b"\xff" * 50
    path.write_bytes(data)
    return str(path)


def test_a_damaged_png_is_refused_without_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="is not a picture that can be read"):
        read_image(damaged(tmp_path / "a.png", 300))
    assert capfd.readouterr().err == ""


def test_a_damaged_jpeg_is_used_with_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                               caplog: pytest.LogCaptureFixture) -> None:
    assert read_image(damaged(tmp_path / "a.jpg", 700)).shape == (64, 64, 3)
    assert capfd.readouterr().err == ""
    assert "a.jpg is damaged (corrupt jpeg data: premature end of data segment)" in caplog.text


def test_lines_of_others_are_not_lost_while_a_picture_is_decoded(capfd: pytest.CaptureFixture[str]) -> None:
    with capture_decoder_noise() as noise:
        thread = threading.Thread(target=os.write, args=(2, b"libpng error: x\nthe server has started\n"))
        thread.start()
        thread.join()
    assert noise == ["libpng error: x"] and capfd.readouterr().err == "the server has started\n"
