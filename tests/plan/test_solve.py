from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edgecompress.compress.groups import find_groups
from edgecompress.plan.candidates import Candidate, Problem, first_limits, optimum, propose
from edgecompress.plan.choices import Choices
from edgecompress.plan.code_size import code_table
from edgecompress.plan.latency import DECODING
from edgecompress.plan.made import Made, learned_from
from edgecompress.plan.network import read_network
from edgecompress.plan.solve import Limits, solve
from edgecompress.records import Budget, LowRank, WeightStorage
from edgecompress.target import load_target

PROFILE = load_target("cortex-m7")
INT4 = WeightStorage(format="int4")
CHOICES = Choices(
    widths={"stem": (4, 5, 6, 8), "conv1": (4, 8, 12, 16)},
    width_damage={"stem": (1.0, 0.5, 0.1, 0.0), "conv1": (0.9, 0.3, 0.2, 0.0)},
    ranks={
        "conv1": (LowRank(method="tucker2", ranks=(4, 8)), LowRank(method="tucker2", ranks=(4, 4)))
    },
    rank_damage={"conv1": (0.05, 0.25)},
)


def problem_of(trainable, **budget) -> Problem:
    network = read_network(trainable, find_groups(trainable))
    return Problem(network, PROFILE, Budget(**budget), {})


def smaller_by(trainable, saved: int, **budget) -> Problem:
    """A flash budget of so many bytes less than the network needs (its reserve included)."""
    problem = problem_of(trainable)
    whole = problem.predict({})
    flash = whole.flash_bytes + int(problem.flash_reserve(whole)) + 1 - saved
    return problem_of(trainable, flash_bytes=flash, **budget)


WITH_BITS = CHOICES.model_copy(
    update={
        "formats": {
            "conv1": (INT4,),
            "conv2": (INT4, WeightStorage(format="sparse", sparsity=0.75)),
        },
        "format_damage": {"conv1": (0.08,), "conv2": (0.15, 0.4)},
        "storages": (INT4,),
    }
)


def every_choice(choices: Choices) -> Iterator[tuple[float, dict, dict, dict]]:
    """(damage, widths, ranks, weights) of every combination that can exist."""
    options = [
        list(zip(choices.widths[group], choices.width_damage[group], strict=True))
        for group in choices.widths
    ]
    layers = choices.layers()
    for picked in itertools.product(*options):
        widths = {group: width for group, (width, _) in zip(choices.widths, picked, strict=True)}
        for kept in itertools.product(*layers.values()):
            named = dict(zip(layers, kept, strict=True))
            ranks = {layer: o.low_rank for layer, o in named.items() if o.low_rank}
            weights = {layer: o.weights for layer, o in named.items() if o.weights}
            conv1 = ranks.get("conv1")
            if conv1 and (conv1.ranks[0] > widths["stem"] or conv1.ranks[1] > widths["conv1"]):
                continue
            damage = sum(d for _, d in picked) + sum(o.damage for o in kept)
            yield damage, widths, ranks, weights


@pytest.mark.parametrize("choices", [CHOICES, WITH_BITS], ids=["int8", "bits"])
@pytest.mark.parametrize("saved", [0, 500, 1_000, 1_500, 2_000])
@pytest.mark.parametrize("ram", [3_000, 1_700])
def test_the_optimum_is_the_brute_force_one(residual, saved, ram, choices):
    problem = smaller_by(residual, saved, ram_bytes=ram)
    fitting = [
        damage
        for damage, *chosen in every_choice(choices)
        if problem.fits(problem.predict(*chosen))
    ]
    found = optimum(problem, choices, "joint")
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert problem.fits(found.predicted)
    (damage,) = (
        damage
        for damage, *chosen in every_choice(choices)
        if chosen == [found.widths, found.low_rank, found.weights]
    )
    # alignment and code are rounded in the program's rows: at most one step worse
    assert min(fitting) <= damage + 1e-9
    assert damage <= min(fitting) + 0.25


def test_bits_are_bought_before_width(residual):
    """int4 saves as much as half the channels and costs a tenth of the damage."""
    problem = smaller_by(residual, 1_000)
    found = optimum(problem, WITH_BITS, "joint")
    assert found is not None
    assert found.weights
    without = optimum(problem, CHOICES, "joint")
    assert without is not None
    assert sum(found.widths.values()) > sum(without.widths.values())


def test_most_compute_uses_at_least_as_many_macs(residual):
    problem = smaller_by(residual, 1_000, ram_bytes=2_600)
    most = optimum(problem, WITH_BITS, "most compute", macs_reward=100.0)
    usual = optimum(problem, WITH_BITS, "joint")
    assert most is not None
    assert usual is not None
    assert problem.fits(most.predicted)
    assert most.predicted.macs >= usual.predicted.macs


def test_without_limits_nothing_changes(residual):
    network = read_network(residual, find_groups(residual))
    found = solve(network, CHOICES, Limits(None, None))
    assert found is not None
    assert (found.widths, found.low_rank, found.damage) == ({"stem": 8, "conv1": 16}, {}, 0.0)


def test_a_macs_limit_holds(residual):
    network = read_network(residual, find_groups(residual))
    problem = problem_of(residual)
    found = solve(network, CHOICES.without_ranks(), Limits(None, None, macs=80_000))
    assert found is not None
    assert problem.predict(found.widths).macs <= 80_000


@pytest.mark.parametrize("share", [1.0, 0.9, 0.7])
@pytest.mark.parametrize("saved", [0, 1_000])
def test_under_a_latency_budget_decoding_counts(residual, saved, share):
    """The row of MACs holds what four-bit and sparse weights take to decode: brute force agrees."""
    whole = problem_of(residual).predict({})
    core, table = PROFILE.core, code_table(PROFILE)
    instructions = (share * whole.macs + 1) * table.instructions_per_mac
    latency_us = instructions * core.cycles_per_instruction[1] / core.clock_hz * 1e6
    problem = smaller_by(residual, saved, latency_us=latency_us)
    fitting = [
        damage
        for damage, *chosen in every_choice(WITH_BITS)
        if problem.fits(problem.predict(*chosen))
    ]
    found = optimum(problem, WITH_BITS, "joint")
    assert found is not None
    predicted = found.predicted
    decoding = predicted.decoding_instructions / table.instructions_per_mac
    assert predicted.macs + decoding <= share * whole.macs + 1
    assert bool(predicted.decoding_instructions) == bool(found.weights)
    (damage,) = (
        damage
        for damage, *chosen in every_choice(WITH_BITS)
        if chosen == [found.widths, found.low_rank, found.weights]
    )
    assert min(fitting) <= damage + 1e-9
    assert damage <= min(fitting) + 0.25


def latency_for(macs: float) -> float:
    """Microseconds of so many MACs, by the planner's own table."""
    core = PROFILE.core
    instructions = macs * code_table(PROFILE).instructions_per_mac
    return instructions * core.cycles_per_instruction[1] / core.clock_hz * 1e6


def test_where_compute_binds_a_smaller_plan_is_proposed_and_sizes_count(residual):
    whole = problem_of(residual).predict({})
    tight = problem_of(residual, latency_us=latency_for(0.6 * whole.macs))
    found = {candidate.name: candidate.predicted for candidate in propose(tight, WITH_BITS)}
    joint, saved = found["joint"], found["joint"].flash_bytes - found["small"].flash_bytes
    assert saved >= min(0.25 * joint.flash_bytes, 0.5 * joint.flash_parts["weights"])
    assert tight.macs_over(found["small"]) <= 0
    sizes = tight.sizes_where_compute_binds(whole, [found["joint"], found["small"], whole])
    assert sizes is not None
    assert sizes[1] < sizes[0]
    assert sizes[2] == 2.0


def test_decoding_is_planned_as_the_compiler_has_shown_it(residual):
    """What a candidate decodes beyond the table tightens the next one's row of MACs."""
    problem = problem_of(residual)
    stored = {"conv1": INT4}
    guessed = problem.predict({}, None, stored)
    assert guessed.decoding_instructions > 0
    dearer = guessed.model_copy(update={"decoding_instructions": 3 * guessed.decoding_instructions})
    candidate = Candidate("joint", {}, {}, guessed, stored)
    learned = learned_from(problem, candidate, dearer)
    assert learned.predict({}, None, stored).decoding_instructions == pytest.approx(
        dearer.decoding_instructions, abs=1
    )
    assert learned.predict({}).decoding_instructions == 0
    per_decoding = [first_limits(item).macs_per_decoding for item in (problem, learned)]
    assert per_decoding[1] == pytest.approx(3 * per_decoding[0])
    again = learned_from(learned, replace(candidate, predicted=dearer), dearer)
    assert again.corrections == pytest.approx(learned.corrections)


def test_what_decoding_took_is_told_to_the_next_candidate_where_time_is_limited(residual):
    stored = {"conv1": INT4}
    for latency_us, told in ((1e6, 3.0), (None, 1.0)):
        problem = problem_of(residual, latency_us=latency_us)
        guessed = problem.predict({}, None, stored)
        update = {
            "decoding_instructions": 3 * guessed.decoding_instructions,
            "flash_bytes": 1 << 30,
        }
        made = Made(Candidate("joint", {}, {}, guessed, stored), problem,
                    guessed.model_copy(update=update))  # fmt: skip
        assert not made.fits
        following = made.for_the_next(problem)
        assert following.corrections.get(DECODING, 1.0) == pytest.approx(told, rel=0.01)
        assert {**following.corrections, DECODING: 0} == {**problem.corrections, DECODING: 0}


def test_the_programs_macs_are_the_accounts_pooled_sums_too(residual):
    """One MAC less than the whole model has: a row that forgot the mean would change nothing."""
    whole = problem_of(residual).predict({})
    tight = problem_of(residual, latency_us=latency_for(whole.macs - 1))
    found = optimum(tight, CHOICES, "joint")
    assert found is not None
    assert found.predicted.macs < whole.macs


def test_where_compute_does_not_bind_bytes_are_there_to_be_used(residual):
    whole = problem_of(residual).predict({})
    loose = smaller_by(residual, 1_000, latency_us=latency_for(2 * whole.macs))
    assert "small" not in [candidate.name for candidate in propose(loose, WITH_BITS)]
    assert loose.sizes_where_compute_binds(whole, [whole]) is None


def test_negative_limits_have_no_solution(residual):
    network = read_network(residual, find_groups(residual))
    assert solve(network, CHOICES, Limits(-1.0, None)) is None


def test_every_candidate_fits_and_all_differ(residual):
    problem = smaller_by(residual, 800, ram_bytes=2_600)
    candidates = propose(problem, CHOICES)
    assert 1 <= len(candidates) <= 5
    assert all(problem.fits(candidate.predicted) for candidate in candidates)
    chosen = [(sorted(c.widths.items()), sorted(c.low_rank)) for c in candidates]
    assert all(one != other for one, other in itertools.combinations(chosen, 2))
