"""A latency budget is planned for by prediction and corrected by an image that ran."""

from __future__ import annotations

import pytest

from edgecompress.plan.candidates import Problem
from edgecompress.plan.code_size import code_table
from edgecompress.plan.latency import TIME, predicted_us, time_correction
from edgecompress.plan.network import prunable_groups, read_network
from edgecompress.plan.search import search
from edgecompress.records import Budget, LatencyUse, Prediction
from edgecompress.rounds import _slower_than_predicted
from edgecompress.target import load_target

PROFILE = load_target("cortex-m4")


def test_the_prediction_counts_what_decoding_takes():
    core = PROFILE.core
    assert core.cycles_per_instruction is not None
    plain = Prediction(flash_bytes=1, ram_bytes=1, macs=1_000_000)
    coded = plain.model_copy(update={"decoding_instructions": 250_000})
    per_instruction = core.cycles_per_instruction[1] / core.clock_hz * 1e6
    assert predicted_us(plain, PROFILE) == pytest.approx(
        1e6 * code_table(PROFILE).instructions_per_mac * per_instruction
    )
    more = predicted_us(coded, PROFILE) - predicted_us(plain, PROFILE)
    assert more == pytest.approx(250_000 * per_instruction)
    assert predicted_us(plain, load_target("x86-64")) is None


def test_an_image_twice_as_slow_halves_what_the_next_plan_may_compute(residual):
    latency = LatencyUse(used_us=900, budget_us=500, predicted_us=450, label="estimate")
    corrections = _slower_than_predicted(latency)
    assert corrections == {TIME: 2.0}
    assert time_correction({"flash.kernels": 1.1, **corrections}) == {TIME: 2.0}
    network = read_network(residual, prunable_groups(residual))
    budget = Budget(latency_us=500)
    before = Problem(network, PROFILE, budget, {}).macs_limit()
    assert Problem(network, PROFILE, budget, corrections).macs_limit() == pytest.approx(before / 2)


def test_the_search_keeps_to_it(residual, splits):
    """The correction survives the search's own: it learns the rest anew from the compiler."""
    whole = Prediction(flash_bytes=1, ram_bytes=1, macs=100_000)
    budget = Budget(latency_us=predicted_us(whole, PROFILE))

    def macs(corrections: dict[str, float]) -> int:
        found = search(
            residual, splits, PROFILE, budget, model_hash="1" * 64, corrections=corrections,
            names=("uniform",),
        )  # fmt: skip
        return found.plan.predicted.macs

    assert 50_000 < macs({}) <= 100_000
    assert macs({TIME: 2.0}) <= 50_000


def test_no_budget_nothing_learnt():
    assert _slower_than_predicted(None) == {}
    unknown = LatencyUse(used_us=9, budget_us=5, predicted_us=None, label="measured")
    assert _slower_than_predicted(unknown) == {}
