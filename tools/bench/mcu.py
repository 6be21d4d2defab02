"""What int8 models cost on microcontroller cores, and what the same models cost other engines.

    python tools/bench/mcu.py [MODEL...] [--cores m4,m7] [--json [--all]] [--jobs N]

MODEL is an int8 .tflite or a QDQ .onnx, or one of ic, kws, ad, vww: MLPerf Tiny's, from the folder
EDGECOMPRESS_DATA names or `shared/data` beside the checkout; without any, ic, kws and ad. Each is
compiled, linked, verified (numpy twin = host build = device, every layer) and run once on each
core's virtual board, or under QEMU where only it has the core. Nothing is sampled or timed: the
counts are exact, the same on every machine.
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
M4 cycles     estimate: Cortex-M4 TRM table at zero wait states over the executed blocks; of
              other cores' code too, Arm publishes no such table for the M33
flash         every allocated section of model, runner and start-up; vectors and UART port excluded
RAM           arena, scratch, static data, I/O outside the arena, stack high-water
exact         numpy twin = host build = device, bit for bit, every layer
fallback      layers on generic TIR kernels: no generator of this core is cheaper"""

# What `--json` gives a row; `--all` adds cycles, the model's hash and recorded engines.
ROW_FIELDS = (
    "model", "core", "instructions", "words", "macs", "flash_bytes", "weights_bytes", "ram_bytes",
    "arena_bytes", "stack_bytes", "exact", "fallback_layers",
)  # fmt: skip

_WEIGHTED = ("conv2d", "conv2d_add", "depthwise_conv2d", "dense", "matmul")
_RIVALS = Path(__file__).with_name("mcu_rivals.toml")
_COMPARED = ("instructions", "words", "m4_cycles", "flash_bytes", "ram_bytes")
_DEFAULT_MODELS = ("ic", "kws", "ad")
_REPOSITORY = Path(__file__).resolve().parents[2]


def measure(model: str, target: str) -> dict[str, Any]:
    """One row of the table: ROW_FIELDS, `m4_cycles`, `cycles` and `model_hash`.

    The hash finds the recorded engines' figures for the same file.

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
    rivals = recorded.get(row["model_hash"], {}).get("rivals", [])
    return [{**rival, "ratios": ratios(row, rival)} for rival in rivals]


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
            lines.append(_ratio_cells(rival["engine"], rival["ratios"]))
        on_m4 = next((r for r in rows if _same_model(r, row) and r["core"] == "cortex-m4"), None)
        if on_m4 is not None and row["core"] != "cortex-m4":
            lines.append(_ratio_cells("cortex-m4", ratios(row, on_m4)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def ratios(row: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The compared figures divided by another's, where both have them."""
    return {
        name: row[name] / other[name]
        for name in _COMPARED
        if other.get(name) is not None and row[name] is not None
    }


def _same_model(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return (row["model"], row["model_hash"]) == (other["model"], other["model_hash"])


def _ratio_cells(name: str, found: dict[str, float]) -> list[str]:
    """A line of the table."""
    ratio = {field: f"{value:.2f}x" for field, value in found.items()}
    return [
        f"  to {name}", "", ratio.get("instructions", "-"), "", ratio.get("words", "-"),
        ratio.get("m4_cycles", "-"), ratio.get("flash_bytes", "-"), "",
        ratio.get("ram_bytes", "-"), "", "", "", "",
    ]  # fmt: skip


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


def model_path(model: str) -> str:
    """A file as it is; the name of an MLPerf Tiny model as its int8 file.

    Raises:
        BadInput: that file is not here.
    """
    if Path(model).suffix or not model.isidentifier():
        return model
    given = os.environ.get("EDGECOMPRESS_DATA")
    folder = Path(given) if given else _REPOSITORY.parent / "shared" / "data"
    path = folder / "mlperf_tiny" / f"{model}_int8.tflite"
    if not path.is_file():
        raise BadInput(
            f"{model} is no file, and {path} is not here.",
            next_step="Give a model file, or set EDGECOMPRESS_DATA to the folder of mlperf_tiny/.",
        )
    return str(path)


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


def _json_row(row: dict[str, Any], *, full: bool) -> dict[str, Any]:
    if full:
        return {**row, "rivals": comparisons(row)}
    return {name: row[name] for name in ROW_FIELDS}


def _attempt(model: str, target: str) -> dict[str, Any] | str:
    """`measure`, an error as its text: that pickles, and the other rows go on."""
    try:
        return measure(model, target)
    except EdgeCompressError as error:
        return f"{Path(model).name} on {target}: {error}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", default=list(_DEFAULT_MODELS),
        help="int8 .tflite or QDQ .onnx, or one of MLPerf Tiny's by name; default: ic kws ad",
    )  # fmt: skip
    parser.add_argument("--cores", default="m4,m7", help="comma-separated: m4, m7, m33, m55, ...")
    parser.add_argument("--json", action="store_true", help="rows as JSON on stdout")
    parser.add_argument("--all", action="store_true", help="with --json: cycles and rivals, too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    options = parser.parse_args(arguments)
    try:
        models = [model_path(model) for model in options.models]
        rows, failures = bench(models, options.cores.split(","), max(options.jobs, 1))
    except EdgeCompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        json.dump([_json_row(row, full=options.all) for row in rows], sys.stdout, indent=2)
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
