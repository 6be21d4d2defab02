"""Bytes of machine code and runtime an image carries, by instruction set: a table, not a theory.

Measured on images linked by this tool (TVM 0.27, LLVM 22, lld 22): the demo network, plain and
factorized, and MLPerf Tiny's image classification, keyword spotting and anomaly detection models.
An image that was linked corrects the table for its own network (`program_cost.corrections_from`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecompress.target.schema import DeviceProfile

_FEW_INPUTS = 4
_LONG_ROW = 1024
_DSP_PER_MAC = 1.1
"""Of convolutional networks on packed arithmetic: 0.87 to 1.23 (docs/notes/decisions.md)."""

_THUMB2_KERNELS = {
    "conv2d": 1400,
    "conv2d few inputs": 680,
    "conv2d pointwise": 560,
    "conv2d long row": 1950,
    "depthwise_conv2d": 614,
    "dense": 510,
    "add": 228,
    "lookup": 60,
    "max_pool2d": 420,
    "average_pool2d": 460,
    "mean": 392,
    "softmax": 970,
    "pad": 200,
    "concat": 160,
    "transpose": 100,
}


def kernel_key(op: str, taps: int, inputs: int) -> str:
    """The table's row for one step: convolutions differ by their filter.

    Args:
        taps: kernel height x width.
        inputs: input channels a filter reads; weight rows of more than 1 KiB cost long offsets.
    """
    if op != "conv2d":
        return op
    if taps == 1:
        return "conv2d pointwise"
    if inputs < _FEW_INPUTS:
        return "conv2d few inputs"
    return "conv2d long row" if taps * inputs > _LONG_ROW else "conv2d"


@dataclass(frozen=True)
class CodeTable:
    """Sizes in bytes. `kernel_bytes` is one PrimFunc of each kind; every step has its own.

    model_bytes + model_step_bytes x steps: the generated C. `stack_bytes` is the high-water mark
    the virtual board measured, `static_bytes` the runner's variables, `data_bytes` initialised
    data. `instructions_per_mac` is executed instructions over MACs, of whole models.
    """

    kernel_bytes: dict[str, int]
    source: str
    runtime_bytes: int = 4400
    vectors_bytes: int = 64
    data_bytes: int = 0
    model_bytes: int = 46
    model_step_bytes: int = 36
    static_bytes: int = 232
    stack_bytes: int = 280
    unknown_kernel_bytes: int = 500
    instructions_per_mac: float = 3.6

    def kernel(self, key: str) -> int:
        return self.kernel_bytes.get(key, self.unknown_kernel_bytes)


def _scaled(factor: float) -> dict[str, int]:
    return {op: round(size * factor) for op, size in _THUMB2_KERNELS.items()}


_TABLES = {
    "thumb2": CodeTable(_THUMB2_KERNELS, "linked for cortex-m7, m33 and m3; within 3 % of each"),
    "thumb1": CodeTable(
        _scaled(0.96),
        "linked for cortex-m0plus (kws)",
        runtime_bytes=4440,
        stack_bytes=280,
        instructions_per_mac=9.0,
    ),
    "mve": CodeTable(
        {**_THUMB2_KERNELS, "average_pool2d": 1150},
        "linked for cortex-m55",
        runtime_bytes=4390,
        instructions_per_mac=0.3,
    ),
    "riscv": CodeTable(
        _scaled(1.18),
        "linked for rv32imc (kws)",
        runtime_bytes=5900,
        model_step_bytes=57,
        instructions_per_mac=4.0,
    ),
    "host": CodeTable(
        _scaled(2.5),
        "linked for x86-64, runtime included; kernels vary with vectorization",
        runtime_bytes=11_330,
        vectors_bytes=0,
        static_bytes=8968,
        stack_bytes=4096,
    ),
}
_FAMILY = {
    "armv6-m": "thumb1",
    "armv7-m": "thumb2",
    "armv7e-m": "thumb2",
    "armv8-m.main": "thumb2",
    "armv8.1-m.main": "mve",
    "rv32imc": "riscv",
}


@dataclass(frozen=True)
class _Port:
    """What a firmware port takes beyond the CMSDK one of the tables, in bytes, as linked."""

    runtime_bytes: int = 0
    vectors_bytes: int = 0
    static_bytes: int = 0


_PORTS = {
    ("stm32", "f4"): _Port(1012, static_bytes=96),
    ("stm32", "f7"): _Port(1164, static_bytes=96),
    ("stm32", "h7"): _Port(1292, static_bytes=96),
    ("stm32", "l4"): _Port(948, static_bytes=96),
    ("stm32", "u5"): _Port(960, static_bytes=96),
    ("nrf", 52): _Port(396),
    ("nrf", 53): _Port(508),
    ("rp2", 2040): _Port(528, vectors_bytes=256, static_bytes=-8),
    ("rp2", 2350): _Port(364, vectors_bytes=20),
    ("esp32c3", None): _Port(692, vectors_bytes=8),
}
_CHIP_SETTINGS = ("family", "series", "chip")


def _port(profile: DeviceProfile) -> _Port:
    """An unknown port counts as the CMSDK's until an image was linked."""
    settings = profile.console.settings
    chip = next((settings[key] for key in _CHIP_SETTINGS if key in settings), None)
    return _PORTS.get((profile.console.port, chip), _Port())


def code_table(profile: DeviceProfile) -> CodeTable:
    """The table of the profile's instruction set family with its port's share; hosts share one."""
    table = _TABLES[_FAMILY.get(profile.core.isa, "host")]
    port = _port(profile)
    table = replace(
        table,
        runtime_bytes=table.runtime_bytes + port.runtime_bytes,
        vectors_bytes=table.vectors_bytes + port.vectors_bytes,
        static_bytes=table.static_bytes + port.static_bytes,
    )
    packed = profile.core.dsp and not profile.core.mve
    return replace(table, instructions_per_mac=_DSP_PER_MAC) if packed else table
