"""What int8 models cost on microcontroller cores, and what the same models cost other engines.

    python tools/bench/mcu.py MODEL... [--cores m4,m7] [--json] [--jobs N]

MODEL is an int8 .tflite or a QDQ .onnx. Each is compiled, linked, verified (numpy twin = host build
= device, every layer) and run once on each core's virtual board, or under QEMU where only it has
the core. Nothing is sampled or timed: the counts are exact, the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import tomllib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecompress.errors import BadInput, EdgeCompressError
from edgecompress.target import DeviceProfile, load_target

if TYPE_CHECKING:
    from edgecompress.lower.program import Program

LEGEND = """\
instructions  executed from entering the model to its return, exact
words         the same, every register moved by LDM/STM/LDRD/STRD/PUSH/POP counted as one, exact
M4 cycles     estimate: Cortex-M4 TRM table at zero wait states over the executed blocks
flash         every allocated section of model, runner and start-up; vectors and UART port excluded
RAM           arena, scratch, static data, I/O outside the arena, stack high-water
exact         numpy twin = host build = device, bit for bit, every layer
fallback      layers on generic TIR kernels: no generator of this core took them"""

_WEIGHTED = ("conv2d", "conv2d_add", "depthwise_conv2d", "dense", "matmul")
_RIVALS = Path(__file__).with_name("mcu_rivals.toml")
_COMPARED = ("instructions", "words", "m4_cycles", "flash_bytes", "ram_bytes")


def measure(model: str, target: str) -> dict[str, Any]:
    """One row of the table; `model_hash` besides, which finds the rivals' figures.

    Raises:
        EdgeCompressError: the model is no int8 deployable, or cannot be compiled for the core.
    """
    from edgecompress.deploy import DeployOptions, deploy, device_inputs
    from edgecompress.device.harness import open_device
    from edgecompress.model.load import load_source
    from edgecompress.progress import SILENT

    source = load_source(model)
    if source.kind == "float":
        raise BadInput(
            f"{model} is a float model; the bench takes int8.",
            next_step="Quantize it with `edgecompress fit` and give its model.onnx.",
        )
    deployable = source.tflite if source.tflite is not None else source.onnx
    assert deployable is not None
    profile = load_target(target)
    where = "virtual" if profile.virtual is not None else "qemu"
    with tempfile.TemporaryDirectory(prefix="edgecompress-bench-") as scratch:
        folder = Path(scratch)
        deployed = deploy(
            deployable, profile, folder, name=source.name, model_hash=source.hash, samples=None,
            options=DeployOptions(where), progress=SILENT,
        )  # fmt: skip
        with open_device(folder, profile, where) as session:
            session.load(device_inputs(deployed.program, None, 1)[0])
            session.take_work()
            session.run()
            work = session.take_work()
        port_bytes = port_code_bytes(folder / deployed.manifest.firmware)
    flash, measured = deployed.size.flash_sections, deployed.measurement
    return {
        "model": source.name,
        "core": profile.core.name,
        "instructions": measured.instructions if work is None else work.instructions,
        "words": None if work is None else work.words,
        "macs": weighted_macs(deployed.program),
        "m4_cycles": None if work is None else work.cycles.get("cortex-m4", (None,))[0],
        "cycles": None if measured.cycles is None else measured.cycles.model_dump(),
        "flash_bytes": deployed.size.flash_bytes - flash["vectors"] - port_bytes,
        "weights_bytes": flash["weights"],
        "ram_bytes": deployed.size.ram_bytes,
        "arena_bytes": deployed.size.ram_parts["arena"],
        "stack_bytes": deployed.size.ram_parts["stack"],
        "exact": deployed.verification.exact,
        "fallback_layers": fallback_layers(deployed.manifest.layers),
        "model_hash": source.hash,
    }


def weighted_macs(program: Program) -> int:
    """Multiply-accumulates with weights; those of means and poolings are no part of a model's."""
    return sum(step.macs for step in program.steps if step.op in _WEIGHTED)


def fallback_layers(layers: tuple[Any, ...]) -> list[str]:
    """Names of the layers whose `implementation` is empty: the generic kernels stayed."""
    return [layer.name for layer in layers if not layer.implementation]


def port_code_bytes(firmware: Path) -> int:
    """Code of the UART and timer port: the functions named in runtimes/core/port.h."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    with firmware.open("rb") as file:
        return sum(
            symbol["st_size"]
            for section in ELFFile(file).iter_sections()
            if isinstance(section, SymbolTableSection)
            for symbol in section.iter_symbols()
            if symbol.name.startswith("port_") and symbol["st_info"]["type"] == "STT_FUNC"
        )


def comparisons(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Each recorded engine on this very model file: its figures and ours divided by them.

    Only for the Cortex-M4 and M7, whose counts agree within 1 %.
    """
    if row["core"] not in ("cortex-m4", "cortex-m7"):
        return []
    recorded = tomllib.loads(_RIVALS.read_text(encoding="utf-8"))["models"]
    found = []
    for rival in recorded.get(row["model_hash"], {}).get("rivals", []):
        ratios = {
            name: row[name] / rival[name]
            for name in _COMPARED
            if name in rival and row[name] is not None
        }
        found.append({**rival, "ratios": ratios})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text, each followed by the recorded engines' figures and the ratios."""
    lines = [
        ["model", "core", "instructions", "/MAC", "words", "M4 cycles", "flash", "weights", "RAM",
         "arena", "stack", "exact", "fallback"],
    ]  # fmt: skip
    for row in rows:
        work = row["instructions"]
        lines.append([
            row["model"], row["core"].removeprefix("cortex-"), _number(work),
            f"{work / row['macs']:.2f}" if work and row["macs"] else "-",
            _number(row["words"]), _number(row["m4_cycles"]), _number(row["flash_bytes"]),
            _number(row["weights_bytes"]), _number(row["ram_bytes"]), _number(row["arena_bytes"]),
            _number(row["stack_bytes"]), "yes" if row["exact"] else "NO",
            str(len(row["fallback_layers"])),
        ])  # fmt: skip
        for rival in comparisons(row):
            ratio = {name: f"{value:.2f}x" for name, value in rival["ratios"].items()}
            lines.append([
                f"  to {rival['engine']}", "", ratio.get("instructions", "-"), "",
                ratio.get("words", "-"), ratio.get("m4_cycles", "-"),
                ratio.get("flash_bytes", "-"), "", ratio.get("ram_bytes", "-"), "", "", "", "",
            ])  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def sources(rows: list[dict[str, Any]]) -> str:
    """The recorded figures behind the ratios, one line each."""
    found: dict[str, None] = {}
    for row in rows:
        for rival in comparisons(row):
            figures = ", ".join(f"{name} {rival[name]:,}" for name in _COMPARED if name in rival)
            found[f"{row['model']}, {rival['engine']}: {figures} ({rival['source']})"] = None
    return "\n".join(found)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def profile_name(core: str) -> str:
    """ "m4" is cortex-m4; anything else is a target's name or its TOML."""
    return f"cortex-{core}" if core.startswith("m") and not core.endswith(".toml") else core


def bench(models: list[str], cores: list[str], jobs: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Every model on every core, in that order; `jobs` processes at once.

    Returns:
        The rows, and a message for each model a core cannot take.

    Raises:
        BadInput, UnknownTarget: a core is none.
    """
    for core in cores:
        profile: DeviceProfile = load_target(profile_name(core))
        if profile.kind != "mcu":
            raise BadInput(f"{core} is no microcontroller.")
    work = [(model, profile_name(core)) for model in models for core in cores]
    if jobs == 1 or len(work) == 1:
        found = [_attempt(*item) for item in work]
    else:
        # Threads of TVM and torch do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(work)), mp_context=context) as pool:
            found = list(pool.map(_attempt, *zip(*work, strict=True)))
    rows = [row for row in found if not isinstance(row, str)]
    return rows, [row for row in found if isinstance(row, str)]


def _attempt(model: str, target: str) -> dict[str, Any] | str:
    """`measure`, an error as its text: that pickles, and the other rows go on."""
    try:
        return measure(model, target)
    except EdgeCompressError as error:
        return f"{Path(model).name} on {target}: {error}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="int8 .tflite or QDQ .onnx")
    parser.add_argument("--cores", default="m4,m7", help="comma-separated: m4, m7, m33, m55, ...")
    parser.add_argument("--json", action="store_true", help="rows as JSON on stdout")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    options = parser.parse_args(arguments)
    try:
        rows, failures = bench(options.models, options.cores.split(","), max(options.jobs, 1))
    except EdgeCompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        full = [{**row, "rivals": comparisons(row)} for row in rows]
        json.dump(full, sys.stdout, indent=2)
        print()
    elif rows:
        print(table(rows), LEGEND, sep="\n\n")
        recorded = sources(rows)
        if recorded:
            print(f"\nRatios are ours to these recorded figures (see {_RIVALS.name}):\n{recorded}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        return 2
    return 0 if all(row["exact"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
