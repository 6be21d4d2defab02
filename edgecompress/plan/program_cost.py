"""The image's size from its lowered program: before the link, for models that need no plan."""

from __future__ import annotations

from edgecompress.lower.program import Program
from edgecompress.plan.code_size import code_table
from edgecompress.records import Prediction
from edgecompress.target.schema import DeviceProfile


def predict_program(program: Program, profile: DeviceProfile) -> Prediction:
    """Constants, arena and I/O are exact; code, runtime and stack come from the measured table."""
    table = code_table(profile)
    kernels = {step.function: step.op for step in program.steps}
    flash = {
        "weights": program.constant_bytes,
        "kernels": sum(table.kernel(op) for op in kernels.values()),
        "model": table.model_bytes + table.model_step_bytes * len(program.steps),
        "runtime": table.runtime_bytes,
        "vectors": table.vectors_bytes,
        "data": table.data_bytes,
    }
    io_bytes = sum(
        program.buffers[name].size_bytes
        for name in (*program.input_buffers, *program.output_buffers)
    )
    ram = {
        "arena": program.arena_bytes,
        "scratch": 0,
        "static": table.static_bytes,
        "io": io_bytes,
        "stack": table.stack_bytes,
    }
    return Prediction(
        flash_bytes=sum(flash.values()),
        ram_bytes=sum(ram.values()),
        flash_parts=flash,
        ram_parts=ram,
        macs=program.macs,
    )
