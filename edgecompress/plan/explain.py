"""Why no plan fits: which budget, the least that would do, where, and the cheapest way out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgecompress.errors import DoesNotFit
from edgecompress.lower.memory.regions import ram_rooms
from edgecompress.plan.candidates import Problem
from edgecompress.plan.choices import Choices
from edgecompress.plan.cost import arena_lifetimes, constant_bytes, expand
from edgecompress.plan.network import Network
from edgecompress.plan.storage import stored_share
from edgecompress.records import LowRank, Prediction, WeightStorage
from edgecompress.units import format_bytes, format_count, format_us

_TENSORS_NAMED = 4


def explain_infeasible(problem: Problem, choices: Choices) -> DoesNotFit:
    """The error to raise when `propose` found nothing.

    The least need is that of every group at its narrowest, with or without the lowest ranks.
    """
    widths = {group: options[0] for group, options in choices.widths.items()}
    lowest = {
        layer: min(options, key=lambda option: sum(option.ranks))
        for layer, options in choices.ranks.items()
    }
    weights = {layer: min(options, key=stored_share) for layer, options in choices.formats.items()}
    ranks = smallest_ranks(problem, widths, lowest, weights)
    least = problem.predict(widths, ranks, weights)
    narrow = problem.predict(widths)
    if problem.flash_over(least) > 0:
        return _flash(problem, widths, ranks, weights, least)
    if problem.ram_over(narrow) > 0:
        return _ram(problem, widths, narrow)
    if problem.macs_over(narrow) > 0:
        return too_slow(problem, narrow)
    return _together(problem, least)


def realised_too_large(exact: Prediction, problem: Problem) -> DoesNotFit:
    """Every candidate came out of compression larger, or slower, than it was planned."""
    if problem.macs_over(exact) > max(0.0, problem.flash_over(exact), problem.ram_over(exact)):
        return too_slow(problem, exact)
    flash = problem.flash_over(exact) > 0
    budget, device = (
        (problem.budget.flash_bytes, problem.profile.flash_bytes)
        if flash
        else (problem.budget.ram_bytes, problem.profile.ram_bytes)
    )
    limit = min(cap for cap in (budget, device) if cap is not None)
    over = problem.flash_over(exact) if flash else problem.ram_over(exact)
    needed = limit + max(1, math.ceil(over))
    resource = "flash" if flash else "RAM"
    return DoesNotFit(
        f"The compressed model needs {format_bytes(needed)} of {resource}; the budget is "
        f"{format_bytes(limit)} ({format_bytes(needed - limit)} over), at step {exact.peak_step}.",
        resource=resource.lower(),
        needed=needed,
        limit=limit,
        next_step=f"Raise --{resource.lower()} to {-(-needed // 1024)}K.",
    )


def smallest_ranks(
    problem: Problem,
    widths: Mapping[str, int],
    lowest: Mapping[str, LowRank],
    weights: Mapping[str, WeightStorage],
) -> dict[str, LowRank]:
    """The factorizations that still save flash when every group is at its narrowest."""
    chosen: dict[str, LowRank] = {}
    best = problem.predict(widths, None, weights).flash_bytes
    for layer, choice in lowest.items():
        trial = problem.predict(widths, {**chosen, layer: choice}, weights).flash_bytes
        if trial < best:
            chosen[layer], best = choice, trial
    return chosen


def _flash(
    problem: Problem,
    widths: Mapping[str, int],
    ranks: Mapping[str, LowRank],
    weights: Mapping[str, WeightStorage],
    least: Prediction,
) -> DoesNotFit:
    caps = [problem.budget.flash_bytes, problem.profile.flash_bytes]
    limit = min(cap for cap in caps if cap is not None)
    needed = _whole(limit + problem.flash_over(least))
    network = expand(problem.network, ranks)
    heaviest = max(network.steps, key=lambda step: constant_bytes(network, step, widths, weights))
    share = format_bytes(constant_bytes(network, heaviest, widths, weights))
    parts = ", ".join(
        f"{part} {format_bytes(size)}" for part, size in least.flash_parts.items() if size
    )
    return DoesNotFit(
        f"{_at_least(problem, widths)} needs {format_bytes(needed)} of flash; "
        f"{problem.profile.name}'s budget is {format_bytes(limit)} "
        f"({format_bytes(needed - limit)} over): {parts}. "
        f"Heaviest layer: {heaviest.name}, {share}.",
        resource="flash",
        needed=needed,
        limit=limit,
        next_step=_raise_budget("flash", needed, problem.profile.flash_bytes),
    )


def _ram(problem: Problem, widths: Mapping[str, int], narrow: Prediction) -> DoesNotFit:
    limit = _ram_limit(problem)
    needed = _whole(limit + problem.ram_over(narrow))
    live = live_tensors(problem.network, widths, narrow.peak_step)
    named = " + ".join(f"{name} {format_bytes(size)}" for name, size in live[:_TENSORS_NAMED])
    rest = ", ".join(
        f"{part} {format_bytes(size)}"
        for part, size in narrow.ram_parts.items()
        if size and part != "arena"
    )
    return DoesNotFit(
        f"{_at_least(problem, widths)} needs {format_bytes(needed)} of RAM; "
        f"{problem.profile.name}'s budget is {format_bytes(limit)} "
        f"({format_bytes(needed - limit)} over). At step {narrow.peak_step} the arena holds "
        f"{named or 'nothing'}; beside it {rest}.{_regions(problem, narrow)}",
        resource="ram",
        needed=needed,
        limit=limit,
        next_step=_raise_budget("ram", needed, problem.profile.ram_bytes),
    )


def _regions(problem: Problem, narrow: Prediction) -> str:
    """Where RAM comes in pieces too small, what they are."""
    if not narrow.unplaced_bytes:
        return ""
    rooms = ", ".join(
        f"{room.name} {format_bytes(room.size_bytes)}" for room in ram_rooms(problem.profile)
    )
    return f" Each tensor must lie in one of {rooms}."


def _ram_limit(problem: Problem) -> int:
    caps = [problem.budget.ram_bytes, problem.profile.ram_bytes]
    return min(cap for cap in caps if cap is not None)


def too_slow(problem: Problem, narrow: Prediction) -> DoesNotFit:
    """The latency budget against what the narrowest takes."""
    cap = problem.macs_limit() or 1.0
    limit_us = problem.budget.latency_us or 0.0
    needed_us = limit_us * narrow.macs / cap
    return DoesNotFit(
        f"Even at its narrowest the model takes an estimated {format_us(needed_us)} "
        f"({format_count(narrow.macs)} MACs); the budget is {format_us(limit_us)}.",
        resource="latency",
        needed=_whole(needed_us),
        limit=int(limit_us),
        unit="us",
        next_step=f"Allow {format_us(needed_us)} or choose a faster target.",
    )


def _together(problem: Problem, least: Prediction) -> DoesNotFit:
    """Each budget can be met alone, not both at once: the factors that save flash cost RAM."""
    limit = _ram_limit(problem)
    needed = _whole(limit + max(0.0, problem.ram_over(least)))
    return DoesNotFit(
        f"Flash and RAM can each be met, not both: at the least flash the model needs "
        f"{format_bytes(needed)} of RAM against {format_bytes(limit)}, at step {least.peak_step}.",
        resource="ram",
        needed=needed,
        limit=limit,
        next_step=_raise_budget("ram", needed, problem.profile.ram_bytes),
    )


def live_tensors(
    network: Network, widths: Mapping[str, int], step_name: str
) -> list[tuple[str, int]]:
    """(tensor, bytes) in the arena while a step runs, largest first."""
    index = next((i for i, step in enumerate(network.steps) if step.name == step_name), 0)
    live = [
        (name, size)
        for name, (size, first, last) in arena_lifetimes(network, widths).items()
        if first <= index <= last
    ]
    return sorted(live, key=lambda item: (-item[1], item[0]))


def _raise_budget(option: str, needed: int, on_device: int | None) -> str:
    """A larger budget helps only as far as the device goes."""
    if on_device is not None and needed > on_device:
        return f"Choose a target with {format_bytes(needed)} of {option}, or a smaller model."
    return f"The least that fits: --{option} {-(-needed // 1024)}K; or start from a smaller model."


def _at_least(problem: Problem, widths: Mapping[str, int]) -> str:
    """Begins the sentence: a model with nothing to narrow is told so."""
    if widths:
        return "Even at its narrowest the model"
    layers = sum(bool(step.layer) for step in problem.network.steps)
    return f"None of the model's {layers} layers can be narrowed; as it is, it"


def _whole(count: float) -> int:
    return int(-(-count // 1))
