"""Rebuild ``inception_v3.safetensors`` from the npm package ``nsfwjs`` 4.4.0 (MIT).

    npm pack nsfwjs@4.4.0 && tar xzf nsfwjs-4.4.0.tgz
    python build_inception_v3.py package/dist/models/inception_v3

The package holds a Keras Inception v3 as JavaScript: ``model.min.js`` is the topology with a weights manifest, and each
``group1-shardNof6.min.js`` carries one base64 string. Joined, they are all tensors in manifest order, one byte a value,
``w = q * scale + min``. Convolutions 1-50 and their batch norms are marked ``trainable: false`` there, so everything
up to ``mixed5`` is the untouched ImageNet network; only that is read, and its bytes are kept: the file stays 8-bit.
"""
import base64
import hashlib
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

LAST_CONV = 50  # mixed5 ends here; above it the network was retrained for another task
OUTPUT = Path(__file__).with_name("inception_v3.safetensors")


def read_manifest(model_js: str) -> list[dict[str, Any]]:
    """The weights manifest: JavaScript object syntax, turned into JSON by quoting keys and completing numbers."""
    start = model_js.index("weights:[{name:")
    text = model_js[start + len("weights:"):]
    depths = itertools.accumulate((char in "[{") - (char in "]}") for char in text)  # no string there holds a bracket
    end = next(index for index, depth in enumerate(depths) if depth == 0)
    text = re.sub(r"([{,])(\w+):", r'\1"\2":', text[: end + 1])
    text = re.sub(r"(?<=[:,\[])(-?)\.(\d)", r"\g<1>0.\2", text)
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def require_frozen(model_js: str) -> None:
    """Fail unless every layer that is read is marked as never trained by this package."""
    for number in range(1, LAST_CONV + 1):
        for layer in (f"conv2d_{number}", f"batch_normalization_{number}"):
            if f'config:{{name:"{layer}",trainable:!1' not in model_js:
                raise SystemExit(f"error: {layer} is not marked trainable: false; these are not ImageNet weights")


def read_shards(folder: Path) -> bytes:
    joined = b""
    for number in range(1, 7):
        text = (folder / f"group1-shard{number}of6.min.js").read_text()
        joined += base64.b64decode(max(re.findall(r'"([A-Za-z0-9+/=]{100,})"', text), key=len))
    return joined


def main(folder: Path) -> None:
    model_js = (folder / "model.min.js").read_text()
    require_frozen(model_js)
    data = read_shards(folder)
    tensors: dict[str, np.ndarray] = {}
    scales: dict[str, list[float]] = {}
    offset = 0
    for row in read_manifest(model_js):
        count = int(np.prod(row["shape"]))
        raw = np.frombuffer(data, np.uint8, count, offset).reshape(row["shape"])
        offset += count
        layer, kind = row["name"].split("/")
        match = re.fullmatch(r"(?:conv2d|batch_normalization)_(\d+)", layer)
        if not match or int(match[1]) > LAST_CONV:
            continue
        name = f"conv2d_{match[1]}.{kind}"
        # HWIO (TensorFlow) -> OIHW (PyTorch)
        tensors[name] = np.ascontiguousarray(raw.transpose(3, 2, 0, 1) if kind == "kernel" else raw)
        scales[name] = [float(row["quantization"]["scale"]), float(row["quantization"]["min"])]
    if offset != len(data):
        raise SystemExit(f"error: the manifest names {offset} bytes, the shards hold {len(data)}")
    # One metadata key only: safetensors writes several in no fixed order, and the digest must not change.
    save_file(dict(sorted(tensors.items())), OUTPUT, {"scale_and_min": json.dumps(scales, sort_keys=True)})
    OUTPUT.chmod(0o644)
    parameters = sum(t.size for t in tensors.values())
    digest = hashlib.sha256(OUTPUT.read_bytes()).hexdigest()
    sys.stdout.write(f"{OUTPUT.name}: {len(tensors)} tensors, {parameters} values, sha256 {digest}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
