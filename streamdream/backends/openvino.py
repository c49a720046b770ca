"""OpenVINO backend for the graph of the step, on processors of Intel and AMD, and on Intel's GPUs and NPUs.

The graph is passed in float32, with the precision as a hint: OpenVINO then keeps the operations that decide the length
of the step in float32, and fuses convolutions with the operations after them.
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
from streamdream.backends.eager import Eager
from streamdream.errors import SettingsError

if TYPE_CHECKING:
    from streamdream.backends.engine import Engine
    from streamdream.backends.graph import Graph
    from streamdream.models import Model

INSTALL = "pip install 'streamdream[openvino]'"
PLUGINS = {"auto": "CPU", "cpu": "CPU", "xpu": "GPU", "gpu": "GPU", "npu": "NPU"}
"""Value of ``--device`` -> OpenVINO's name; ``auto`` is the processor, the only one that was measured."""
MEMORY_FP32, MEMORY_HALF = (2.8, 650), (2.2, 400)
"""Memory of an engine: bytes per byte of its data, and per pixel."""
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVino(CachedEngineBackend):
    """Converts the graph once per size, and caches the compiled model."""

    name = "openvino"

    @staticmethod
    def available() -> tuple[bool, str]:
        if importlib.util.find_spec("openvino") is None:
            return False, f"OpenVINO is not installed: {INSTALL}"
        try:
            return True, f"OpenVINO {_version()} on {', '.join(_core().available_devices)}"
        except Exception as error:  # a broken installation may raise any type
            return False, f"OpenVINO does not load ({str(error).splitlines()[0]}): {INSTALL} --force-reinstall"

    def __init__(self, model: Model, device: str, precision: str) -> None:
        plugin = PLUGINS.get(device)
        if plugin is None or not any(name.split(".")[0] == plugin for name in _core().available_devices):
            here = [name for name, known in PLUGINS.items() if known in _core().available_devices]
            raise SettingsError(f"--device {device} cannot be used by openvino here; it has {', '.join(here)}")
        self._plugin = plugin
        super().__init__(Eager(model, "cpu", precision))  # pictures and targets stay on the CPU
        supported = _core().get_property(plugin, "OPTIMIZATION_CAPABILITIES")
        if self.precision != "fp32" and self.precision.upper() not in supported:  # it would silently use another one
            raise SettingsError(f"--precision {self.precision} cannot be used by openvino on this {plugin}; it has "
                                f"{', '.join(name for name in HINTS if name.upper() in supported)}")

    @property
    def graph_dtype(self) -> torch.dtype:
        return torch.float32

    def describe_device(self) -> str:
        name = _core().get_property(self._plugin, "FULL_DEVICE_NAME")
        return f"{self._plugin} {name}, {super().describe_device()}, {self.threads} threads"

    @property
    def device_name(self) -> str:
        return self._plugin.lower()

    def versions(self) -> dict[str, str]:
        # these entries exclude older engines: with dynamic shapes, or with the first layers in half precision
        beginning = {} if self.precision == "fp32" else {"beginning": "fp32"}
        return {"openvino": _version(), "shapes": "fixed", **beginning}

    @property
    def _options(self) -> dict[str, str]:
        options = {"INFERENCE_PRECISION_HINT": HINTS[self.precision], "PERFORMANCE_HINT": "LATENCY"}
        if self._plugin == "CPU":
            # not pinned: a thread that a display or a camera preempts can move to another core
            options |= {"INFERENCE_NUM_THREADS": str(self.threads), "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": "NO"}
        return options

    def serialize(self, traced: Graph) -> bytes:
        model, stream = convert(traced), io.BytesIO()
        if self.precision != "fp32":
            model = openvino_precision.keep_fp32(_core(), _openvino(), model, openvino_precision.fp32_nodes(traced))
        _core().compile_model(model, self._plugin, self._options).export_model(stream)
        return stream.getvalue()

    def deserialize(self, data: bytes, shape: torch.Size) -> Engine:
        # importing from a stream holds the GIL for 10 ms; from bytes, 3 ms
        request = _core().import_model(data, self._plugin, self._options).create_infer_request()

        def engine(*arguments: Tensor) -> Tensor:
            inputs = [argument.detach().cpu().float().contiguous().numpy() for argument in arguments]
            output = request.infer(inputs, share_inputs=True, share_outputs=True)[0]
            # copy: the next step writes to the same memory
            return torch.from_numpy(output).clone(memory_format=torch.channels_last)

        return engine

    def engine_bytes(self, engine: Engine, data_bytes: int, shape: torch.Size) -> int:
        """Estimate the memory, which OpenVINO does not report: the data, repacked weights, and buffers per pixel.

        Resident memory grew by 0.8 to 1.0 of the estimate (inception_v3, conv2d_3 to mixed5, 96x128 to 480x640).
        """
        per_byte, per_pixel = MEMORY_FP32 if self.precision == "fp32" else MEMORY_HALF
        return round(per_byte * data_bytes + per_pixel * shape[0] * shape[2] * shape[3])


def convert(traced: Graph) -> Any:
    """Convert the traced graph, of one size, to OpenVINO's model.

    From an exported program the conversion would take 4 s longer, and its dynamic sizes would slow each step by 10 %.
    ``graph`` avoids operations that OpenVINO knows under other names only.
    """
    convert_model = _openvino().convert_model
    decoder = importlib.import_module("openvino.frontend.pytorch.fx_decoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated parts of PyTorch
        return convert_model(decoder.TorchFXPythonDecoder(
            traced.module, input_shapes=[example.shape for example in traced.inputs],
            input_types=[example.dtype for example in traced.inputs]))


@cache
def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports each import and each converted model to its maker.

    OpenVINO sends nothing if the telemetry package cannot be imported, so this hides that package meanwhile.
    """
    telemetry = "openvino_telemetry"
    before = sys.modules.get(telemetry, ...)
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if before is ...:
            del sys.modules[telemetry]
        else:
            sys.modules[telemetry] = before


def _version() -> str:
    return str(_openvino().__version__)


@cache
def _core() -> Any:
    return _openvino().Core()
