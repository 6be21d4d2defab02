"""Groups of ONNX nodes that are one layer: attention, and GELU written out."""

from __future__ import annotations

from math import isclose, prod, sqrt

import numpy as np
import onnx

from edgecompress.model.importer.tracing import DOMAIN, Root, Traced, Tracer
from edgecompress.model.importer.view import Refused


def erf(tracer: Tracer, node: onnx.NodeProto, source: Traced) -> Traced:
    """The first step of a GELU that is written out; `gelu` is its last."""
    root = tracer.whole(source)
    if root is None or not isclose(source.scale, 1 / sqrt(2), rel_tol=1e-5):
        raise Refused("only as part of GELU: x (1 + erf(x / sqrt 2)) / 2")
    plain = Traced(source.addresses)
    return tracer.trace(tracer.defer("erf", node.name, source.shape, plain))


def gelu(tracer: Tracer, label: str, first: Traced, second: Traced) -> Traced | None:
    """x (1 + erf(x / sqrt 2)) as twice the GELU of x; None for any other product."""
    root = tracer.whole(second)
    if root is None or root.deferred[0] != "erf + 1":
        return None
    x = root.deferred[1][0]
    source = tracer.whole(x)
    if source is None or not np.array_equal(x.addresses, first.addresses):
        return None
    name = tracer.materialize(tracer.trace(source), source.shape)
    made = tracer.emit("Gelu", [name], source.shape, label, approximate="none")
    fresh = tracer.root(made, source.shape)
    return Traced(x.addresses - source.base + fresh.base, 2 * first.scale)


def attention(
    tracer: Tracer,
    label: str,
    softmax: Root,
    weights: Traced,
    values: Traced,
    shape: tuple[int, ...],
) -> Traced:
    """softmax(Q K^T) V over heads, on [1, time, heads * size] tensors.

    Args:
        softmax: the deferred softmax of a product of queries and keys.
        weights: what is multiplied with the values: the softmax as it is.
        shape: of the ONNX result, [..., time, size] with the heads in front.
    """
    straight = np.arange(softmax.base, softmax.base + softmax.size)
    if not np.array_equal(weights.addresses.reshape(-1), straight):
        raise Refused("attention weights are moved before they are used")
    queries, keys = softmax.deferred[1]
    inputs = [
        _by_time(tracer, queries, (1, 0, 2)),
        _by_time(tracer, keys, (2, 0, 1)),
        _by_time(tracer, values, (1, 0, 2)),
    ]
    *lead, time, size = shape
    heads = prod(lead)
    inner = (1, heads, time, values.shape[-2])
    scores = tracer.emit("Scores", inputs[:2], inner, f"{label}_scores", DOMAIN, heads=heads)
    chosen = tracer.emit("AttentionSoftmax", [scores], inner, f"{label}_softmax", DOMAIN)
    outer = (1, time, heads * size)
    made = tracer.emit("Mix", [chosen, inputs[2]], outer, label, DOMAIN, heads=heads)
    addresses = tracer.trace(tracer.root(made, outer), (time, heads, size)).addresses
    return Traced(addresses.transpose(1, 0, 2).reshape(shape))


def _by_time(tracer: Tracer, traced: Traced, order: tuple[int, int, int]) -> str:
    """Heads [..., rows, columns] as [1, time, heads * size]; `order` puts time first."""
    *lead, rows, columns = traced.shape
    heads = traced.addresses.reshape(prod(lead), rows, columns).transpose(order)
    shape = (1, heads.shape[0], heads.shape[1] * heads.shape[2])
    return tracer.materialize(Traced(heads.reshape(shape), traced.scale), shape)
