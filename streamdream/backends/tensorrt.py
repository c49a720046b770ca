"""TensorRT backend for the graph of the step, through Torch-TensorRT or Torch-TensorRT-RTX, whichever is installed.

TensorRT networks are strongly typed, so the graph is traced in fp16 (in float32 from the smoothing on). An engine is
valid for one GPU, one size and one version of each library; its key in our cache has them all. Torch-TensorRT's own
cache is not used: its keys have only the names of operations, so it returns the engine of another step.
"""
from __future__ import annotations

import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamdream.backends import engine_cache, graph
from streamdream.backends.cached_engine import CachedEngineBackend
from streamdream.backends.eager import Eager
from streamdream.backends.engine import FLOOR_COSINE, cosine
from streamdream.errors import EngineError, SettingsError
from streamdream.system import cache_dir

if TYPE_CHECKING:
    from streamdream.ascent.objectives import Objective
    from streamdream.backends.engine import Engine
    from streamdream.backends.graph import Graph
    from streamdream.models import Model

INSTALL = "pip install 'streamdream[tensorrt-rtx]' for GeForce and RTX cards, 'streamdream[tensorrt]' for others"
RTX_RUNS_ON = frozenset(((7, 5), (8, 0), (8, 6), (8, 9)))
"""Compute capabilities that TensorRT-RTX supports, in addition to 12.0 and later. On others (an H100 has 9.0) release
1.7 builds an engine that it then cannot load.
"""
log = logging.getLogger(__name__)
PACKAGES = ("torch-tensorrt", "torch-tensorrt-rtx", "tensorrt", "tensorrt-cu13", "tensorrt-rtx", "tensorrt-rtx-cu13")


class TensorRt(CachedEngineBackend):
    """Builds an engine for each size, on the GPU that will run it."""

    name = "tensorrt"

    @staticmethod
    def available() -> tuple[bool, str]:
        if find_spec("torch_tensorrt") is None:
            return False, f"Torch-TensorRT is not installed: {INSTALL}"
        if not torch.cuda.is_available():
            return False, "TensorRT needs an NVIDIA GPU with its driver, and PyTorch sees none: nvidia-smi shows them"
        capability = torch.cuda.get_device_capability()
        if "torch-tensorrt-rtx" in versions() and capability < (12, 0) and capability not in RTX_RUNS_ON:
            return False, (f"TensorRT-RTX does not run on {torch.cuda.get_device_name()}, which has compute capability "
                           f"{capability[0]}.{capability[1]}: pip uninstall torch-tensorrt-rtx && pip install "
                           "'streamdream[tensorrt]'")
        try:
            import_quietly()
        except Exception as error:  # a missing or incompatible library raises any type
            return False, f"Torch-TensorRT cannot be loaded ({str(error).splitlines()[0]}): {INSTALL}"
        return True, f"TensorRT, {', '.join(f'{name} {version}' for name, version in versions().items())}"

    def __init__(self, model: Model, device: str, precision: str) -> None:
        super().__init__(Eager(model, device, precision))
        if self.device.type != "cuda":
            raise SettingsError(f"--device {device} cannot be used by tensorrt: it runs on NVIDIA GPUs, as in cuda:0")

    def versions(self) -> dict[str, str]:
        return {**versions(), "tf32": "off"}  # with it, what is traced in float32 would have ten bits

    def serialize(self, traced: Graph) -> bytes:
        torch_tensorrt = import_quietly()
        with warnings.catch_warnings(), torch.cuda.device(self.device):
            warnings.simplefilter("ignore")
            inputs = [example.contiguous() for example in traced.inputs]
            data: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                traced.export(), arg_inputs=inputs, device=torch_tensorrt.Device(gpu_id=self.device.index or 0),
                require_full_compilation=True, min_block_size=1, disable_tf32=True,
                timing_cache_path=str(cache_dir.cache_dir("engines") / "timing_cache.bin"))
        return data

    def deserialize(self, data: bytes, shape: torch.Size) -> Engine:
        return TensorRtEngine(data, self.device, ((shape, torch.float32),))

    def compile_function(self, work: Callable[..., Any], objectives: Sequence[Objective] = ()) -> Callable[..., Any]:
        """Return ``work``, a function of tensors without branches, as one engine, built at its first call and stored.

        What holds no step runs as a CUDA graph. Raises EngineError if the engine differs from ``work`` by more than
        rounding.
        """
        if not objectives:
            return self._eager.compile_function(work)
        engines: dict[tuple[torch.Size, ...], Callable[..., Any]] = {}

        def run(*inputs: Tensor) -> Any:
            shapes = tuple(tensor.shape for tensor in inputs)
            if shapes not in engines:
                with torch.no_grad():
                    engines[shapes] = self._function_engine(work, inputs)
            return engines[shapes](*inputs)

        return run

    def _function_engine(self, work: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
        expected: tuple[Tensor, ...] = work(*inputs)
        traced = without_bytes(graph.trace(work, inputs))
        kinds = [(output.shape, torch.float32 if output.dtype == torch.uint8 else output.dtype) for output in expected]
        key = self._build_key(traced) | {"size": f"frame-{'x'.join(map(str, expected[0].shape))}"}

        def serialize() -> bytes:
            log.info("building an engine for a whole frame on %s in %s", self.name, self.precision)
            return self.serialize(traced)

        engine = engine_cache.load_or_build(key, lambda data: TensorRtEngine(data, self.device, kinds), serialize)

        def run(*arguments: Tensor) -> tuple[Tensor, ...]:
            return tuple(output.to(like.dtype) for output, like in zip(engine.run(*arguments), expected, strict=True))

        for output, like in zip(run(*inputs), expected, strict=True):
            if not (like.float() == like.float().flatten()[0]).all() and cosine(output, like) < FLOOR_COSINE:
                raise EngineError(f"{self.name} does not compute the frame right here; --backend eager does, please "
                                  "report this")
        return run

    def engine_bytes(self, engine: Engine, data_bytes: int, shape: torch.Size) -> int:
        """Estimate the weights by the size of the data; TensorRT reports its workspace."""
        return data_bytes + getattr(engine, "workspace_bytes", 0)


class TensorRtEngine:
    """A loaded engine. Takes the inputs in the order of the graph. A call returns its only output, ``run`` returns all.

    ``outputs`` are their shapes and types, in the order of the graph.
    """

    def __init__(self, data: bytes, device: torch.device, outputs: Sequence[tuple[torch.Size, torch.dtype]]) -> None:
        import_quietly()
        import tensorrt

        self._device, self._shapes_and_types = device, outputs
        with torch.cuda.device(device):
            self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
            self._engine = self._runtime.deserialize_cuda_engine(data)
            if self._engine is None:
                raise EngineError("TensorRT cannot load the engine: it was built by another version or for another GPU")
            self._context = self._engine.create_execution_context()
            self.workspace_bytes = int(getattr(self._engine, "device_memory_size_v2", 0))
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        mode = tensorrt.TensorIOMode.INPUT
        self._inputs = [name for name in names if self._engine.get_tensor_mode(name) == mode]
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name) != mode]

    def __call__(self, *arguments: Tensor) -> Tensor:
        output, = self.run(*arguments)
        return output

    def run(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        inputs = [argument.contiguous() for argument in arguments]  # engines take plain NCHW
        outputs = tuple(torch.empty(shape, dtype=dtype, device=self._device) for shape, dtype in self._shapes_and_types)
        for name, tensor in zip([*self._inputs, *self._outputs], [*inputs, *outputs], strict=True):
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(self._device).cuda_stream):
            raise EngineError("TensorRT could not run the engine; --backend eager can")
        return outputs


def without_bytes(traced: Graph) -> Graph:
    """Return the graph with float32 in place of uint8, of which an engine can only take inputs and convert them; the
    values are the same.
    """
    module = traced.module
    assert isinstance(module, torch.fx.GraphModule)
    given = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, example in zip(given, traced.inputs, strict=True):
        if example.dtype == torch.uint8:
            with module.graph.inserting_after(given[-1]):
                numbers = module.graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": torch.float32})
            node.replace_all_uses_with(numbers, delete_user_cb=lambda user, numbers=numbers: user is not numbers)
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._to_copy.default and node.kwargs.get("dtype") == torch.uint8:
            with module.graph.inserting_before(node):
                whole = module.graph.call_function(torch.ops.aten.floor.default, (node.args[0],))
            node.replace_all_uses_with(whole)
            module.graph.erase_node(node)
    module.recompile()
    return traced


def import_quietly() -> Any:
    """Import torch_tensorrt without its warnings; it also redirects ``import tensorrt`` to the RTX package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_tensorrt

    return torch_tensorrt


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
