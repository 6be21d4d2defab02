"""Bytes of machine code and runtime an image carries, by instruction set: a table, not a theory.

The figures are first estimates from the section sizes of linked MLPerf Tiny images; an image that
was linked corrects them (`cost.corrections_from`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.target.schema import DeviceProfile

_THUMB2_KERNELS = {
    "conv2d": 620,
    "depthwise_conv2d": 560,
    "dense": 330,
    "add": 300,
    "lookup": 120,
    "max_pool2d": 420,
    "average_pool2d": 460,
    "softmax": 520,
    "pad": 200,
    "concat": 160,
    "transpose": 160,
}


@dataclass(frozen=True)
class CodeTable:
    """Sizes in bytes. `kernel_bytes` is one PrimFunc of each operator; every step has its own.

    model_bytes + model_step_bytes x steps: the generated C. `stack_bytes` is the high-water mark,
    `static_bytes` the runner's variables, `data_bytes` initialised data and its alignment.
    """

    kernel_bytes: dict[str, int]
    source: str
    runtime_bytes: int = 4096
    vectors_bytes: int = 64
    data_bytes: int = 0
    model_bytes: int = 160
    model_step_bytes: int = 40
    static_bytes: int = 512
    stack_bytes: int = 640
    unknown_kernel_bytes: int = 500
    instructions_per_mac: float = 3.0

    def kernel(self, op: str) -> int:
        return self.kernel_bytes.get(op, self.unknown_kernel_bytes)


def _scaled(factor: float) -> dict[str, int]:
    return {op: round(size * factor) for op, size in _THUMB2_KERNELS.items()}


_TABLES = {
    "thumb2": CodeTable(_THUMB2_KERNELS, "estimate"),
    "thumb1": CodeTable(_scaled(1.4), "thumb2 x 1.4, estimate"),
    "mve": CodeTable(_scaled(1.8), "thumb2 x 1.8, estimate"),
    "riscv": CodeTable(_scaled(1.3), "thumb2 x 1.3, estimate"),
    "host": CodeTable(_scaled(3.0), "thumb2 x 3, estimate", runtime_bytes=40960),
}
_FAMILY = {
    "armv6-m": "thumb1",
    "armv7-m": "thumb2",
    "armv7e-m": "thumb2",
    "armv8-m.main": "thumb2",
    "armv8.1-m.main": "mve",
    "rv32imc": "riscv",
}


def code_table(profile: DeviceProfile) -> CodeTable:
    """The table of the profile's instruction set family; hosts share one."""
    return _TABLES[_FAMILY.get(profile.core.isa, "host")]
