"""build_object: plain C objects for every target, the same bytes every time."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tvm
from elftools.elf.elffile import ELFFile

from edgecompress.errors import BuildFailed
from edgecompress.lower.codegen import build_object
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.kernels.requant import make_requantize
from edgecompress.target.registry import load_target

# integer helpers a core without a wide multiplier or a divider takes from compiler-rt
COMPILER_RT = {"__muldi3", "__aeabi_lmul", "__divsi3", "__clzsi2", "__ashldi3", "__ashrdi3"}
TARGETS = ("cortex-m0plus", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "rv32imc",
           "x86-64", "aarch64")  # fmt: skip


def functions(form: str) -> tvm.IRModule:
    requantize, tables = make_requantize(
        np.linspace(0.001, 0.01, 8), form=form, zero_point=-3, low=-128, high=127,
        accumulator_bound=1 << 20,
    )  # fmt: skip
    tail = [((8,), "int32"), *((table.shape, str(table.dtype)) for table in tables)]
    window = Window((1, 8, 8, 8), (3, 3), (1, 1), (1, 1, 1, 1))
    image, row = (window.input_shape, "int8"), ((1, 64), "int8")
    made = {
        "conv2d": (Conv2D(window, 8, 1, 5, requantize), [image, ((8, 3, 3, 8), "int8")]),
        "depthwise": (DepthwiseConv2D(window, 1, 5, requantize), [image, ((3, 3, 8), "int8")]),
        "dense": (Dense((1, 64), 8, requantize), [row, ((8, 64), "int8")]),
    }
    return tvm.IRModule(
        {name: build_function(kernel, kinds + tail, name) for name, (kernel, kinds) in made.items()}
    )


def symbols(content: bytes) -> tuple[dict[str, int], set[str]]:
    """(defined global functions with sizes, undefined names)."""
    table = ELFFile(io.BytesIO(content)).get_section_by_name(".symtab")
    defined, undefined = {}, set()
    for symbol in table.iter_symbols():
        if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name:
            undefined.add(symbol.name)
        elif symbol["st_info"]["bind"] == "STB_GLOBAL" and symbol.name:
            defined[symbol.name] = symbol["st_size"]
    return defined, undefined


@pytest.mark.parametrize("form", ["smmla", "double", "single"])
@pytest.mark.parametrize("target", TARGETS)
def test_objects_need_nothing_but_compiler_rt(target: str, form: str) -> None:
    content = build_object(functions(form), load_target(target).toolchain.llvm)
    defined, undefined = symbols(content)
    assert set(defined) == {"conv2d", "depthwise", "dense"}
    assert undefined <= COMPILER_RT
    assert content == build_object(functions(form), load_target(target).toolchain.llvm)


def test_microcontroller_kernels_are_small_and_without_float() -> None:
    content = build_object(functions("smmla"), load_target("cortex-m7").toolchain.llvm)
    sizes, _ = symbols(content)
    assert sizes["dense"] < 800
    assert sizes["depthwise"] < 900
    assert sizes["conv2d"] < 2400
    capstone = pytest.importorskip("capstone")
    text = ELFFile(io.BytesIO(content)).get_section_by_name(".text").data()
    thumb = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    thumb.skipdata = True
    names = {instruction.mnemonic for instruction in thumb.disasm(text, 0)}
    assert "smmul" in names or "smull" in names
    assert not {name for name in names if name.startswith("v")}


def test_an_unknown_triple_is_one_clear_error() -> None:
    with pytest.raises(BuildFailed, match="nonsense"):
        build_object(functions("smmla"), {"kind": "llvm", "mtriple": "nonsense-none"})
