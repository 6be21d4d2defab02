"""From a placed program to the files that ship: library, header, firmware and manifest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jinja2

from edgecompress.errors import BuildFailed, UnwritableOutput
from edgecompress.link.build_record import describe_build
from edgecompress.link.overflow import overflows, raise_if_too_big
from edgecompress.link.sizes import read_sizes, write_flash_images
from edgecompress.link.toolchain import (
    ToolchainRefused,
    archive,
    compile_c,
    run_zig,
    target_flags,
)
from edgecompress.lower.codegen import build_object
from edgecompress.lower.emit import (
    WEIGHTS_FILE,
    constant_layout,
    emit_c,
    emit_routines,
    emit_weights,
)
from edgecompress.lower.memory.arena import memory_map
from edgecompress.lower.memory.regions import place_constants
from edgecompress.lower.program import Program, Step
from edgecompress.paths import shipped
from edgecompress.records import ImageManifest, LayerReport, sha256_file
from edgecompress.target.port_settings import settings_defines
from edgecompress.target.schema import DeviceProfile, Region

_MANIFEST = "image.json"
_FLASH_DIVISIONS = 6
ROUTINES_FILE = "routine_kernels.S"
"""The linker scripts gather the kernels' code from *kernels.o."""


def build_image(
    program: Program, profile: DeviceProfile, folder: Path, *, model_hash: str
) -> ImageManifest:
    """Compiles, links and measures; everything appears in `folder` only once all of it exists.

    Writes lib/libmodel.a and lib/model.h; firmware.elf, .hex and .bin for a microcontroller (one
    .bin a flash region in use), or the static executable `firmware` for a host; and image.json
    last.

    Args:
        program: with its arena placed.
        profile: kind "mcu" or "host".
        folder: made when missing; files of other names in it are left alone.
        model_hash: sha256 in hex of the model, kept in the image and the manifest.

    Raises:
        DoesNotFit: the linker ran out of a region; says which and by how many bytes.
        BuildFailed: TVM or the C toolchain refused.
        UnwritableOutput: the files could not be put into `folder`.
    """
    if profile.kind == "cuda":
        raise BuildFailed(
            f"{profile.name} has no bare-metal image.",
            next_step="CUDA targets are built as a package by engines.tvm.",
        )
    with tempfile.TemporaryDirectory(prefix="edgecompress-") as scratch:
        work = Path(scratch)
        build_library(program, profile, work, model_hash=model_hash)
        firmware, program = _link_with_room(program, profile, work)
        files = ["lib/libmodel.a", "lib/model.h", firmware]
        if profile.kind == "mcu":
            files += write_flash_images(work / firmware, profile)
        manifest = _manifest(program, profile, work / firmware, model_hash)
        (work / _MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _move_into_place(work, folder, [*files, _MANIFEST])
    return manifest


def build_library(
    program: Program,
    profile: DeviceProfile,
    folder: Path,
    *,
    model_hash: str,
    flags: Sequence[str] = (),
) -> None:
    """lib/libmodel.a and lib/model.h in `folder`: kernels, weights and the C that drives them.

    Args:
        flags: more compiler flags for the generated C.

    Raises:
        BuildFailed: TVM or the C toolchain refused.
    """
    header, source = emit_c(program, model_hash=model_hash)
    library = folder / "lib"
    library.mkdir(parents=True, exist_ok=True)
    _write_weights(program, library)
    (library / "model.h").write_text(header, encoding="ascii")
    (library / "model.c").write_text(source, encoding="ascii")
    sources = ["model.c", "weights.S"]
    if routines := emit_routines(program):
        (library / ROUTINES_FILE).write_text(routines, encoding="ascii")
        sources.append(ROUTINES_FILE)
    objects = compile_c(sources, flags, profile, folder=library)
    if program.has_functions:
        kernels = build_object(program.functions, dict(profile.toolchain.llvm))
        (library / "kernels.o").write_bytes(kernels)
        objects.insert(0, "kernels.o")
    archive(objects, "libmodel.a", folder=library)


def _write_weights(program: Program, library: Path) -> None:
    assembly, weights = emit_weights(program)
    (library / "weights.S").write_text(assembly, encoding="ascii")
    (library / WEIGHTS_FILE).write_bytes(weights)


def _link_with_room(program: Program, profile: DeviceProfile, work: Path) -> tuple[str, Program]:
    """The firmware's file name and the program as linked.

    Where the first flash region overflows and the device has others, the constants least read move
    there: the linker alone knows to the byte how much room code leaves.
    """
    first, *others = [region for region in profile.regions if region.kind == "flash"] or [None]
    objects = _runner_objects(program, profile, work)
    room = None
    for _ in range(_FLASH_DIVISIONS):
        try:
            return _link_firmware(program, profile, work, objects), program
        except ToolchainRefused as refusal:
            found = overflows(refusal.output)
            if first is None or first.name not in found or not others:
                raise_if_too_big(refusal.output, program, profile)
                raise
            if room is None:
                room = sum(
                    -(-constant.array.nbytes // program.arena_alignment) * program.arena_alignment
                    for constant in constant_layout(program)
                )
            room -= found[first.name]
        program = place_constants(program, profile, room)
        library = work / "lib"
        _write_weights(program, library)
        compile_c(["weights.S"], [], profile, folder=library)
        archive(sorted(path.name for path in library.glob("*.o")), "libmodel.a", folder=library)
    raise BuildFailed(f"{program.name}'s weights found no place in {profile.name}'s flash regions.")


def _runner_objects(program: Program, profile: DeviceProfile, work: Path) -> list[str]:
    """Compiles the runner and its port."""
    sources = _copy_runtime(profile, work)
    port = f"-Iruntime/ports/{profile.console.port}"
    flags = ["-Iruntime/core", port, "-Ilib", *port_defines(profile)]
    if len(program.arenas) > 1:
        flags.append("-DPORT_MORE_ARENAS")
    return compile_c(sources, flags, profile, folder=work)


def _link_firmware(
    program: Program, profile: DeviceProfile, work: Path, objects: Sequence[str]
) -> str:
    """Links the runner's objects with the library; returns the file's name.

    Raises:
        ToolchainRefused: the linker's own words; `link.overflow` reads them.
    """
    firmware = "firmware.elf" if profile.kind == "mcu" else "firmware"
    arguments = ["cc", *target_flags(profile), "-Os", "-Wl,--gc-sections", "-Wl,--build-id=none"]
    if profile.kind == "mcu":
        arenas = [arena.region for arena in program.arenas]
        script = linker_script(profile, alignment=program.arena_alignment, arenas=arenas)
        (work / "memory.ld").write_text(script, encoding="ascii")
        # -g keeps the symbol table, which faults and debuggers read; memory.ld drops .debug_*.
        # Whole 64 KiB pages would pull the ELF header in below a flash that begins at 0xc000.
        arguments += ["-g", "-nostdlib", "-Wl,-T,memory.ld", "-Wl,-e,Reset_Handler"]
        arguments.append("-Wl,-z,max-page-size=4096")
        libraries = ["-lcompiler_rt"]
    else:
        arguments += ["-static", "-Wl,-T,runtime/startup/host.ld"]
        libraries = ["-lm"]
    run_zig(
        [*arguments, *objects, "lib/libmodel.a", *libraries, "-o", firmware],
        folder=work,
        what=f"linking {firmware} for {profile.name}",
    )
    return firmware


def port_defines(profile: DeviceProfile) -> list[str]:
    """What runtimes/core/port.h lists, and the settings of the profile's own port."""
    console = profile.console
    defines = [
        f'-DPORT_TARGET_NAME="{profile.name}"',
        f"-DPORT_CLOCK_HZ={profile.core.clock_hz}u",
    ]
    if profile.kind == "mcu":
        defines += [
            f"-DPORT_UART_BASE={console.base_address:#x}u",
            f"-DPORT_TIMER_BASE={console.timer_address:#x}u",
            f"-DPORT_BAUD={console.baud}u",
            f"-DPORT_REGIONS={','.join(map(_region_initializer, profile.regions))}",
        ]
    if console.timer == "counter":
        defines.append("-DPORT_TIMER_COUNTS_UP")
    return defines + settings_defines(console.settings)


def _region_initializer(region: Region) -> str:
    """A row of PORT_REGIONS: flash where it is read as data, not where it is fetched from."""
    is_flash = int(region.kind == "flash")
    return f'{{"{region.name}",{region.read_origin:#x}u,{region.size:#x}u,{is_flash}}}'


def linker_script(profile: DeviceProfile, *, alignment: int, arenas: Sequence[str] = ()) -> str:
    """memory.ld for a microcontroller: its regions, and one section a line of the size report.

    Code and initial data go to the first flash region, constants there too unless their section
    names another, variables and stack to the fastest RAM region.

    Args:
        arenas: the region of each of the program's arenas; by default one, in the largest RAM.
    """
    template = (shipped("runtimes") / "startup" / "memory.ld.j2").read_text(encoding="utf-8")
    ram_regions = [region for region in profile.regions if region.kind == "ram"]
    largest = max(ram_regions, key=lambda region: region.size).name
    return jinja2.Template(
        template, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    ).render(
        profile=profile,
        flash=profile.region("flash"),
        more_flash=[region.name for region in profile.regions if region.kind == "flash"][1:],
        ram=profile.fastest_ram,
        arenas=list(arenas) or [largest],
        alignment=alignment,
    )


def _copy_runtime(profile: DeviceProfile, work: Path) -> list[str]:
    """The runtime's sources under `work`/runtime, so that the compiler sees relative names only."""
    runtimes = shipped("runtimes")
    folders = ["core", f"ports/{profile.console.port}", "startup"]
    for folder in folders:
        shutil.copytree(runtimes / folder, work / "runtime" / folder)
    if profile.kind != "mcu":
        folders.remove("startup")
    sources = []
    for folder in folders:
        here = sorted((work / "runtime" / folder).glob("*.c"))
        sources += [str(path.relative_to(work)) for path in here]
    return sources


def _manifest(
    program: Program, profile: DeviceProfile, firmware: Path, model_hash: str
) -> ImageManifest:
    layers = []
    for index, step in enumerate(program.steps):
        output = program.buffers[step.output]
        layers.append(
            LayerReport(
                index=index,
                name=step.name,
                kernel=step.function,
                output_shape=output.shape,
                output_dtype=output.dtype,
                location=output.location,
                offset_bytes=output.offset_bytes,
                size_bytes=output.size_bytes,
                macs=step.macs,
                is_float=step.is_float,
                implementation=step.implementation,
                constant_bytes=_constant_bytes(program, step),
                codec=step.codec,
                codec_saved_bytes=step.codec_saved_bytes,
                codec_instructions=step.codec_instructions,
            )
        )
    return ImageManifest(
        model_name=program.name,
        target=profile.name,
        model_hash=model_hash,
        firmware_hash=sha256_file(firmware),
        firmware=firmware.name,
        inputs=program.inputs,
        outputs=program.outputs,
        layers=tuple(layers),
        memory=memory_map(program),
        size=read_sizes(firmware, profile),
        requantize=program.requantize,
        build=describe_build(profile),
    )


def _constant_bytes(program: Program, step: Step) -> int:
    names = {argument.name for argument in step.arguments if argument.kind == "constant"}
    return sum(program.constants[int(name)].nbytes for name in names)


def _move_into_place(work: Path, folder: Path, names: list[str]) -> None:
    """Each file is copied beside its final name and renamed over it; the manifest comes last."""
    try:
        for name in names:
            final = folder / name
            final.parent.mkdir(parents=True, exist_ok=True)
            partial = final.with_name(f".{final.name}.partial")
            shutil.copy(work / name, partial)
            os.replace(partial, final)
    except OSError as error:
        raise UnwritableOutput(
            f"{folder} cannot take the image: {error.strerror or error}.",
            next_step="Give a folder you can write to with --output.",
        ) from None
