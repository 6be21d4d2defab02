"""Maximum, average and global pooling; the mean over height and width."""

from __future__ import annotations

import onnx
from torch import nn

from edgecompress.model.importer.padding import Padding, pair, require_image, window_padding
from edgecompress.model.importer.view import GraphView, Refused, Step, attribute, single_output

_NOT_NEGATIVE = {"Relu", "Clip", "Softmax"}


def max_pool(node: onnx.NodeProto, view: GraphView) -> Step:
    """nn.MaxPool2d; zero padding stands in for -infinity where the input is never negative."""
    kernel, stride, padding = _window(node, view)
    before: tuple[tuple[str, nn.Module], ...] = ()
    inside = (padding.top, padding.left)
    if not _inside(padding, kernel):
        producer = view.producers.get(node.input[0])
        if producer is None or producer.op_type not in _NOT_NEGATIVE:
            raise Refused(
                "asymmetric padding of an input that may be negative; only after a ReLU is the "
                "padding value representable"
            )
        before, inside = (("_pad", padding.module()),), (0, 0)
    module = nn.MaxPool2d(kernel, stride, inside)
    return Step(
        node.name,
        (view.activation(node),),
        single_output(node, view),
        modules=(*before, ("", module)),
    )


def average_pool(node: onnx.NodeProto, view: GraphView) -> Step:
    """nn.AvgPool2d; asymmetric padding that counts becomes an nn.ZeroPad2d before it."""
    kernel, stride, padding = _window(node, view)
    counted = bool(attribute(node, "count_include_pad", 0))
    before: tuple[tuple[str, nn.Module], ...] = ()
    inside = (padding.top, padding.left)
    if not _inside(padding, kernel):
        if not counted:
            raise Refused("asymmetric padding that is left out of the average")
        before, inside = (("_pad", padding.module()),), (0, 0)
    module = nn.AvgPool2d(kernel, stride, inside, count_include_pad=counted)
    return Step(
        node.name, (view.activation(node),), node.output[0], modules=(*before, ("", module))
    )


def global_average_pool(node: onnx.NodeProto, view: GraphView) -> Step:
    source = view.activation(node)
    require_image(view.shape(source))
    return Step(node.name, (source,), node.output[0], modules=(("", nn.AdaptiveAvgPool2d(1)),))


def reduce_mean(node: onnx.NodeProto, view: GraphView) -> Step:
    """The mean over H and W: nn.AdaptiveAvgPool2d(1), flattened unless the axes are kept."""
    source = view.activation(node)
    shape = view.shape(source)
    require_image(shape)
    axes = view.input_or_attribute(node, 1, "axes")
    wanted = sorted(int(a) % len(shape) for a in axes.reshape(-1)) if axes is not None else []
    if wanted != [2, 3]:
        raise Refused(f"over axes {wanted or 'all'}; only height and width [2, 3] is supported")
    modules: list[tuple[str, nn.Module]] = [("", nn.AdaptiveAvgPool2d(1))]
    if not attribute(node, "keepdims", 1):
        modules.append(("_flatten", nn.Flatten()))
    return Step(node.name, (source,), node.output[0], modules=tuple(modules))


def _inside(padding: Padding, kernel: tuple[int, int]) -> bool:
    """Whether torch's own padding argument can express it: symmetric, at most half the window."""
    half = padding.top * 2 <= kernel[0] and padding.left * 2 <= kernel[1]
    return padding.symmetric and half


def _window(
    node: onnx.NodeProto, view: GraphView
) -> tuple[tuple[int, int], tuple[int, int], Padding]:
    shape = view.shape(view.activation(node))
    require_image(shape)
    kernel, stride = pair(node, "kernel_shape", (1, 1)), pair(node, "strides", (1, 1))
    dilation = pair(node, "dilations", (1, 1))
    if dilation != (1, 1):
        raise Refused(f"dilations {list(dilation)}; only [1, 1] is supported for pooling")
    padding = window_padding(node, shape, kernel, stride, dilation)
    rows = shape[2] + padding.top + padding.bottom - kernel[0]
    columns = shape[3] + padding.left + padding.right - kernel[1]
    rounds_up = rows % stride[0] != 0 or columns % stride[1] != 0
    if attribute(node, "ceil_mode", 0) and rounds_up:
        raise Refused("ceil_mode=1 changes the output size here; only floor is supported")
    return kernel, stride, padding
