"""What the planner is worth: planned against uniform compression at equal CPU time, as linked.

    python tools/bench/planner.py [--datasets fashion,fsdd] [--budgets flash50] [--seeds 0] [--json]

For each data set, budget and seed a base network is trained (once, kept in the cache); `int8-only`
links it as it is and sets the 100 % that budgets are shares of. `planned` is the search as `fit`
runs it. `uniform-int8` and `uniform-int4` narrow every width by one factor and get the CPU time
the planned run took, search included, as more training steps. Every row is of a linked image:
sizes as linked, accuracy of its host build on the test split.

Rows are appended to `rows.jsonl` in the cache as they finish; those found there are not run again,
so the table can be made in slices, and a killed run resumes. Each row names the code that made it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import planner_data
import planner_models
from planner_rows import Rows, code_version, provenance
from planner_tables import paired, table

from edgecompress.compress.finetune import Answers, Recipe
from edgecompress.errors import BadInput, DoesNotFit, EdgeCompressError
from edgecompress.progress import SILENT, Progress, Silent
from edgecompress.records import Budget, SizeReport
from edgecompress.target import DeviceProfile, load_target

if TYPE_CHECKING:
    import onnx

    from edgecompress.model.data import Splits
    from edgecompress.model.trainable import Trainable
    from edgecompress.plan.search import Found
    from edgecompress.records import Plan

METHODS = ("int8-only", "planned", "uniform-int8", "uniform-int4")
BUDGETS = ("flash50", "flash25", "ram50", "both50")
MODEL_OF = {"fashion": "resnet8", "cifar": "resnet8", "fsdd": "dscnn-wide", "hapt": "dscnn-wide"}
TARGET = "cortex-m4"
_NAMES_OF = {"uniform-int8": ("uniform",), "uniform-int4": ("uniform int4",)}
_ROUNDS = 4
_TIMED_STEPS = 50
_KEY = ("dataset", "model", "budget", "method", "seed", "effort")


@dataclass(frozen=True)
class Cell:
    """One base network, loaded, and what its rows have in common."""

    dataset: str
    model: str
    seed: int
    effort: str
    final_steps: int | None
    splits: Splits
    trainable: Trainable
    profile: DeviceProfile


@dataclass(frozen=True)
class Linked:
    """An image as linked; `accuracy` in percent on the test split by its host build."""

    size: SizeReport
    macs: int
    instructions: int | None
    accuracy: float
    exact: bool


def open_cell(dataset: str, model: str, seed: int, options: argparse.Namespace) -> Cell:
    import torch

    from edgecompress.model.load import load_source
    from edgecompress.model.trainable import to_trainable

    splits = planner_data.load(dataset, options.train_limit)
    steps = options.base_steps or planner_models.BASE_STEPS[dataset]
    net = planner_models.trained(model, splits, seed, steps, options.cache / "bases")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{model}.onnx"
        example = torch.zeros(1, *splits.train.x.shape[1:])
        torch.onnx.export(net, (example,), path, dynamo=False, verbose=False,
                          training=torch.onnx.TrainingMode.PRESERVE,
                          do_constant_folding=False)  # fmt: skip
        trainable = to_trainable(load_source(str(path)))
    common = (dataset, model, seed, options.effort, options.final_steps)
    return Cell(*common, splits, trainable, load_target(TARGET))


def link(cell: Cell, deployable: onnx.ModelProto, budget: Budget) -> Linked:
    """Compiles, links, verifies and measures; the test split goes through the host build."""
    from edgecompress.deploy import DeployOptions, deploy, device_inputs
    from edgecompress.lower.program import dequantize_output

    test = cell.splits.test
    assert test.y is not None
    with tempfile.TemporaryDirectory() as folder:
        deployed = deploy(
            deployable, cell.profile, Path(folder), name=cell.model, model_hash="0" * 64,
            samples=test.x[:3], progress=SILENT,
            options=DeployOptions(
                "virtual",
                ram_limit_bytes=budget.ram_bytes,
                flash_limit_bytes=budget.flash_bytes,
            ),
        )  # fmt: skip
        stored = deployed.host.run_batch(device_inputs(deployed.program, test.x, len(test.x)))
        made = np.stack([dequantize_output(deployed.program, row[None])[0] for row in stored])
    accuracy = 100.0 * float(np.mean(made.reshape(len(made), -1).argmax(1) == test.y))
    measured = deployed.measurement
    return Linked(
        deployed.size, deployed.program.macs, measured.instructions, accuracy,
        deployed.verification.exact,
    )  # fmt: skip


def used_cpu_seconds() -> float:
    """Of this process and the compilers it has run."""
    return sum(os.times()[:4])


def within(size: SizeReport, budget: Budget) -> bool:
    flash, ram = budget.flash_bytes, budget.ram_bytes
    return (flash is None or size.flash_bytes <= flash) and (ram is None or size.ram_bytes <= ram)


def find(cell: Cell, budget: Budget, names: tuple[str, ...] | None, corrections: dict) -> Found:
    """As `fit` does it, or among these candidates alone."""
    from edgecompress.plan.last_resort import find_plan
    from edgecompress.plan.search import search

    if names is None:
        seek, more = find_plan, {}
    else:
        seek, more = search, {"names": names}
    return seek(
        cell.trainable, cell.splits, cell.profile, budget, model_hash="0" * 64,
        effort=cell.effort, seed=cell.seed, corrections=corrections, **more,
    )  # fmt: skip


def chosen_name(found: Found) -> str:
    """Where the plan comes from, as its trial is called; "" where only one was possible."""
    from edgecompress.plan.front import same_choice

    return next((t.name for t in found.trials if same_choice(t.plan, found.plan)), "")


def build(cell: Cell, plan: Plan, progress: Progress = SILENT) -> onnx.ModelProto:
    from edgecompress.compress.quantize import quantize
    from edgecompress.plan.realize import realize

    made = realize(cell.trainable, plan, cell.splits, progress)
    calibration = cell.splits.train.x[:256]
    return quantize(made, calibration, name=cell.model, weights=plan.weights)


class StepTimes(Silent):
    """The CPU time at every training step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def advance(self, done: int = 1) -> None:  # noqa: ARG002 - the protocol's
        self.at.append(time.process_time())

    def seconds(self) -> float:
        """Of a step, mean; what also looked at the validation split or was interrupted left out."""
        each = np.diff(self.at)
        return float(each[each <= 2 * np.median(each)].mean())


def steps_for(cell: Cell, plan: Plan, cpu_seconds: float) -> int:
    """How many fine-tuning steps of this plan so much CPU time buys, from a timed start.

    The teacher is asked about every training sample once: those steps that meet new ones cost
    more, and all of the timed start's do.
    """
    times, before = StepTimes(), used_cpu_seconds()
    build(cell, plan.model_copy(update={"finetune_steps": _TIMED_STEPS}), times)
    each = max(1e-4, times.seconds())
    beside = used_cpu_seconds() - before - _TIMED_STEPS * each
    samples, batch = len(cell.splits.train.x), Recipe().batch_size
    teaching = min(0.8 * each, batch * teacher_seconds(cell))
    left = max(0.0, cpu_seconds - beside)
    steps = left / each
    if steps * batch > samples:
        steps = (left - samples / batch * teaching) / (each - teaching)
    return max(_TIMED_STEPS, round(steps))


def teacher_seconds(cell: Cell) -> float:
    """CPU time of the teacher's answer to one training sample."""
    import torch

    answers, batch = Answers(cell.trainable, cell.splits).train, Recipe().batch_size
    batches = torch.arange(min(len(answers), 20 * batch)).split(batch)
    answers.targets(batches[0])
    before = time.process_time()
    for rows in batches[1:]:
        answers.targets(rows)
    return (time.process_time() - before) / max(1, sum(map(len, batches[1:])))


def fitted(
    cell: Cell, budget: Budget, names: tuple[str, ...] | None, cpu_seconds: float | None
) -> tuple[Plan, str, Linked, float]:
    """Plans, trains and links until the image fits: (plan, the candidate it was, image, CPU
    seconds without linking).

    Args:
        cpu_seconds: what a rival may use. Of its rounds only the last counts: one that came out too
            large must not leave the next without training. Planned pays for all of its own.
    """
    from edgecompress.plan.cost import corrections_from

    corrections: dict[str, float] = {}
    spent = 0.0
    for _ in range(_ROUNDS):
        before = used_cpu_seconds()
        found = find(cell, budget, names, corrections)
        plan = found.plan
        searched = used_cpu_seconds() - before
        if cpu_seconds is not None:
            spent = 0.0
            steps = steps_for(cell, plan, cpu_seconds - searched)
            plan = plan.model_copy(update={"finetune_steps": steps})
        elif cell.final_steps is not None:
            plan = plan.model_copy(update={"finetune_steps": cell.final_steps})
        before = used_cpu_seconds()
        deployable = build(cell, plan)
        spent += searched + used_cpu_seconds() - before
        linked = link(cell, deployable, budget)
        if within(linked.size, budget):
            break
        corrections = corrections_from(plan.predicted, linked.size, corrections)
    return plan, chosen_name(found), linked, spent


def int8_only(cell: Cell) -> Linked:
    from edgecompress.compress.quantize import quantize

    return link(cell, quantize(cell.trainable, cell.splits.train.x[:256], name="int8"), Budget())


def budget_of(name: str, cell: Cell, whole: dict[str, Any]) -> Budget:
    """A share of what int8-only takes; both50 also caps MACs at those of the uniform plan."""
    share = int(name[-2:]) / 100
    flash, ram = (int(share * whole[f"{kind}_bytes"]) for kind in ("flash", "ram"))
    if name.startswith("ram"):
        return Budget(ram_bytes=ram)
    if name.startswith("flash"):
        return Budget(flash_bytes=flash)
    uniform = find(cell, Budget(flash_bytes=flash), ("uniform",), {}).plan
    return Budget(flash_bytes=flash, latency_us=latency_of(cell.profile, uniform.predicted.macs))


def latency_of(profile: DeviceProfile, macs: int) -> float:
    """The latency budget that allows so many MACs, by the planner's own table."""
    from edgecompress.plan.code_size import code_table

    core = profile.core
    assert core.cycles_per_instruction is not None
    instructions = (macs + 1) * code_table(profile).instructions_per_mac
    return instructions * core.cycles_per_instruction[1] / core.clock_hz * 1e6


def row_of(
    cell: Cell, budget: str, method: str, linked: Linked, fits: bool, seconds: float, plan: Any
) -> dict[str, Any]:
    return {
        "dataset": cell.dataset, "model": cell.model, "budget": budget, "method": method,
        "seed": cell.seed, "effort": cell.effort, "accuracy": round(linked.accuracy, 3),
        "flash_bytes": linked.size.flash_bytes, "ram_bytes": linked.size.ram_bytes,
        "macs": linked.macs, "instructions": linked.instructions, "seconds": round(seconds, 1),
        "fits": fits, "exact": linked.exact,
        "steps": 0 if plan is None else plan.finetune_steps,
        "int4_layers": 0 if plan is None else len(plan.weights),
        "low_rank_layers": 0 if plan is None else len(plan.low_rank),
        "code": code_version(),
    }  # fmt: skip


def run_cell(cell: Cell, rows: Rows, options: argparse.Namespace) -> None:
    """Every wanted budget and method of one base network."""
    common = {"dataset": cell.dataset, "model": cell.model, "seed": cell.seed,
              "effort": cell.effort}  # fmt: skip
    whole = rows.get(method="int8-only", **common)
    if whole is None:
        before = used_cpu_seconds()
        linked = int8_only(cell)
        seconds = used_cpu_seconds() - before
        rows.add(whole := row_of(cell, "none", "int8-only", linked, True, seconds, None))
    for name in options.budgets:
        budget = None
        for method in METHODS[1:]:
            done = rows.get(budget=name, method=method, **common)
            if method not in options.methods or done is not None:
                continue
            budget = budget or budget_of(name, cell, whole)
            planned = rows.get(budget=name, method="planned", **common)
            if method != "planned" and planned is None:
                raise BadInput(f"{method} needs the planned row's CPU time; run planned first.")
            run_method(cell, name, budget, method, planned, rows)


def run_method(
    cell: Cell, name: str, budget: Budget, method: str, planned: dict | None, rows: Rows
) -> None:
    seconds = None if method == "planned" or planned is None else planned["seconds"]
    try:
        plan, chosen, linked, spent = fitted(cell, budget, _NAMES_OF.get(method), seconds)
    except DoesNotFit as error:
        print(f"{cell.dataset} {name} {method}: {error}", file=sys.stderr)
        return
    fits = within(linked.size, budget)
    rows.add({**row_of(cell, name, method, linked, fits, spent, plan), "chosen": chosen})


def parse(arguments: list[str]) -> argparse.Namespace:
    def several(text: str) -> list[str]:
        return [item for item in text.split(",") if item]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=several, default=list(planner_data.NAMES))
    parser.add_argument("--models", type=several, default=[], help="default: one a data set")
    parser.add_argument("--budgets", type=several, default=list(BUDGETS))
    parser.add_argument("--methods", type=several, default=list(METHODS))
    parser.add_argument("--seeds", type=several, default=["0", "1", "2"])
    parser.add_argument("--effort", default="balanced", choices=("fast", "balanced", "max"))
    parser.add_argument("--final-steps", type=int, help="of planned, in place of the effort's")
    parser.add_argument("--train-limit", type=int, help="training samples at most")
    parser.add_argument("--base-steps", type=int, help="training steps of the base networks")
    parser.add_argument("--cache", type=Path, default=Path("build/bench-planner"))
    parser.add_argument("--json", action="store_true", help="all rows as one JSON list")
    options = parser.parse_args(arguments)
    known = {"datasets": planner_data.NAMES, "budgets": BUDGETS, "methods": METHODS,
             "models": planner_models.NAMES}  # fmt: skip
    for name, allowed in known.items():
        for item in getattr(options, name):
            if item not in allowed:
                parser.error(f"--{name}: '{item}' is none of {', '.join(allowed)}")
    options.seeds = [int(seed) for seed in options.seeds]
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    rows = Rows(options.cache / "rows.jsonl")
    for seed in options.seeds:
        for dataset in options.datasets:
            for model in options.models or [MODEL_OF[dataset]]:
                try:
                    run_cell(open_cell(dataset, model, seed, options), rows, options)
                except EdgeCompressError as error:
                    print(f"{dataset}: {error}", file=sys.stderr)
    shown = f"{table(rows.rows)}\n\n{paired(rows.rows)}\n\n{provenance(rows.rows)}"
    print(json.dumps(rows.rows, indent=2) if options.json else shown)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main(sys.argv[1:]))
