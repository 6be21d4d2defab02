"""BatchNormalization in inference form."""

from __future__ import annotations

import onnx
from torch import nn

from edgecompress.model.importer.convolution import set_parameters
from edgecompress.model.importer.view import GraphView, Refused, Step, attribute, single_output


def batch_normalization(node: onnx.NodeProto, view: GraphView) -> Step:
    """nn.BatchNorm2d on [N, C, H, W], nn.BatchNorm1d on [N, C]."""
    source = view.activation(node)
    shape = view.shape(source)
    if attribute(node, "training_mode", 0):
        raise Refused("it is in training mode; export the model in eval mode")
    if len(shape) not in (2, 4):
        raise Refused(f"input has {len(shape)} dimensions; 2 or 4 are supported")
    # ONNX: running = running * momentum + new * (1 - momentum); torch's momentum is the other one.
    momentum = 1.0 - float(attribute(node, "momentum", 0.9))
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    module = kind(shape[1], eps=float(attribute(node, "epsilon", 1e-5)), momentum=momentum)
    set_parameters(
        module,
        weight=view.constant(node, 1, "scale"),
        bias=view.constant(node, 2, "bias"),
        running_mean=view.constant(node, 3, "mean"),
        running_var=view.constant(node, 4, "variance"),
    )
    return Step(node.name, (source,), single_output(node, view), modules=(("", module),))
