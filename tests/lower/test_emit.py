from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from sample_programs import float_program, int8_program

from edgecompress.errors import BuildFailed
from edgecompress.lower.emit import constant_symbols, emit_c, emit_routines, emit_weights


@pytest.fixture(scope="module")
def emitted():
    program = int8_program()
    return program, *emit_c(program, model_hash="ab" * 32)


def test_the_header_says_all_a_caller_needs(emitted):
    program, header, _ = emitted
    for line in (
        "typedef int8_t model_input_t;",
        "#define MODEL_INPUT_BYTES 96",
        "#define MODEL_OUTPUT_BYTES 10",
        "#define MODEL_INPUT_SCALE 0.05f",
        "#define MODEL_INPUT_ZERO_POINT (-3)",
        "#define MODEL_STEP_COUNT 5",
        f"#define MODEL_ARENA_BYTES {program.arena_bytes}",
        f'#define MODEL_HASH "{"ab" * 32}"',
        "int model_run(const model_input_t *in, model_output_t *out);",
    ):
        assert line in header.splitlines()


def test_each_step_is_one_call_in_order(emitted):
    program, _, source = emitted
    calls = re.findall(r"case (\d+): .*\n\s+(\w+)\(", source)
    assert calls == [(str(index), step.function) for index, step in enumerate(program.steps)]
    add = program.buffers["d"]
    assert f"AT(int8_t, {add.offset_bytes}));" in source
    assert source.count("void k_square(") == 1


def test_float_models_have_float_types_and_no_scale():
    header, _ = emit_c(float_program(), model_hash="0")
    assert "typedef float model_input_t;" in header
    assert "SCALE" not in header
    assert "#define MODEL_OUTPUT_BYTES 28" in header


def test_equal_constants_are_stored_once_at_aligned_offsets():
    program = int8_program(alignment=16)
    symbols = constant_symbols(program)
    assert symbols[1] == symbols[3]
    assert len(set(symbols)) == len(symbols) - 1
    assembly, blob = emit_weights(program)
    placed = re.findall(r'(\w+):\n\s+\.incbin "weights.bin", (\d+), (\d+)', assembly)
    assert [name for name, _, _ in placed] == list(dict.fromkeys(symbols))
    for name, offset, size in placed:
        array = program.constants[symbols.index(name)]
        assert int(offset) % 16 == 0
        stored = np.frombuffer(blob[int(offset) : int(offset) + int(size)], array.dtype)
        np.testing.assert_array_equal(stored, array.ravel())


def test_hostile_names_cannot_leave_their_comment_or_string():
    program = int8_program()
    steps = (dataclasses.replace(program.steps[0], name='*/ "\\ü\n#error'), *program.steps[1:])
    program = dataclasses.replace(program, name='a "b" */ #error', steps=steps)
    header, source = emit_c(program, model_hash="0")
    assert header.isascii()
    assert source.isascii()
    assert "\n#error" not in source
    for text in (header, source):
        assert text.count("/*") == text.count("*/")


def test_two_inputs_are_refused():
    program = int8_program()
    program = dataclasses.replace(program, inputs=program.inputs * 2)
    with pytest.raises(BuildFailed, match="2 inputs and 1 outputs"):
        emit_c(program, model_hash="0")


def test_only_thumb_routines_are_introduced_as_thumb():
    thumb = "    .thumb_func\nsquare:\n    bx lr\n"
    riscv = "square:\n    ret\n"
    texts = {
        name: emit_routines(dataclasses.replace(int8_program(), assembly=(("square", text),)))
        for name, text in (("thumb", thumb), ("riscv", riscv))
    }
    assert texts["thumb"].index(".syntax unified") < texts["thumb"].index(thumb)
    assert "    .thumb\n" in texts["thumb"]
    assert ".syntax" not in texts["riscv"]
    assert "    .thumb" not in texts["riscv"]
    assert emit_routines(int8_program()) == ""
