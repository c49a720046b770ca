"""Keep the first layers in float32 in an OpenVINO model of half precision, as ``models.network`` does.

The processor plugin takes a precision hint for the whole model, and excludes operations with a certain attribute. Its
Python package cannot set that attribute, but the XML of a saved model can contain it.

This marks convolutions and the operations between them, but not the comparisons in the gradient of a pool: OpenVINO
2026.4 rounds their operands anyway, or, if slices are marked as well, computes a wrong step (a cosine of 0.75).
"""
from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from streamdream.backends.graph import Graph

aten = torch.ops.aten
ATTRIBUTE = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:dynamic"}
ENDS = (aten.convolution.default, aten.relu.default)


def fp32_nodes(traced: Graph) -> set[str]:
    """Return the names of the graph's nodes from the picture to the last convolution before the first pooling."""
    module: Any = traced.module
    nodes = list(module.graph.nodes)
    known = {nodes[0].name}  # the picture
    for node in nodes:
        inputs = [node_input for node_input in node.all_input_nodes if node_input.op != "get_attr"]
        if (node.op == "call_function" and inputs and known.issuperset(node_input.name for node_input in inputs)
                and node.target != aten.max_pool2d_with_indices.default):
            known.add(node.name)
    marked: set[str] = set()
    for node in reversed(nodes):
        leads = node.target in ENDS or not marked.isdisjoint(user.name for user in node.users)
        if leads and node.name in known and node.op == "call_function":
            marked.add(node.name)
    return marked


def keep_fp32(core: Any, openvino: Any, model: Any, exact: set[str]) -> Any:
    """Return the model with its operations marked that stem from the nodes named in ``exact``."""
    with tempfile.TemporaryDirectory(prefix="streamdream-") as folder:
        path = Path(folder) / "model.xml"
        openvino.serialize(model, str(path))
        tree = ET.parse(path)
        for layer in tree.iterfind("./layers/layer"):
            if layer.get("type") != "Const" and (layer.get("name") or "").partition("/")[0] in exact:
                mark(layer)
        tree.write(path)
        return core.read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())


def mark(layer: ET.Element) -> None:
    attributes = layer.find("rt_info")
    if attributes is None:
        attributes = ET.Element("rt_info")
        layer.insert(1 if layer.find("data") is not None else 0, attributes)  # before the inputs, as OpenVINO writes it
    ET.SubElement(attributes, "attribute", ATTRIBUTE)
