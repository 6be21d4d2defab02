"""`library_sizes` counts, and assembles each routine once, what `build_library` writes in full."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from qdq_model import small_model
from sample_programs import int8_program

from edgecompress.link.image import build_library
from edgecompress.link.library_sizes import library_sizes
from edgecompress.lower.passes.specialize import specialize
from edgecompress.lower.pipeline import lower
from edgecompress.target import load_target

_OBJECTS = {"weights.o": "weights", "model.o": "model"}


def _written(program, profile, folder: Path) -> dict[str, int]:
    """Bytes in flash of the objects themselves."""
    build_library(program, profile, folder, model_hash="0" * 64)
    sizes = dict.fromkeys(("weights", "kernels", "model"), 0)
    for path in (folder / "lib").glob("*.o"):
        with path.open("rb") as file:
            for section in ELFFile(file).iter_sections():
                flags = section["sh_flags"]
                dropped = section.name.startswith((".ARM.ex", ".text.tvm.fp16", ".eh_frame"))
                if flags & 2 and not flags & 1 and not dropped:
                    sizes[_OBJECTS.get(path.name, "kernels")] += section["sh_size"]
    return sizes


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55", "cortex-m0plus", "rv32imc"])
@pytest.mark.parametrize("goal", ["speed", "size"])
def test_it_equals_the_objects_that_are_written(target, goal, tmp_path):
    profile = load_target(target)
    program = specialize(
        lower(small_model(1, flatten=True), name="small", profile=profile), profile, goal
    )
    expected = _written(program, profile, tmp_path)
    assert min(expected.values()) > 20
    assert library_sizes(program, profile) == expected
    assert library_sizes(program, profile) == expected, "remembered sizes are the same"


def test_equal_flags_of_another_machine_are_not_confused():
    program = int8_program()
    sizes = {name: library_sizes(program, load_target(name)) for name in ("cortex-m4", "rv32imc")}
    assert sizes["cortex-m4"]["kernels"] != sizes["rv32imc"]["kernels"]
    assert library_sizes(program, load_target("cortex-m4")) == sizes["cortex-m4"]
