"""The arena planner against the one TVM has: Relax's StaticPlanBlockMemory, on the same graphs."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tvm
from tvm import relax

from edgecompress.lower.memory.arena import plan_offsets
from edgecompress.lower.memory.lifetimes import Lifetime


def _graph(seed: int) -> tuple[tvm.IRModule, list[Lifetime]]:
    """A random residual network of maps and pools, and its activations' lifetimes."""
    generator = random.Random(seed)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 8, 32, 32), "float32"))
    shapes: list[tuple[int, ...]] = [(1, 8, 32, 32)]
    reads: list[list[int]] = [[]]
    with builder.function("main", [x]):
        values = [x]
        for _ in range(12):
            source = generator.choice([len(values) - 1, len(values) - 1, len(values) // 2])
            partners = [
                index
                for index, shape in enumerate(shapes)
                if shape == shapes[source] and index != source
            ]
            kind = generator.choice(["relu", "pool", "add", "grow"])
            used = [source]
            if kind == "add" and partners:
                used.append(generator.choice(partners))
                call = relax.op.add(values[used[0]], values[used[1]])
            elif kind == "pool" and shapes[source][2] > 2:
                call = relax.op.nn.max_pool2d(values[source], (2, 2), (2, 2))
            elif kind == "grow":
                call = relax.op.concat([values[source], values[source]], axis=1)
            else:
                call = relax.op.nn.relu(values[source])
            values.append(builder.emit(call))
            shapes.append(tuple(int(size) for size in values[-1].ty.shape.values))
            reads.append(used)
        builder.emit_func_output(values[-1])
    return builder.get(), _lifetimes(shapes, reads)


def _lifetimes(shapes: list[tuple[int, ...]], reads: list[list[int]]) -> list[Lifetime]:
    """Of what the result needs, without the model's own input and output: the caller's memory."""
    output = len(shapes) - 1
    needed = {output}
    for value in range(output, -1, -1):
        if value in needed:
            needed.update(reads[value])
    last_use = {
        source: value for value in sorted(needed) for source in reads[value]
    }  # a later reader replaces an earlier one
    return [
        (4 * int(np.prod(shapes[value])), value, last_use[value])
        for value in sorted(needed - {0, output})
    ]


def _relax_bytes(module: tvm.IRModule) -> int:
    """The storages Relax's planner allocates, added up."""
    planned = tvm.transform.Sequential(
        [
            relax.transform.LegalizeOps(),
            relax.transform.DeadCodeElimination(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
        ]
    )(module)
    total = 0

    def visit(expression) -> None:
        nonlocal total
        is_call = isinstance(expression, relax.Call) and isinstance(expression.op, tvm.ir.Op)
        if is_call and expression.op.name == "relax.memory.alloc_storage":
            total += int(expression.args[0].values[0])

    relax.analysis.post_order_visit(planned["main"], visit)
    return total


@pytest.mark.parametrize("seed", range(8))
def test_never_more_than_relax_block_reuse(seed):
    module, lifetimes = _graph(seed)
    relax_bytes = _relax_bytes(module)
    assert relax_bytes > 0
    assert plan_offsets(lifetimes, 16)[1] <= relax_bytes
