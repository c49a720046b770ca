"""The embedded network once more, plainly: nothing rearranged, autograd, straight from the stored bytes."""
from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from safetensors import safe_open

from streamdream import models
from streamdream.models import inception_v3, nodes
from streamdream.models.nodes import INPUT, AvgPool, Concat, Conv, MaxPool, Relu

NODES = inception_v3.nodes()


def plain(taps: list[str], picture: torch.Tensor, dtype: torch.dtype = torch.float64,
          folded: bool = False) -> dict[str, torch.Tensor]:
    """The same network once more, straight from the stored bytes: batch norm unfolded, nothing rearranged."""
    with safe_open(models.EMBEDDED_INCEPTION_V3, "pt") as file:
        scales = json.loads(file.metadata()["scale_and_min"])
        stored = {key: file.get_tensor(key).to(dtype) * scales[key][0] + scales[key][1] for key in scales}
    values = {INPUT: picture.to(dtype)}
    for node in nodes.subgraph(NODES, taps):
        x = [values[name] for name in node.inputs]
        match node:
            case Conv() if folded:
                weights = models.get("inception_v3").load_weights()
                values[node.name] = F.conv2d(x[0], weights[f"{node.name}.weight"].to(dtype),
                                             weights[f"{node.name}.bias"].to(dtype), node.stride, node.padding)
            case Conv():
                y = F.conv2d(x[0], stored[f"{node.name}.kernel"], None, node.stride, node.padding)
                values[node.name] = F.batch_norm(y, stored[f"{node.name}.moving_mean"],
                                                 stored[f"{node.name}.moving_variance"], None,
                                                 stored[f"{node.name}.beta"], False, 0.0, 1e-3)
            case Relu():
                values[node.name] = F.relu(x[0])
            case MaxPool():
                values[node.name] = F.max_pool2d(x[0], 3, 2)
            case AvgPool():
                values[node.name] = F.avg_pool2d(x[0], 3, 1, 1, count_include_pad=False)
            case Concat():
                values[node.name] = torch.cat(x, 1)
    return {tap: values[tap] for tap in taps}
