"""One network: what it is, where objectives can read it, and where its weights are. All: ``registry.py``."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from streamdream.errors import ModelError, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

    from streamdream.models.nodes import Node, TapInfo

EMBEDDED_INCEPTION_V3 = Path(__file__).parent / "embedded" / "inception_v3.safetensors"
EMBEDDED_INCEPTION_V3_SHA256 = "34705ba082e6e5eb9decb6ef6467d64f2f1a4ecbe4a09ae33bf0a9235971dffc"


@dataclass(frozen=True)
class WeightSource:
    """A place that weights can be fetched from.

    ``digest`` is ``sha256:…``, ``sha1:…``, ``md5:…`` or ``git:…`` (a git blob id) of what the URL gives, or the
    beginning of it; "" where none is published: then only the shapes of the tensors are checked. ``size`` is in
    bytes, 0 where unknown; ``member`` names the one file to take out of an archive.
    """

    url: str
    digest: str = ""
    size: int = 0
    member: str = ""

    @property
    def suffix(self) -> str:
        """The format: ``.caffemodel``, ``.pth``, ...."""
        return Path(self.member or self.url).suffix


@dataclass(frozen=True)
class Preprocessing:
    """A picture ``[1, 3, H, W]`` RGB in [-1, 1] -> what a network was trained on: ``x * scale + shift`` a channel.

    ``shift`` is in the network's channel order, blue first with ``bgr``.
    """

    scale: float = 1.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bgr: bool = False

    def __call__(self, picture: Tensor) -> Tensor:
        if self == Preprocessing():
            return picture
        import torch

        order = (2, 1, 0) if self.bgr else (0, 1, 2)
        # as fast as flip and add, and it needs no constant tensor on a device or in a traced graph
        return torch.cat([picture[:, channel:channel + 1] * self.scale + shift
                          for channel, shift in zip(order, self.shift, strict=True)], 1)

    def gradient(self, gradient: Tensor) -> Tensor:
        """At the network's input -> at the picture, by the chain rule."""
        if self.bgr:
            gradient = gradient.flip(1)
        return gradient if self.scale == 1 else gradient * self.scale


def caffe_input(*mean_bgr: float) -> Preprocessing:
    """0..255 minus a mean: a value x in [-1, 1] is 127.5 x + 127.5 there."""
    blue, green, red = (127.5 - mean for mean in mean_bgr)
    return Preprocessing(127.5, (blue, green, red), bgr=True)


@dataclass(frozen=True)
class Model:
    """One network.

    ``to_input`` turns a picture ``[1, 3, H, W]`` RGB in [-1, 1] into what the network was trained on.
    ``default_layers`` is dreamed where no ``--layers`` are named. ``sources`` are in order of preference, none for
    embedded weights; ``layout`` is how files name its tensors (``weights.layouts``).
    """

    name: str
    about: str
    licence: str
    nodes: Callable[[], list[Node]]
    load_weights: Callable[[], dict[str, Tensor]]
    to_input: Preprocessing
    default_layers: str
    sources: tuple[WeightSource, ...] = ()
    layout: str = "plain"

    def taps(self) -> dict[str, TapInfo]:
        """Every named place where an objective can read, lowest first."""
        return dict(_describe(self.nodes))

    def blocks(self, pools: bool = False) -> list[str]:
        """The taps that people name, lowest first: where branches meet, and with ``pools`` where the picture becomes
        smaller. All of them in a network without branches.
        """
        from streamdream.models.nodes import Concat, MaxPool

        nodes = self.nodes()
        joined = {name for node in nodes if isinstance(node, Concat) for name in node.inputs}
        blocks = [node.name for node in nodes if node.name not in joined and (
            isinstance(node, Concat) or (pools and isinstance(node, MaxPool) and node.stride > 1))]
        return [name for name in self.taps() if name in blocks] or list(self.taps())

    def resolve_tap(self, name: str) -> str:
        """The tap of that name; ``a_b`` is accepted for ``a/b``. Raises UnknownName with the close names."""
        known = _describe(self.nodes)
        if name in known:
            return name
        for tap in known:
            if tap.replace("/", "_") == name.replace("/", "_"):
                return tap
        raise UnknownName("layer", name, known, f"streamdream layers {self.name}", examples=self.blocks())

    def available(self) -> tuple[bool, str]:
        """Whether its weights are here and look whole, and where or how to get them."""
        if not self.sources:
            return True, "embedded"
        from streamdream.models import fetch, file_formats

        path = fetch.find(self.name)
        if path is None:
            return False, f"streamdream fetch {self.name}"
        fault = file_formats.find_fault(path)
        return (False, f"{path} {fault}: streamdream fetch {self.name} --again") if fault else (True, str(path))

    def weights_path(self) -> Path | None:
        """The file with its weights; None when they are not here."""
        if not self.sources:
            return EMBEDDED_INCEPTION_V3
        from streamdream.models import fetch

        return fetch.find(self.name)

    def check_weights(self) -> None:
        """Check that its weights are here, without reading them. Raises ModelError with how to get them."""
        if self.sources:
            find_weights(self.name)


@cache
def _describe(nodes: Callable[[], list[Node]]) -> dict[str, TapInfo]:
    from streamdream.models.nodes import describe

    return describe(nodes())


def find_weights(name: str) -> Path:
    """The file with the fetched weights of that network. Raises ModelError with how to get them."""
    from streamdream.models import fetch

    path = fetch.find(name)
    if path is None:
        raise ModelError(f"the weights of {name} are not here; fetch them with: streamdream fetch {name} (or, from "
                         f"a file you have: streamdream fetch {name} --from FILE)")
    return path
