"""Conv."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import nn

from edgecompress.model.importer.padding import pair, require_image, window_padding
from edgecompress.model.importer.view import GraphView, Refused, Step, attribute


def convolution(node: onnx.NodeProto, view: GraphView) -> Step:
    """nn.Conv2d; asymmetric padding becomes an nn.ZeroPad2d before it."""
    source = view.activation(node)
    shape = view.shape(source)
    require_image(shape)
    weight = view.constant(node, 1, "weight")
    bias = view.optional(node, 2, "bias")
    if weight.ndim != 4:
        raise Refused(f"weight has {weight.ndim} dimensions; only 2-D convolution is supported")
    stride, dilation = pair(node, "strides", (1, 1)), pair(node, "dilations", (1, 1))
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    padding = window_padding(node, shape, kernel, stride, dilation)
    groups = int(attribute(node, "group", 1))
    # Exporters write a bias of zeros where there was none; BatchNorm or folding adds one if needed.
    has_bias = bias is not None and bool(np.any(bias))
    module = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        stride,
        (padding.top, padding.left) if padding.symmetric else 0,
        dilation,
        groups,
        has_bias,
    )
    set_parameters(module, weight=weight, bias=bias if has_bias else None)
    before = () if padding.symmetric else (("_pad", padding.module()),)
    return Step(node.name, (source,), node.output[0], modules=(*before, ("", module)))


def set_parameters(module: nn.Module, **arrays: np.ndarray | None) -> None:
    """Copies float32 arrays into the module's parameters and buffers of the same names."""
    state = {
        name: torch.from_numpy(np.array(array, dtype=np.float32))
        for name, array in arrays.items()
        if array is not None
    }
    module.load_state_dict(state, strict=False)
