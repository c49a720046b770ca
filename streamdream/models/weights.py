"""Reading weight files. Nothing is ever unpickled, and a digest is checked before a byte is believed."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from streamdream.errors import ModelError


def check_digest(path: Path, sha256: str) -> None:
    """Raises ModelError when the file is missing or not the expected one."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"weights {path.name}: {error.strerror}; install streamdream again") from None
    if found != sha256:
        raise ModelError(f"weights {path.name} are damaged (sha256 {found[:12]}…, not {sha256[:12]}…); "
                         "install streamdream again")


def read_quantized(path: Path, sha256: str) -> dict[str, Tensor]:
    """8-bit safetensors -> float32 tensors, ``w = q * scale + min`` with one scale and min a tensor.

    Raises ModelError when the file is missing, damaged or lists no scale for a tensor.
    """
    from safetensors import SafetensorError, safe_open

    check_digest(path, sha256)
    try:
        with safe_open(path, "pt") as file:
            scales = json.loads(file.metadata()["scale_and_min"])
            return {key: file.get_tensor(key).to(torch.float32) * scales[key][0] + scales[key][1]
                    for key in file.keys()}  # noqa: SIM118 - not a dict: it cannot be iterated
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"weights {path.name} cannot be read: {error}") from None
