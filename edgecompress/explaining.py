"""Why a model does or does not fit a device, and the cheapest ways out: `edgecompress explain`.

Of a model only the planner's code table and exact byte counts are asked, so an answer takes seconds
and everything in it is a prediction. Of a result folder what was measured is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgecompress.errors import BadInput
from edgecompress.progress import SILENT, Progress
from edgecompress.records import SCHEMA_VERSION, Budget, Record, Result, Sensitivity

if TYPE_CHECKING:
    from edgecompress.model.load import Source
    from edgecompress.model.trainable import Trainable
    from edgecompress.plan.candidates import Problem
    from edgecompress.plan.choices import Choices
    from edgecompress.records import Prediction, WeightStorage

_NAMED = 5


class Weight(Record):
    """A layer or tensor and its bytes."""

    name: str
    size_bytes: int


class WayOut(Record):
    """One way of shrinking the model, as predicted; `fits` the budget with nothing else done."""

    change: str
    flash_bytes: int
    ram_bytes: int
    macs: int
    fits: bool


class Explanation(Record):
    """What `explain` says of a model on a target.

    Attributes:
        reason: why not even the smallest plan fits; "" where some plan does.
        heaviest: layers by bytes in flash as int8, largest first.
        live: what the arena holds at `peak_step`, the fullest, largest first.
        ways: the model as int8 first, then the changes, least first.
        sensitivity: what rounding one layer's weights to int4 does to the outputs, dearest first;
            needs data.
    """

    schema_version: int = SCHEMA_VERSION
    command: Literal["explain"] = "explain"
    model: str
    target: str
    budget: Budget
    fits: bool
    reason: str
    next_step: str
    flash_parts: dict[str, int]
    ram_parts: dict[str, int]
    heaviest: tuple[Weight, ...]
    peak_step: str
    live: tuple[Weight, ...]
    ways: tuple[WayOut, ...]
    sensitivity: tuple[Sensitivity, ...] = ()


def explain_model(
    model: str,
    *,
    target: str,
    data: str | None = None,
    flash: str | int | None = None,
    ram: str | int | None = None,
    latency_us: float | None = None,
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
    trust: bool = False,
    progress: Progress = SILENT,
) -> Explanation:
    """Predicts what the model takes on the target, and what cheaper forms of it would.

    Args:
        model: as `api.fit` takes it; a float one.
        data: adds the sensitivity of each layer.

    Raises:
        EdgeCompressError: see `edgecompress.errors` for the tree.
    """
    from edgecompress.model.load import load_source
    from edgecompress.model.opcheck import check_operators
    from edgecompress.model.trainable import to_trainable
    from edgecompress.plan.candidates import Problem
    from edgecompress.plan.explain import live_tensors
    from edgecompress.plan.formats import encoded_formats
    from edgecompress.plan.network import prunable_groups, read_network
    from edgecompress.plan.sensitivity import unmeasured
    from edgecompress.target import load_target

    profile = load_target(target)
    progress.stage("Load the model")
    source = load_source(model, input_shape=input_shape, trust=trust)
    if source.kind != "float":
        raise BadInput(
            f"{source.name} is quantized already: there is nothing left to choose.",
            next_step="Compile it and explain the folder, or bring the float model.",
        )
    check_operators(source)
    trainable = to_trainable(source)
    groups = prunable_groups(trainable)
    network = read_network(trainable, groups)
    budget = profile.budget(flash, ram, latency_us)
    problem = Problem(network, profile, budget, {})
    whole = problem.predict({})
    choices = unmeasured(groups, encoded_formats(profile))
    progress.stage("Look for ways out")
    ways = _ways(problem, choices)
    reason, next_step = _reason(problem, choices, ways)
    live = live_tensors(network, {}, whole.peak_step)[:_NAMED]
    return Explanation(
        model=source.name,
        target=profile.name,
        budget=budget,
        fits=problem.fits(whole),
        reason=reason,
        next_step=next_step,
        flash_parts=whole.flash_parts,
        ram_parts=whole.ram_parts,
        heaviest=_heaviest(problem),
        peak_step=whole.peak_step,
        live=tuple(Weight(name=name, size_bytes=size) for name, size in live),
        ways=tuple(ways),
        sensitivity=_sensitivity(source, trainable, data, seed, progress),
    )


def read_result(folder: Path) -> Result:
    """The result a command wrote into `folder`.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    from pydantic import ValidationError

    path = folder / "result.json"
    if not path.is_file():
        raise BadInput(
            f"{folder} holds no result to explain (result.json is missing).",
            next_step="Name a folder that `edgecompress fit` or `compile` wrote, or a model.",
        )
    try:
        return Result.from_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(
            f"{path} is not the result of fit or compile: {error.errors()[0]['msg']}."
        ) from None


def _ways(problem: Problem, choices: Choices) -> list[WayOut]:
    """int8 as it is, int4 where it pays, the widest uniform plans that fit, the narrowest."""
    from edgecompress.plan.candidates import int4_layers, narrowest, uniform

    found = [_way(problem, "int8, every channel", problem.predict({}))]
    four_bits: dict[str, WeightStorage] = {}
    if any(storage.format == "int4" for storage in choices.storages):
        four_bits = int4_layers(problem.network)
    if four_bits:
        words = f"int4 in {len(four_bits)} layers, every channel"
        found.append(_way(problem, words, problem.predict({}, None, four_bits)))
    full = sum(widths[-1] for widths in choices.widths.values())
    for name, weights in (("int8", {}), ("int4", four_bits)):
        candidate = uniform(problem, choices, weights) if name == "int8" or weights else None
        if candidate is not None and full:
            share = sum(candidate.widths.values()) / full
            if share < 1:
                words = f"{name}, {share:.0%} of the channels"
                found.append(_way(problem, words, candidate.predicted))
    if choices.widths:
        least = narrowest(problem, choices)
        found.append(_way(problem, "int8, the fewest channels planned for", least.predicted))
    return found


def _way(problem: Problem, change: str, predicted: Prediction) -> WayOut:
    return WayOut(
        change=change,
        flash_bytes=predicted.flash_bytes,
        ram_bytes=predicted.ram_bytes,
        macs=predicted.macs,
        fits=problem.fits(predicted),
    )


def _reason(problem: Problem, choices: Choices, ways: list[WayOut]) -> tuple[str, str]:
    """("", the command to give) where something fits, else the planner's own words."""
    from edgecompress.plan.explain import explain_infeasible

    if ways[0].fits:
        return "", "`edgecompress fit` only has to quantize it."
    if any(way.fits for way in ways):
        return "", "`edgecompress fit` chooses among these layer by layer and trains the result."
    error = explain_infeasible(problem, choices)
    more = "`edgecompress fit` would still try factors, thinner networks and compact students."
    return error.message, f"{error.next_step} {more}"


def _heaviest(problem: Problem) -> tuple[Weight, ...]:
    from edgecompress.plan.cost import constant_bytes

    network = problem.network
    sizes = {step.name: constant_bytes(network, step, {}) for step in network.steps}
    first = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_NAMED]
    return tuple(Weight(name=name, size_bytes=size) for name, size in first if size)


def _sensitivity(
    source: Source, trainable: Trainable, data: str | None, seed: int, progress: Progress
) -> tuple[Sensitivity, ...]:
    """int4's damage to each layer alone, from the same rows as the quantizer's own table."""
    if data is None and source.name != "demo":
        return ()
    from edgecompress.compress.quantize import layer_sensitivity
    from edgecompress.model.data import load_data
    from edgecompress.plan.trials import calibration_samples
    from edgecompress.records import WeightStorage

    progress.stage("Measure sensitivity")
    splits = load_data(data, input_shape=source.input_shape, seed=seed)
    samples = calibration_samples(splits, seed).numpy()
    rows = layer_sensitivity(trainable, samples, [WeightStorage(format="int4")])
    found = [
        Sensitivity(
            layer=row.layer,
            change="int4",
            damage=10 ** (-row.sqnr_db / 10) if row.divergence is None else row.divergence,
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda item: (-item.damage, item.layer)))
