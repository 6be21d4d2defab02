"""torch module settings in ONNX words."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgecompress.errors import UnsupportedOperators


def attributes_of(module: nn.Module, padding: nn.Module | None = None) -> dict[str, Any]:
    """Attributes of Conv, MaxPool or AveragePool.

    Args:
        padding: a zero padding module in front of a conv, added to its own padding.

    Raises:
        UnsupportedOperators: a conv with another padding mode than zeros, a pooling divisor.
    """
    if isinstance(module, nn.Conv2d):
        return _convolution(module, padding)
    assert isinstance(module, nn.MaxPool2d | nn.AvgPool2d)
    height, width = _pair(module.padding)
    stride = module.stride if module.stride is not None else module.kernel_size
    attributes: dict[str, Any] = {
        "kernel_shape": _pair(module.kernel_size),
        "strides": _pair(stride),
        "pads": [height, width, height, width],
        "ceil_mode": int(module.ceil_mode),
    }
    if isinstance(module, nn.MaxPool2d):
        attributes["dilations"] = _pair(module.dilation)
    elif module.divisor_override:
        raise UnsupportedOperators([("AvgPool2d", "divisor_override", "must be unset")])
    else:
        attributes["count_include_pad"] = int(module.count_include_pad)
    return attributes


def _convolution(module: nn.Conv2d, padding: nn.Module | None) -> dict[str, Any]:
    if module.padding_mode != "zeros":
        raise UnsupportedOperators([("Conv2d", module.padding_mode, "only zero padding")])
    # torch's order, also for padding="same": left, right, top, bottom.
    left, right, top, bottom = module._reversed_padding_repeated_twice
    if padding is not None:
        assert isinstance(padding, nn.ZeroPad2d | nn.ConstantPad2d)
        more = padding.padding
        left, right, top, bottom = left + more[0], right + more[1], top + more[2], bottom + more[3]
    return {
        "kernel_shape": list(module.kernel_size),
        "strides": list(module.stride),
        "pads": [top, left, bottom, right],
        "dilations": list(module.dilation),
        "group": module.groups,
    }


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
