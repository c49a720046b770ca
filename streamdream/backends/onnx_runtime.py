"""ONNX Runtime backend for the graph of the step: processors of every kind, and GPUs by its execution providers.

An engine is the ONNX file of the step; ONNX Runtime optimises it for the device when it is loaded.
"""
from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import onnx_export
from streamdream.backends.cached_engine import CachedEngineBackend
from streamdream.backends.eager import Eager
from streamdream.errors import EngineError, SettingsError

if TYPE_CHECKING:
    from streamdream.backends.engine import Engine, EngineRequest
    from streamdream.backends.graph import Graph
    from streamdream.models import Model

INSTALL = "pip install 'streamdream[onnx]'"
PACKAGES = {"onnxruntime": "ONNX Runtime", "onnx": "onnx", "onnxscript": "ONNX Script"}
"""Modules that run and write a file -> what they are called."""
PROVIDERS = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider",
             "migraphx": "MIGraphXExecutionProvider", "dml": "DmlExecutionProvider",
             "coreml": "CoreMLExecutionProvider", "qnn": "QNNExecutionProvider",
             "openvino": "OpenVINOExecutionProvider", "cpu": "CPUExecutionProvider"}
"""Value of ``--device`` -> ONNX Runtime's name; ``auto`` is the first that the installed package has."""
ALIASES = {"mps": "coreml"}
ON_CUDA = ("tensorrt", "cuda")
"""Providers that read and write tensors of PyTorch on the GPU."""
PRECISIONS = ("fp32", "fp16")
"""The provider for processors has no bf16 convolution; fp16 it computes in float32."""
MEMORY = 3.8, 1800
"""Memory of an engine: bytes per byte of its data, and per pixel."""


class OnnxRuntime(CachedEngineBackend):
    """Runs a step as an ONNX file."""

    name = "onnx"

    @staticmethod
    def available() -> tuple[bool, str]:
        missing = [title for module, title in PACKAGES.items() if importlib.util.find_spec(module) is None]
        if missing:
            return False, f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: {INSTALL}"
        try:
            return True, f"ONNX Runtime {_runtime().__version__} on {', '.join(providers())}"
        except Exception as error:  # a broken installation may raise any type
            return False, f"ONNX Runtime does not load ({str(error).splitlines()[0]}): {INSTALL} --force-reinstall"

    def __init__(self, model: Model, device: str, precision: str) -> None:
        kind, _, number = device.partition(":")
        kind = providers()[0] if kind == "auto" else ALIASES.get(kind, kind)
        if kind not in providers() or (number and not number.isdecimal()):
            raise SettingsError(f"--device {device} cannot be used by onnx here; it has auto, {', '.join(providers())}")
        if precision == "auto":
            precision = "fp32" if kind in ("cpu", "openvino") else "fp16"
        elif precision not in PRECISIONS:
            raise SettingsError(f"--precision {precision} cannot be used by onnx; it has {', '.join(PRECISIONS)}")
        self._provider, self._number = kind, int(number or 0)
        shared = kind in ON_CUDA and torch.cuda.is_available()  # else tensors stay on the processor
        super().__init__(Eager(model, f"cuda:{self._number}" if shared else "cpu", precision))

    def describe_device(self) -> str:
        return f"{self.device_name}, {super().describe_device()}, {self.threads} threads"

    @property
    def device_name(self) -> str:
        return f"{self._provider}:{self._number}" if self._number else self._provider

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": _runtime().__version__, "onnxscript": importlib.metadata.version("onnxscript")}

    def trace(self, request: EngineRequest) -> Graph:
        return onnx_export.trace(self.model, request.spec, self.precision, request.targets, request.shape[0],
                                 self.device)

    def serialize(self, traced: Graph) -> bytes:
        data: bytes = onnx_export.convert_step(traced).SerializeToString()
        return data

    def deserialize(self, data: bytes, shape: torch.Size) -> Engine:
        session = self.open_session(data)
        return CudaEngine(session, self.device, shape) if self.device.type == "cuda" else HostEngine(session)

    def open_session(self, data: bytes) -> Any:
        """Load an ONNX file on the device. Raises EngineError where its provider does not start."""
        options, chosen = _runtime().SessionOptions(), PROVIDERS[self._provider]
        options.intra_op_num_threads = self.threads
        # threads that wait leave their core to others, such as a camera's
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors: it warns of each default of an input
        if self._provider == "dml":
            options.enable_mem_pattern = False  # as its documentation demands
        others = [PROVIDERS[name] for name in (["cuda"] if self._provider == "tensorrt" else []) if name in providers()]
        session = _runtime().InferenceSession(data, options, providers=[
            (chosen, self._provider_options()), *others,
            *([PROVIDERS["cpu"]] if self._provider != "cpu" else [])])
        if chosen not in session.get_providers():  # it has fallen back to another one
            raise EngineError(f"ONNX Runtime cannot start {chosen} here; streamdream doctor lists what there is")
        return session

    def _provider_options(self) -> dict[str, str]:
        options = {"device_id": str(self._number)} if self._provider in (*ON_CUDA, "dml", "migraphx") else {}
        if self._provider == "tensorrt" and self.precision == "fp16":
            options["trt_fp16_enable"] = "1"
        if self._provider == "coreml":
            options["ModelFormat"] = "MLProgram"  # it knows more operations than the older format
        return options

    def engine_bytes(self, engine: Engine, data_bytes: int, shape: torch.Size) -> int:
        """Estimate the memory, which ONNX Runtime does not report: its weights, packed, and buffers per pixel."""
        per_byte, per_pixel = MEMORY
        return round(per_byte * data_bytes + per_pixel * shape[0] * shape[2] * shape[3])


class HostEngine:
    """An engine whose inputs and outputs are in the memory of the processor, wherever it computes."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = [given.name for given in session.get_inputs()]

    def __call__(self, *arguments: Tensor) -> Tensor:
        arrays = [argument.detach().cpu().contiguous().numpy() for argument in arguments]
        output = self._session.run(None, dict(zip(self._inputs, arrays, strict=True)))[0]
        dreamed = torch.from_numpy(output).contiguous(memory_format=torch.channels_last)
        return dreamed.to(arguments[0].device)


class CudaEngine:
    """An engine that reads and writes tensors where they are on the GPU."""

    def __init__(self, session: Any, device: torch.device, shape: torch.Size) -> None:
        self._session, self._device, self._shape = session, device, shape
        self._inputs = [given.name for given in session.get_inputs()]

    def __call__(self, *arguments: Tensor) -> Tensor:
        inputs = [argument.detach().contiguous() for argument in arguments]
        output, binding = torch.empty(self._shape, device=self._device), self._session.io_binding()
        for name, tensor in zip(self._inputs, inputs, strict=True):
            binding.bind_input(name, "cuda", self._device.index or 0, _numpy_type(tensor), tuple(tensor.shape),
                               tensor.data_ptr())
        binding.bind_output(self._session.get_outputs()[0].name, "cuda", self._device.index or 0, _numpy_type(output),
                            tuple(self._shape), output.data_ptr())
        torch.cuda.current_stream(self._device).synchronize()  # ONNX Runtime has a stream of its own
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return output


def _numpy_type(tensor: Tensor) -> Any:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype.type


@cache
def providers() -> list[str]:
    """The names of ``--device`` that the installed package has, the fastest first."""
    available = _runtime().get_available_providers()
    return [name for name, provider in PROVIDERS.items() if provider in available]


@cache
def _runtime() -> Any:
    """Import ONNX Runtime; on Windows its telemetry, which reports each session to its maker, is off."""
    runtime = importlib.import_module("onnxruntime")
    runtime.disable_telemetry_events()
    return runtime
