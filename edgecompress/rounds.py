"""The flow line of `fit`: planning rounds, closed by the linked image.

    plan -> realize -> quantize -> link -> fits? else correct the accounts and plan again

Each finished stage is checkpointed, so a killed run takes up where it was.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgecompress.errors import BadInput, DoesNotFit
from edgecompress.flow import Job, image_result
from edgecompress.records import LatencyUse, Plan, Result, SizeReport, StageScore
from edgecompress.reentry import Kept
from edgecompress.units import format_bytes, format_us

if TYPE_CHECKING:
    import onnx

    from edgecompress.model.trainable import Trainable
    from edgecompress.plan.search import Found
    from edgecompress.workspace import Checkpoints

MAX_ROUNDS = 3


def fit_rounds(job: Job, folder: Path, checkpoints: Checkpoints, replayed: Plan | None) -> Result:
    """Plans, builds and measures until the linked image is within the budget.

    Raises:
        DoesNotFit: no plan fits, MAX_ROUNDS images in a row came out over budget, or the best
            plan loses more accuracy than is allowed. What was trained stays checkpointed.
    """
    from edgecompress.plan.cost import corrections_from
    from edgecompress.plan.front import pareto
    from edgecompress.plan.ray_trials import check_cluster
    from edgecompress.plan.search import Found

    _check_drop(job)
    if job.log_folder is not None:
        from edgecompress.compress.finetune.logs import require_tensorboard

        require_tensorboard()
    if job.ray is not None:
        check_cluster(job.ray)
    corrections: dict[str, float] = {}
    attempt = 0
    while True:
        found = (
            Found(plan=replayed) if replayed else _planned(job, checkpoints, corrections, attempt)
        )
        plan = found.plan
        deployable, ledger = _compressed(job, plan, checkpoints, attempt)
        _refuse_drop(job, ledger)
        (folder / "plan.json").write_text(plan.to_json())
        result = image_result(job, deployable, folder, plan)
        attempt += 1
        if result.fits:
            notes = (*result.notes, *_replaced(plan))
            told = {"notes": notes, "objective": found.objective,
                    "front": pareto(found.trials, plan), "ledger": ledger,
                    "sensitivity": found.sensitivity}  # fmt: skip
            return result.model_copy(update=told)
        if replayed is not None or attempt == MAX_ROUNDS:
            raise _over_budget(result)
        measured = SizeReport(flash_sections=result.flash.sections, ram_parts=result.ram.parts)
        corrections = corrections_from(plan.predicted, measured, corrections)
        corrections |= _slower_than_predicted(result.latency)
        job.clock.note("The linked image is over budget; planning again with what it measured.")


def _slower_than_predicted(latency: LatencyUse | None) -> dict[str, float]:
    from edgecompress.plan.latency import TIME

    if latency is None or not latency.predicted_us:
        return {}
    return {TIME: latency.used_us / latency.predicted_us}


def _replaced(plan: Plan) -> tuple[str, ...]:
    """Said plainly where the image is not the user's model any more."""
    if plan.student is None:
        return ()
    return (
        f"The model itself would not do: a student of the family {plan.student.family} "
        f"({plan.student.name}) learnt from it and takes its place.",
    )


def _planned(
    job: Job, checkpoints: Checkpoints, corrections: dict[str, float], attempt: int
) -> Found:
    from edgecompress.model.trainable import to_trainable
    from edgecompress.plan.last_resort import find_plan
    from edgecompress.plan.search import Found

    assert job.splits is not None
    saved = checkpoints.load(f"plan-{attempt}.json")
    if saved is not None:
        job.clock.note("Resuming: the plan was already made.")
        return Found.from_json(saved)
    job.clock.stage("Plan")
    kept = Kept(checkpoints, job.earlier)
    try:
        found = find_plan(
            to_trainable(job.source),
            job.splits,
            job.profile,
            job.budget,
            model_hash=job.source.hash,
            effort=job.effort,
            seed=job.seed,
            corrections=corrections,
            optimize=job.options.optimize,
            metric=job.metric,
            store=kept,
            earlier=kept.trials(),
            jobs=job.jobs,
            ray=job.ray,
            progress=job.clock,
        )
    except DoesNotFit:
        if attempt == 0:  # there is nothing to continue from: another budget is another run
            checkpoints.clear()
        raise
    checkpoints.save(f"plan-{attempt}.json", found.to_json().encode())
    return found


def _compressed(
    job: Job, plan: Plan, checkpoints: Checkpoints, attempt: int
) -> tuple[onnx.ModelProto, tuple[StageScore, ...]]:
    """The deployable the plan leads to and what each stage cost, from checkpoints if there."""
    import onnx

    from edgecompress.compress.quantize import quantize
    from edgecompress.model.trainable import to_trainable
    from edgecompress.plan.realize import realize
    from edgecompress.plan.trials import calibration_samples

    assert job.splits is not None
    saved = checkpoints.load(f"model-{attempt}.onnx")
    ledger = checkpoints.load(f"ledger-{attempt}.json")
    if saved is not None and ledger is not None:
        job.clock.note("Resuming: the compressed model was already trained.")
        stages = tuple(StageScore.model_validate(item) for item in json.loads(ledger))
        return onnx.load_model_from_string(saved), stages
    job.clock.stage("Compress and fine-tune")
    source = to_trainable(job.source)
    trained = realize(source, plan, job.splits, job.clock, job.metric, job.log_folder)
    job.clock.stage("Quantize to int8")
    calibration = calibration_samples(job.splits, plan.seed).numpy()
    deployable = quantize(trained, calibration, name=job.source.name, weights=plan.weights)
    stages = _ledger(job, plan, source, trained, deployable)
    rows = json.dumps([stage.model_dump(mode="json") for stage in stages])
    checkpoints.save(f"model-{attempt}.onnx", deployable.SerializeToString(deterministic=True))
    checkpoints.save(f"ledger-{attempt}.json", rows.encode())
    return deployable, stages


def _ledger(
    job: Job, plan: Plan, source: Trainable, trained: Trainable, deployable: onnx.ModelProto
) -> tuple[StageScore, ...]:
    """Nothing for plain int8, unless a limit on the drop asks for it."""
    from edgecompress.plan.ledger import keep_ledger
    from edgecompress.plan.scores import Scorer
    from edgecompress.plan.trials import calibration_samples

    changed = plan.widths or plan.low_rank or plan.weights or plan.student
    if not changed and job.max_accuracy_drop is None:
        return ()
    assert job.splits is not None
    job.clock.stage("Say what each stage cost")
    scorer = Scorer.of_source(source, job.splits, job.metric)
    calibration = calibration_samples(job.splits, plan.seed)
    return keep_ledger(source, plan, trained, deployable, scorer, calibration)


def _check_drop(job: Job) -> None:
    if job.max_accuracy_drop is None:
        return
    unlabelled = job.splits is None or job.splits.validation.y is None
    if unlabelled and job.metric is None:
        raise BadInput(
            "A limit on the accuracy drop needs labelled validation data; there are no labels.",
            next_step="Give y beside x, or a measure of your own with --metric pkg.mod:callable.",
        )


def _refuse_drop(job: Job, ledger: tuple[StageScore, ...]) -> None:
    """Raises DoesNotFit where the best plan found loses more than is allowed."""
    from edgecompress.plan.ledger import lost

    allowed = job.max_accuracy_drop
    drop = lost(ledger) if allowed is not None and ledger else None
    if allowed is None or drop is None or drop <= allowed:
        return
    source, last = ledger[0].value, ledger[-1].value
    raise DoesNotFit(
        f"The best plan found within the budgets loses {drop:.2f} points on validation "
        f"({source:.2f} to {last:.2f}); {allowed:g} are allowed.",
        resource="accuracy",
        needed=math.ceil(100 * drop),
        limit=round(100 * allowed),
        unit="hundredths of a point",
        next_step=f"Allow --max-accuracy-drop {math.ceil(10 * drop) / 10:g} (the trained model is "
        "kept), raise --flash or --ram, or let it train longer with --effort.",
    )


def _over_budget(result: Result) -> DoesNotFit:
    """The linked image's own words: which budget, by how much, and what takes the most."""
    flash, ram, latency = result.flash, result.ram, result.latency
    if latency is not None and latency.used_us > latency.budget_us:
        return DoesNotFit(
            f"One inference of the linked image takes {format_us(latency.used_us)} "
            f"({latency.label}); the budget is {format_us(latency.budget_us)}.",
            resource="latency",
            needed=math.ceil(latency.used_us),
            limit=int(latency.budget_us),
            unit="us",
            next_step=f"Allow --latency-us {math.ceil(latency.used_us)} or choose a faster target.",
        )
    if flash.budget_bytes is not None and flash.used_bytes > flash.budget_bytes:
        name, used, limit, parts = "flash", flash.used_bytes, flash.budget_bytes, flash.sections
    else:
        assert ram.budget_bytes is not None
        name, used, limit, parts = "RAM", ram.used_bytes, ram.budget_bytes, ram.parts
    largest = max(parts, key=lambda part: parts[part])
    return DoesNotFit(
        f"The linked image needs {format_bytes(used)} of {name}; the budget is "
        f"{format_bytes(limit)} ({format_bytes(used - limit)} over). Largest part: {largest}, "
        f"{format_bytes(parts[largest])}.",
        resource=name.lower(),
        needed=used,
        limit=limit,
        next_step=f"Raise --{name.lower()} to {used} or start from a smaller model.",
    )
