"""The function under construction: kernels it has, values already emitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax

from edgecompress.lower.importers import Imported
from edgecompress.lower.kernels.interface import Match
from edgecompress.lower.kernels.primfunc import build_function, with_local_scratch
from edgecompress.lower.passes.graph import Graph
from edgecompress.lower.program import Kernel

_OPAQUE = 8  # relax's OpPatternKind: never fused with a neighbour


@dataclass
class Rebuild:
    """The state of one walk.

    `placed` maps int8 values of the source graph to their new values in device layout; `floats`
    maps anything a float island needs to its new value in the source's layout.
    """

    graph: Graph
    imported: Imported
    builder: relax.BlockBuilder
    kernels: dict[str, Kernel] = field(default_factory=dict)
    functions: dict[Any, tvm.ir.GlobalVar] = field(default_factory=dict)
    placed: dict[relax.Expr, relax.Expr] = field(default_factory=dict)
    floats: dict[relax.Expr, relax.Expr] = field(default_factory=dict)

    def call(self, match: Match, value: relax.Var) -> relax.Expr:
        """Emits the kernel of `match` as the device value of `value`."""
        arguments = [self.placed[self.graph.root(source)] for source in match.inputs]
        return self.emit(match.kernel, arguments, match.constants, self.graph.device_shape(value))

    def emit(
        self,
        kernel: Kernel,
        activations: list[relax.Expr],
        constants: tuple[np.ndarray, ...],
        shape: tuple[int, ...],
    ) -> relax.Expr:
        kinds = [
            (tuple(int(size) for size in value.ty.shape.values), str(value.ty.dtype))
            for value in activations
        ]
        kinds += [(array.shape, str(array.dtype)) for array in constants]
        key = (kernel, tuple(kinds))
        if key not in self.functions:
            ordinal = sum(known.op == kernel.op for known in self.kernels.values())
            name = f"model_{kernel.op}_{ordinal}"
            function = build_function(kernel, kinds, name).with_attr("op_pattern", _OPAQUE)
            scratch = getattr(kernel, "scratch", ())
            if scratch:
                function = with_local_scratch(function, len(scratch))
            self.functions[key] = self.builder.add_func(function, name)
            self.kernels[self.functions[key].name_hint] = kernel
        arguments = [*activations, *(relax.const(array) for array in constants)]
        result = relax.TensorType(list(shape), "int8")
        return self.builder.emit(
            relax.op.call_tir(self.functions[key], relax.Tuple(arguments), result)
        )
