"""The C a firmware engineer sees: `model.h`, `model.c`, and the weights as an assembler file.

Weights go in through `.incbin`: a C compiler would need a minute for a megabyte of numbers, an
assembler needs none. `model.c` only declares them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from edgecompress.errors import BuildFailed
from edgecompress.lower.memory.arena import input_preserved
from edgecompress.lower.program import Arena, Argument, Buffer, Program
from edgecompress.records import TensorSpec

WEIGHTS_SECTION = ".rodata.model_weights"
WEIGHTS_FILE = "weights.bin"

_C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "uint64": "uint64_t",
    "float32": "float",
    "float64": "double",
    "bool": "uint8_t",
}

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # C, not HTML
)


@dataclass(frozen=True)
class Constant:
    """One distinct constant of the image: its C symbol and its place in the weights file.

    `region` is the flash region it asks for; empty for the first.
    """

    symbol: str
    array: np.ndarray
    offset_bytes: int
    region: str = ""


def emit_c(program: Program, *, model_hash: str) -> tuple[str, str]:
    """`model.h` and `model.c` of a placed program.

    Args:
        program: offsets already placed (`memory.arena.place`).
        model_hash: sha256 in hex of the model it was compiled from, written into MODEL_HASH.

    Raises:
        BuildFailed: more than one input or output, or a type C has no name for.
    """
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise BuildFailed(
            f"{program.name} has {len(program.inputs)} inputs and {len(program.outputs)} outputs; "
            "the C API takes one of each.",
            next_step="Cut the model to one input and one output tensor.",
        )
    header = _TEMPLATES.get_template("model.h.j2").render(
        name=_c_text(program.name),
        model_hash=_c_text(model_hash),
        steps=len(program.steps),
        macs=program.macs,
        input=_tensor(program.inputs[0]),
        output=_tensor(program.outputs[0]),
        arena_bytes=max(program.arena_bytes, 1),
        arenas=_arena_arrays(program),
        input_at=_address(program, program.buffers[program.input_buffers[0]], "MODEL_INPUT_OFFSET"),
        output_at=_address(
            program, program.buffers[program.output_buffers[0]], "MODEL_OUTPUT_OFFSET"
        ),
        input_offset=program.buffers[program.input_buffers[0]].offset_bytes,
        output_offset=program.buffers[program.output_buffers[0]].offset_bytes,
        input_preserved=int(input_preserved(program)),
        alignment=program.arena_alignment,
        c_text=_c_text,
    )
    source = _TEMPLATES.get_template("model.c.j2").render(
        name=_c_text(program.name),
        kernels=_kernels(program),
        constants=[_constant_declaration(constant) for constant in constant_layout(program)],
        constant_bytes=program.constant_bytes,
        arenas=_arena_arrays(program),
        alignment=program.arena_alignment,
        calls=_calls(program),
        c_text=_c_text,
    )
    return header, source


def _calls(program: Program) -> list[dict[str, Any]]:
    """Each step's call in order: symbol, arguments, and what its comment says."""
    symbols = constant_symbols(program)
    return [
        {
            "name": step.name,
            "op": _c_text(step.op),
            "output": _describe(program.buffers[step.output]),
            "symbol": _function_symbol(program, step.function),
            "arguments": [
                _argument(program, symbols, argument, is_output=index == len(step.arguments) - 1)
                for index, argument in enumerate(step.arguments)
            ],
        }
        for step in program.steps
    ]


def emit_weights(program: Program) -> tuple[str, bytes]:
    """An assembler file that includes `weights.bin`, and the bytes of `weights.bin`.

    Equal constants are stored once. Each begins at a multiple of the arena's alignment, which is
    what the target's widest load asks for.
    """
    alignment = program.arena_alignment
    lines = [
        f"/* {_c_text(program.name)}: weights. Made by edgecompress. */",
    ]
    blob = bytearray()
    section = ""
    for constant in constant_layout(program):
        blob.extend(bytes(constant.offset_bytes - len(blob)))
        data = np.ascontiguousarray(constant.array).tobytes()
        blob.extend(data)
        if (wanted := weights_section(constant.region)) != section:
            lines.append(f'    .section {wanted}, "a", %progbits')
            section = wanted
        lines += [
            f"    .balign {alignment}",
            f"    .globl {constant.symbol}",
            f"    .type {constant.symbol}, %object",
            f"    .size {constant.symbol}, {len(data)}",
            f"{constant.symbol}:",
            f'    .incbin "{WEIGHTS_FILE}", {constant.offset_bytes}, {len(data)}',
        ]
    # an object without this mark asks Linux for an executable stack
    lines.append('    .section .note.GNU-stack, "", %progbits')
    return "\n".join(lines) + "\n", bytes(blob)


def weights_section(region: str) -> str:
    """The section of constants for a flash region; "" is the first one."""
    return f"{WEIGHTS_SECTION}.{region}" if region else WEIGHTS_SECTION


def emit_routines(program: Program) -> str:
    """An assembler file of the instruction set's own routines; empty when there are none."""
    if not program.assembly:
        return ""
    names = [symbol for symbol, _text in program.assembly]
    renamed = "".join(f"#define {name} {_function_symbol(program, name)}\n" for name in names)
    text = emit_text(dict(program.assembly))
    return f"/* {_c_text(program.name)}: routines. Made by edgecompress. */\n{renamed}{text}"


def emit_text(routines: Mapping[str, str]) -> str:
    """One assembler text of several routines by name, under their own names."""
    texts = "\n".join(routines.values())
    # other instruction sets' assemblers do not know these two
    mode = "    .syntax unified\n    .thumb\n" if ".thumb_func" in texts else ""
    return f"{mode}{texts}"


def _function_symbol(program: Program, function: str) -> str:
    """The C name of a step's function: what the library defines all begins with `model_`."""
    routines = {symbol for symbol, _text in program.assembly}
    return f"model_{function}" if function in routines else function


def constant_symbols(program: Program) -> list[str]:
    """The C symbol of each of `program.constants`; equal constants share one."""
    return [symbol for symbol, _first in _shared(program)]


def _shared(program: Program) -> list[tuple[str, bool]]:
    """(symbol, whether this index is the first with these bytes) of each constant."""
    users: dict[int, str] = {}
    for step in program.steps:
        for argument in step.arguments:
            if argument.kind == "constant":
                users.setdefault(int(argument.name), step.name)
    seen: dict[tuple[str, bytes], str] = {}
    result = []
    for index, array in enumerate(program.constants):
        key = (str(array.dtype), np.ascontiguousarray(array).tobytes())
        first = key not in seen
        symbol = seen.setdefault(key, _symbol(index, users.get(index, "unused")))
        result.append((symbol, first))
    return result


def _symbol(index: int, step_name: str) -> str:
    readable = re.sub(r"\W+", "_", step_name, flags=re.ASCII).strip("_")[-40:]
    return f"model_c{index}_{readable}".rstrip("_")


def constant_layout(program: Program) -> list[Constant]:
    """The distinct constants in the weights file's order."""
    constants, offset = [], 0
    regions = program.constant_regions or ("",) * len(program.constants)
    for (symbol, first), array, region in zip(
        _shared(program), program.constants, regions, strict=True
    ):
        if first:
            constants.append(Constant(symbol, array, offset, region))
            offset = -(-(offset + array.nbytes) // program.arena_alignment)
            offset *= program.arena_alignment
    return constants


def _c_type(dtype: str) -> str:
    if dtype not in _C_TYPES:
        raise BuildFailed(f"A tensor of type {dtype} has no C type in the generated model.")
    return _C_TYPES[dtype]


def _kernels(program: Program) -> list[dict[str, Any]]:
    """The C prototype of each distinct kernel, in order of first use."""
    prototypes: dict[str, list[str]] = {}
    routines = {symbol for symbol, _text in program.assembly}
    for step in program.steps:
        parameters = []
        if step.function in routines:  # shared by layers whose constants differ in type
            parameters = ["const void *"] * (len(step.arguments) - 1) + ["void *"]
            prototypes.setdefault(step.function, parameters)
            continue
        for argument in step.arguments:
            if argument.kind == "constant":
                dtype = str(program.constants[int(argument.name)].dtype)
            else:
                dtype = program.buffers[argument.name].dtype
            parameters.append(f"const {_c_type(dtype)} *")
        parameters[-1] = parameters[-1].removeprefix("const ")
        prototypes.setdefault(step.function, parameters)
    return [
        {"symbol": _function_symbol(program, name), "parameters": types}
        for name, types in prototypes.items()
    ]


def _argument(program: Program, symbols: list[str], argument: Argument, *, is_output: bool) -> str:
    if argument.kind == "constant":
        return symbols[int(argument.name)]
    buffer = program.buffers[argument.name]
    qualifier = "" if is_output else "const "
    where = _arrays_offset(program, buffer)
    return f"AT({qualifier}{_c_type(buffer.dtype)}, {where})"


@dataclass(frozen=True)
class ArenaArray:
    """The C array of one arena: its section tells the linker which memory it is for."""

    symbol: str
    section: str
    region: str
    offset_bytes: int
    size_bytes: int


def arena_section(index: int, region: str) -> str:
    """The section of a program's arena number `index`: the first has the plain name."""
    return ".bss.model_arena" if index == 0 else f".bss.model_arena.{region}"


def _arena_arrays(program: Program) -> list[ArenaArray]:
    """One, `model_arena`, unless the program lies in several memories."""
    arenas = program.arenas or (Arena("", 0, max(program.arena_bytes, 1)),)
    return [
        ArenaArray(
            symbol="model_arena" if index == 0 else f"model_arena_{arena.region}",
            section=arena_section(index, arena.region),
            region=arena.region,
            offset_bytes=arena.offset_bytes,
            size_bytes=arena.size_bytes,
        )
        for index, arena in enumerate(arenas)
    ]


def _arrays_offset(program: Program, buffer: Buffer) -> str:
    """A buffer's array, where there are several, and its offset in it."""
    arrays = _arena_arrays(program)
    if len(arrays) == 1:
        return str(buffer.offset_bytes)
    array = next(item for item in reversed(arrays) if item.offset_bytes <= buffer.offset_bytes)
    return f"{array.symbol}, {buffer.offset_bytes - array.offset_bytes}"


def _address(program: Program, buffer: Buffer, offset_macro: str) -> str:
    if len(program.arenas) < 2:
        return f"model_arena + {offset_macro}"
    symbol, offset = _arrays_offset(program, buffer).split(", ")
    return f"{symbol} + {offset}"


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    size_bytes = int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
    return {
        **spec.model_dump(),
        "c_type": _c_type(spec.dtype),
        "size_bytes": size_bytes,
        "scale": None if spec.scale is None else _c_float(spec.scale),
    }


def _constant_declaration(constant: Constant) -> dict[str, Any]:
    return {
        "symbol": constant.symbol,
        "c_type": _c_type(str(constant.array.dtype)),
        "length": max(constant.array.size, 1),
        "shape": constant.array.shape,
    }


def _describe(buffer: Buffer) -> str:
    return f"{buffer.dtype} [{', '.join(map(str, buffer.shape))}]"


def _c_float(value: float) -> str:
    """The shortest decimal that reads back as the same single-precision float."""
    text = str(np.float32(value))
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"


def _c_text(text: str) -> str:
    """Text that can end neither a C string nor a comment, in printable ASCII on one line."""
    printable = (char if " " <= char <= "~" and char not in '"\\' else "_" for char in text)
    return "".join(printable).replace("*/", "*_").replace("/*", "_*")
