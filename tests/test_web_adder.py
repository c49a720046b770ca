"""The page's sum in WebAssembly is the plain sum, as it is shipped and as its source says."""
from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamdream_web
from numpy.typing import NDArray

from streamdream.media.opencv import cv2

wasmtime = pytest.importorskip("wasmtime")
ASSETS = Path(streamdream_web.__file__).parent / "assets"


SHIPPED = (ASSETS / "add.wasm").read_bytes()


@pytest.mark.parametrize("code", [SHIPPED, bytes(wasmtime.wat2wasm((ASSETS / "add.wat").read_text()))],
                         ids=["shipped", "its source"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("width", "height", "w", "h"), [(64, 48, 32, 24), (1280, 720, 170, 96), (640, 480, 128, 96),
                                                         (96, 64, 96, 64), (50, 35, 8, 9)])
def test_it_adds_halves_to_a_picture(width: int, height: int, w: int, h: int, mirrored: bool, code: bytes) -> None:
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    levels = cv2().GaussianBlur(random.normal(0, 200, (h, w, 3)).astype(np.float32), (0, 0), 1.5).round()
    halves = np.full((2 * h, w, 4), 255, np.uint8)
    halves[..., :3] = np.vstack([levels, -levels]).clip(0, 255)
    found = added(code, picture, halves, mirrored)
    seen = picture[:, ::-1] if mirrored else picture
    expected = (seen[..., :3] + cv2().resize(levels.clip(-255, 255), (width, height))).clip(0, 255)
    assert np.abs(found[..., :3] - expected).max() <= 1
    assert np.array_equal(found[..., 3], seen[..., 3])


def added(code: bytes, picture: NDArray[np.uint8], halves: NDArray[np.uint8], mirrored: bool) -> NDArray[np.uint8]:
    """With memory laid out as adder.js does it."""
    store = wasmtime.Store()
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, code), []).exports(store)
    memory, (height, width), (h, w) = exports["memory"], picture.shape[:2], (len(halves) // 2, halves.shape[1])
    small, table = 2 * picture.nbytes, columns(width, w)
    row = small + halves.nbytes + len(table)
    memory.grow(store, (row + 8 * (w + 1)) // memory.data_len(store) + 1)
    for place, data in ((0, picture.tobytes()), (small, halves.tobytes()), (small + halves.nbytes, table)):
        memory.write(store, data, place)
    exports["add"](store, 0, picture.nbytes, width, height, small, w, h, small + halves.nbytes, row, int(mirrored))
    found: Any = np.frombuffer(bytes(memory.read(store, picture.nbytes, 2 * picture.nbytes)), np.uint8)
    return found.reshape(picture.shape)  # type: ignore[no-any-return]


def columns(width: int, w: int) -> bytes:
    at = np.clip((np.arange(width) + 0.5) * w / width - 0.5, 0, w - 1)
    left = np.floor(at).astype(int)
    near = np.round(32767 * (at - left)).astype(int)
    return b"".join(struct.pack("<2i8h", 8 * left[x], 8 * left[x + 1], *[near[x]] * 4, *[near[x + 1]] * 4)
                    for x in range(0, width, 2))
