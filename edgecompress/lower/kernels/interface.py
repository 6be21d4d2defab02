"""What an operator's file must offer: a kernel, and a matcher that recognises it in the graph.

To add an operator write one file here with

    @dataclass(frozen=True)
    class ActivationTable:                # a `Kernel` (lower/program.py)
        shape: tuple[int, ...]            # whatever makes two calls the same machine code
        op: str = "activation"
        macs: int = 0
        def compute(self, x, table): ...          # TE; activations first, then constants
        def schedule(self, schedule, name): ...   # TIR, in place; `pass` keeps the loops
        def reference(self, x, table): ...        # the same numbers in numpy

    def match(graph: Graph, value: relax.Var) -> Match | None: ...

and put `match` in `kernels/__init__.py`'s list; the first matcher that answers wins.

`value` is an int8 value of the imported graph (a *cut point*). A matcher looks back from it,
usually through `graph.output(value)`, as far as the next int8 values, which it names in
`Match.inputs`:

    output = graph.output(value)                  # quantize, and the activation folded into bounds
    if output is None or graph.op(output.source) != "nn.softmax": return None
    x = graph.activation(graph.call(output.source).args[0])
    if x is None: return None
    return Match(Softmax(graph.device_shape(value), ...), (x.value,), (table,))

Shapes and axes: the device keeps every 4-D tensor in NHWC, whatever the source's layout. Kernels
see device shapes only: use `graph.device_shape(expr)` and `graph.device_axis(expr, axis)`.

Kernels must be hashable and compare by content: equal kernels share one function. Values that
differ from call to call without changing the code (weights, tables) belong in `Match.constants`.

A matcher that recognises the operator but cannot take this use of it raises `CannotMatch` with the
reason, which the user reads when the whole model's unsupported operators are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from edgecompress.lower.program import Kernel

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Match:
    """A kernel and what it is called with: int8 graph values, then constants, in that order."""

    kernel: Kernel
    inputs: tuple[relax.Var, ...]
    constants: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Scratch:
    """Working memory of one call, in the arena; what it holds before does not matter.

    A kernel that needs some, or whose loops carry a state from one to the next, has a method
    `function(name)` giving its whole PrimFunc in place of `compute` and `schedule`, with one
    parameter for each entry of its `scratch` between the constants and the output (gru.py).
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class CannotMatch(Exception):
    """Why no kernel takes this use of an operator; ends in the list of unsupported operators."""


Matcher = Callable[["Graph", relax.Var], Match | None]
