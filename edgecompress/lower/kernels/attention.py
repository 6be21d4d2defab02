"""The two products of attention, read where the heads lie: no head is ever copied out.

    scores [heads, time, other]: q [1, time, heads * size] by k [1, other, heads * size]
    mix [1, time, heads * size]: weights [heads, time, other] by v [1, other, heads * size]

The source writes both as reshapes, transposes and a MatMul over [N, heads, time, size]; both
operands lie in rows of all heads side by side, so head h starts at feature h * size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.kernels.loops import tile_width
from edgecompress.lower.kernels.requant import Requantize, make_requantize

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Activation, Graph


@dataclass(frozen=True)
class Heads:
    """`time` rows that ask, `other` rows that are asked, `count` heads of `size` features."""

    time: int
    other: int
    count: int
    size: int

    @property
    def macs(self) -> int:
        return self.time * self.other * self.count * self.size


def _tiled_schedule(schedule: Any, function_name: str, width: int) -> None:
    """`width` neighbouring outputs together: what they share is loaded once, sums stay in
    registers."""
    schedule.work_on(function_name)
    output = schedule.get_sblock("output", func_name=function_name)
    accumulator = schedule.get_sblock("accumulator", func_name=function_name)
    outer = schedule.get_loops(output)
    tiles, lanes = schedule.split(outer[-1], [None, width])
    schedule.unroll(lanes)
    schedule.compute_at(accumulator, tiles)
    if width == 1:
        return
    own, reduction = schedule.get_loops(accumulator)[len(outer) :]
    schedule.reorder(reduction, own)
    schedule.unroll(own)
    start = schedule.decompose_reduction(accumulator, reduction)
    schedule.unroll(schedule.get_loops(start)[-1])


@dataclass(frozen=True)
class AttentionScores:
    """scores[h, t, s] = requantize(sum_d (q[t, h size + d] - zq) (k[s, h size + d] - zk)).

    Arguments: q int8 [1, time, features], k int8 [1, other, features], requantize's tables [1].
    Output int8 [heads, time, other].
    """

    heads: Heads
    zero_points: tuple[int, int]
    requantize: Requantize
    op: str = "attention_scores"

    @property
    def macs(self) -> int:
        return self.heads.macs

    def compute(self, *tensors: Any) -> Any:
        q, k, *tables = tensors
        heads = self.heads
        d = te.reduce_axis((0, heads.size), "feature")

        def product(h: Any, t: Any, s: Any) -> Any:
            left = q[0, t, h * heads.size + d].astype("int32") - self.zero_points[0]
            right = k[0, s, h * heads.size + d].astype("int32") - self.zero_points[1]
            return te.sum(left * right, axis=[d])

        shape = (heads.count, heads.time, heads.other)
        accumulator = te.compute(shape, product, "accumulator")
        return te.compute(
            shape, lambda *i: self.requantize.compute(accumulator[i], tuple(tables), 0), "output"
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        # neighbouring scores share a query only: more pointers cost more than they save
        _tiled_schedule(schedule, function_name, 1)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        q, k, *tables = arrays
        left = _split(q.astype(np.int32) - self.zero_points[0], self.heads)
        right = _split(k.astype(np.int32) - self.zero_points[1], self.heads)
        return self.requantize.reference(left @ right.transpose(0, 2, 1), *tables)


@dataclass(frozen=True)
class AttentionMix:
    """y[t, h size + d] = requantize(sum_s (w[h, t, s] - zw) (v[s, h size + d] - zv)).

    Arguments: weights int8 [heads, time, other], v int8 [1, other, features], requantize's tables
    [1]. Output int8 [1, time, features].
    """

    heads: Heads
    zero_points: tuple[int, int]
    requantize: Requantize
    op: str = "attention_mix"

    @property
    def macs(self) -> int:
        return self.heads.macs

    def compute(self, *tensors: Any) -> Any:
        w, v, *tables = tensors
        heads = self.heads
        s = te.reduce_axis((0, heads.other), "other")

        def product(n: Any, t: Any, e: Any) -> Any:
            left = w[tirx.floordiv(e, heads.size), t, s].astype("int32") - self.zero_points[0]
            right = v[n, s, e].astype("int32") - self.zero_points[1]
            return te.sum(left * right, axis=[s])

        shape = (1, heads.time, heads.count * heads.size)
        accumulator = te.compute(shape, product, "accumulator")
        return te.compute(
            shape, lambda *i: self.requantize.compute(accumulator[i], tuple(tables), 0), "output"
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        _tiled_schedule(schedule, function_name, tile_width(self.heads.size))

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        w, v, *tables = arrays
        left = w.astype(np.int32) - self.zero_points[0]
        right = _split(v.astype(np.int32) - self.zero_points[1], self.heads)
        mixed = (left @ right).transpose(1, 0, 2).reshape(1, self.heads.time, -1)
        return self.requantize.reference(mixed, *tables)


def _split(rows: np.ndarray, heads: Heads) -> np.ndarray:
    """[1, rows, heads * size] as [heads, rows, size]."""
    return rows.reshape(-1, heads.count, heads.size).transpose(1, 0, 2)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """Either product, quantized, over operands that `canonicalize` left as split heads.

    Raises:
        CannotMatch: heads in another order than features side by side.
    """
    output = graph.output(value)
    reshape = None if output is None else graph.call(output.source, "reshape")
    if output is None or reshape is None:
        return None
    turned = graph.call(reshape.args[0], "permute_dims")
    product = graph.call(reshape.args[0] if turned is None else turned.args[0], "matmul")
    if product is None:
        return None
    found = _scores(graph, product) if turned is None else _mix(graph, product, turned)
    if found is None:
        return None
    heads, first, second, inner = found
    kind = AttentionScores if turned is None else AttentionMix
    requantize, tables = make_requantize(
        np.array([first.scale * second.scale / output.scale]),
        form="smmla" if graph.requantize == "smmla" else "single",
        zero_point=output.zero_point,
        low=output.low,
        high=output.high,
        accumulator_bound=255 * 255 * inner,
    )
    kernel = kind(heads, (first.zero_point, second.zero_point), requantize)
    return Match(kernel, (first.value, second.value), tables)


_Found = tuple[Heads, "Activation", "Activation", int]


def _scores(graph: Graph, product: relax.Call) -> _Found | None:
    q, k = (_heads(graph, argument) for argument in product.args)
    if q is None or k is None:
        return None
    if q[1] != (0, 2, 1, 3) or k[1] != (0, 2, 3, 1):
        raise CannotMatch(f"heads turned by {q[1]} and {k[1]}")
    (_, time, count, size), (_, other, _, _) = q[2], k[2]
    return Heads(time, other, count, size), q[0], k[0], size


def _mix(graph: Graph, product: relax.Call, turned: relax.Call) -> _Found | None:
    view, v = graph.call(product.args[0], "reshape"), _heads(graph, product.args[1])
    weights = None if view is None else graph.activation(view.args[0])
    if view is None or weights is None or v is None:
        return None
    axes = tuple(int(axis) for axis in turned.attrs.axes)
    if v[1] != (0, 2, 1, 3) or axes != (0, 2, 1, 3):
        raise CannotMatch(f"heads turned by {v[1]} and {axes}")
    (_, other, count, size), (_, _, time, _) = v[2], graph.shape(product.args[0])
    return Heads(time, other, count, size), weights, v[0], other


def _heads(
    graph: Graph, expression: relax.Expr
) -> tuple[Activation, tuple[int, ...], tuple[int, ...]] | None:
    """(activation [1, rows, features], axes, split shape) of permute_dims(reshape(dequantize))."""
    turned = graph.call(expression, "permute_dims")
    view = None if turned is None else graph.call(turned.args[0], "reshape")
    x = None if view is None else graph.activation(view.args[0])
    if turned is None or view is None or x is None:
        return None
    shape = graph.shape(turned.args[0])
    if len(shape) != 4 or len(graph.shape(x.value)) != 3:
        return None
    return x, tuple(int(axis) for axis in turned.attrs.axes), shape
