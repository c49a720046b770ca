"""The registry of networks: one row each, whatever they are loaded from.

``MODELS["inception_v3"].load_weights()`` gives float32 tensors; ``describe(row.nodes())`` its taps. Adding a network is
one file with its node table and one row here.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import UnknownName

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models.nodes import Node, TapInfo


@dataclass(frozen=True)
class Model:
    """One network.

    ``to_input`` turns a picture ``[1, 3, H, W]`` RGB in [-1, 1] into what the network was trained on.
    """

    name: str
    about: str
    licence: str
    weights: str
    nodes: Callable[[], list[Node]]
    load_weights: Callable[[], dict[str, Tensor]]
    to_input: Callable[[Tensor], Tensor]

    def taps(self) -> dict[str, TapInfo]:
        """Every named place where an objective can read, lowest first."""
        from streamdream.models.nodes import describe

        return describe(self.nodes())

    def check_taps(self, names: Iterable[str]) -> None:
        """Raises UnknownName with the close names for a tap that this network does not have."""
        known = self.taps()
        for name in names:
            if name not in known:
                raise UnknownName("layer", name, known, f"streamdream layers {self.name}")

    def available(self) -> tuple[bool, str]:
        """Whether its weights are here, and where they come from or why not."""
        return True, self.weights


EMBEDDED_INCEPTION_V3 = Path(__file__).parent / "embedded" / "inception_v3.safetensors"
EMBEDDED_INCEPTION_V3_SHA256 = "34705ba082e6e5eb9decb6ef6467d64f2f1a4ecbe4a09ae33bf0a9235971dffc"


def _inception_v3_nodes() -> list[Node]:
    from streamdream.models import inception_v3

    return inception_v3.nodes()


@cache
def _inception_v3_weights() -> dict[str, Tensor]:
    from streamdream.models import inception_v3
    from streamdream.models.weights import read_quantized

    return inception_v3.fold_batch_norm(read_quantized(EMBEDDED_INCEPTION_V3, EMBEDDED_INCEPTION_V3_SHA256))


def get(name: str) -> Model:
    """The row of that name. Raises UnknownName with the close ones."""
    if name not in MODELS:
        raise UnknownName("model", name, MODELS)
    return MODELS[name]


MODELS: dict[str, Model] = {row.name: row for row in (
    Model(
        name="inception_v3",
        about="Keras Inception v3, ImageNet, from the picture to mixed5",
        licence="MIT",
        weights="embedded, 8 bits a weight",
        nodes=_inception_v3_nodes,
        load_weights=_inception_v3_weights,
        to_input=lambda picture: picture,
    ),
)}
