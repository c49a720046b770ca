"""The step's graph in OpenVINO: Intel's and AMD's processors, and Intel's GPUs and NPUs.

The graph is given to it in float32, with the precision as a hint: it then keeps what decides the step's length in
float32 by itself, and fuses convolutions with what follows them.
"""
from __future__ import annotations

import importlib.util
import io
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import openvino_precision
from streamdream.backends.cached_engine import CachedEngineBackend
from streamdream.errors import SettingsError
from streamdream.system.torch_threads import default_threads

if TYPE_CHECKING:
    from streamdream.backends.engine import Engine
    from streamdream.backends.graph import Graph
    from streamdream.models import Model

INSTALL = "pip install 'streamdream[openvino]'"
PLUGINS = {"auto": "CPU", "cpu": "CPU", "xpu": "GPU", "gpu": "GPU", "npu": "NPU"}
"""What ``--device`` may be here -> OpenVINO's name for it; ``auto`` is the processor, the only one measured."""
MEMORY_FP32, MEMORY_HALF = (2.8, 650), (2.2, 400)
"""Bytes of an engine in memory for each byte of its data, and for each pixel."""
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVino(CachedEngineBackend):
    """Converts the graph once per size, and keeps what OpenVINO made of it."""

    name = "openvino"

    @staticmethod
    def available() -> tuple[bool, str]:
        if importlib.util.find_spec("openvino") is None:
            return False, f"OpenVINO is not installed: {INSTALL}"
        try:
            return True, f"OpenVINO {_version()} on {', '.join(_core().available_devices)}"
        except Exception as error:  # a broken installation raises whatever it likes
            return False, f"OpenVINO does not load ({str(error).splitlines()[0]}): {INSTALL} --force-reinstall"

    def __init__(self, model: Model, device: str, precision: str) -> None:
        plugin = PLUGINS.get(device)
        if plugin is None or not any(name.split(".")[0] == plugin for name in _core().available_devices):
            here = [name for name, known in PLUGINS.items() if known in _core().available_devices]
            raise SettingsError(f"--device {device} cannot be used by openvino here; it has {', '.join(here)}")
        self._plugin = plugin
        super().__init__(model, "cpu", precision)  # pictures and targets stay with the processor
        able = _core().get_property(plugin, "OPTIMIZATION_CAPABILITIES")
        if self.precision != "fp32" and self.precision.upper() not in able:  # it would take another one in silence
            raise SettingsError(f"--precision {self.precision} cannot be used by openvino on this {plugin}; it has "
                                f"{', '.join(name for name in HINTS if name.upper() in able)}")

    @property
    def graph_dtype(self) -> torch.dtype:
        return torch.float32

    def describe_device(self) -> str:
        name = _core().get_property(self._plugin, "FULL_DEVICE_NAME")
        return f"{self._plugin} {name}, {super().describe_device()}, {default_threads()} threads"

    @property
    def device_name(self) -> str:
        return self._plugin.lower()

    def versions(self) -> dict[str, str]:
        # without a word of shapes: of engines with open ones; of the beginning: of those that rounded it, too
        beginning = {} if self.precision == "fp32" else {"beginning": "fp32"}
        return {"openvino": _version(), "shapes": "fixed", **beginning}

    @property
    def _options(self) -> dict[str, str]:
        options = {"INFERENCE_PRECISION_HINT": HINTS[self.precision], "PERFORMANCE_HINT": "LATENCY"}
        if self._plugin == "CPU":
            # not pinned: a thread that a display or a camera has put aside goes on where there is room
            options |= {"INFERENCE_NUM_THREADS": str(default_threads()), "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO"}
        return options

    def build(self, recorded: Graph) -> bytes:
        model, stream = convert(recorded), io.BytesIO()
        if self.precision != "fp32":
            model = openvino_precision.keep_fp32(_core(), _openvino(), model, openvino_precision.fp32_nodes(recorded))
        _core().compile_model(model, self._plugin, self._options).export_model(stream)
        return stream.getvalue()

    def deserialize(self, data: bytes, shape: torch.Size) -> Engine:
        # bytes: from a stream it reads with the interpreter held, 10 ms where this takes 3
        request = _core().import_model(data, self._plugin, self._options).create_infer_request()

        def engine(*arguments: Tensor) -> Tensor:
            given = [argument.detach().cpu().float().contiguous().numpy() for argument in arguments]
            found = request.infer(given, share_inputs=True, share_outputs=True)[0]
            # copied: the next step writes to the same place
            return torch.from_numpy(found).clone(memory_format=torch.channels_last)

        return engine

    def engine_bytes(self, engine: Engine, data_bytes: int, shape: torch.Size) -> int:
        """An estimate, as OpenVINO does not tell: weights packed anew beside those in the data, and what its first call
        takes for each pixel. Resident memory grew by 0.8 to 1.0 of it at inception_v3's conv2d_3 to mixed5 on 96x128 to
        480x640.
        """
        of_data, of_pixel = MEMORY_FP32 if self.precision == "fp32" else MEMORY_HALF
        return round(of_data * data_bytes + of_pixel * shape[0] * shape[2] * shape[3])


def convert(recorded: Graph) -> Any:
    """OpenVINO's model of it, as it was recorded and of one size: from an exported program it takes 4 s longer, and has
    sizes left open, which makes each step a tenth slower. What it knows under another name only, ``graph`` says so.
    """
    convert_model = _openvino().convert_model
    decoder = importlib.import_module("openvino.frontend.pytorch.fx_decoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's deprecations
        return convert_model(decoder.TorchFXPythonDecoder(
            recorded.module, input_shapes=[given.shape for given in recorded.inputs],
            input_types=[given.dtype for given in recorded.inputs]))


@cache
def _openvino() -> Any:
    """The package, without what it would send to its maker: it reports each import and each model converted, unless its
    telemetry package is missing. So that is missing while it is imported.
    """
    reporter = "openvino_telemetry"
    before = sys.modules.get(reporter, ...)
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if before is ...:
            del sys.modules[reporter]
        else:
            sys.modules[reporter] = before


def _version() -> str:
    return str(_openvino().__version__)


@cache
def _core() -> Any:
    return _openvino().Core()
