from __future__ import annotations

import itertools

import pytest

from edgecompress.compress.groups import find_groups
from edgecompress.plan.candidates import Problem, optimum, propose
from edgecompress.plan.network import read_network
from edgecompress.plan.solve import Choices, Limits, solve
from edgecompress.records import Budget, LowRank
from edgecompress.target import load_target

PROFILE = load_target("cortex-m7")
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


def least_damage(problem: Problem, choices: Choices) -> float | None:
    """Brute force over every combination, by the exact accounts."""
    best = None
    options = [range(len(choices.widths[group])) for group in choices.widths]
    for picked in itertools.product(*options):
        widths = {
            group: choices.widths[group][index]
            for group, index in zip(choices.widths, picked, strict=True)
        }
        damage = sum(
            choices.width_damage[group][index]
            for group, index in zip(choices.widths, picked, strict=True)
        )
        for rank in range(-1, len(choices.ranks.get("conv1", ()))):
            choice = {} if rank < 0 else {"conv1": choices.ranks["conv1"][rank]}
            if choice and (
                choice["conv1"].ranks[0] > widths["stem"]
                or choice["conv1"].ranks[1] > widths["conv1"]
            ):
                continue
            total = damage + (0.0 if rank < 0 else choices.rank_damage["conv1"][rank])
            if problem.fits(problem.predict(widths, choice)) and (best is None or total < best):
                best = total
    return best


@pytest.mark.parametrize("flash", [14_400, 13_600, 13_200, 12_900, 12_600, 12_300])
@pytest.mark.parametrize("ram", [3_000, 2_200, 1_700])
def test_the_optimum_is_the_brute_force_one(residual, flash, ram):
    problem = problem_of(residual, flash_bytes=flash, ram_bytes=ram)
    expected = least_damage(problem, CHOICES)
    found = optimum(problem, CHOICES, "joint")
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert problem.fits(found.predicted)
    damage = sum(
        CHOICES.width_damage[group][CHOICES.widths[group].index(width)]
        for group, width in found.widths.items()
    ) + sum(
        CHOICES.rank_damage[layer][CHOICES.ranks[layer].index(choice)]
        for layer, choice in found.low_rank.items()
    )
    # alignment and code are rounded in the program's rows: at most one step worse
    assert expected <= damage + 1e-9
    assert damage <= expected + 0.25


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


def test_negative_limits_have_no_solution(residual):
    network = read_network(residual, find_groups(residual))
    assert solve(network, CHOICES, Limits(-1.0, None)) is None


def test_every_candidate_fits_and_all_differ(residual):
    problem = problem_of(residual, flash_bytes=13_200, ram_bytes=2_600)
    candidates = propose(problem, CHOICES)
    assert 1 <= len(candidates) <= 3
    assert all(problem.fits(candidate.predicted) for candidate in candidates)
    chosen = [(sorted(c.widths.items()), sorted(c.low_rank)) for c in candidates]
    assert all(one != other for one, other in itertools.combinations(chosen, 2))
