from __future__ import annotations

import math

import pytest
import torch
from small_networks import Residual, seeded

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.groups import find_groups
from edgecompress.errors import BadInput
from edgecompress.records import Budget, LowRank, Plan, Prediction, WeightStorage


def plan(
    widths: dict[str, int],
    low_rank: dict[str, LowRank],
    weights: dict[str, WeightStorage] | None = None,
) -> Plan:
    return Plan(
        model_hash="", data_hash="", target="cortex-m7", budget=Budget(), seed=0, effort="fast",
        widths=widths, low_rank=low_rank, weights=weights or {},
        predicted=Prediction(flash_bytes=0, ram_bytes=0),
    )  # fmt: skip


X = torch.randn(96, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_widths_and_ranks_are_both_carried_out() -> None:
    choices = plan({"stem": 5, "conv3": 9}, {"conv3": LowRank(method="tucker2", ranks=(3, 4))})
    graph = apply_plan(seeded(Residual), choices, X).graph
    assert graph.get_submodule("skip").weight.shape == (9, 5, 1, 1)
    assert graph.get_submodule("conv3_core").weight.shape == (4, 3, 3, 3)
    assert graph.get_submodule("conv3_last").weight.shape == (9, 4, 1, 1)


def test_an_empty_plan_changes_nothing() -> None:
    before = seeded(Residual)
    assert torch.equal(apply_plan(before, plan({}, {}), X).graph(X), before.graph(X))


def test_batchnorm_fits_what_the_pruned_network_sees() -> None:
    after = apply_plan(seeded(Residual), plan({"stem": 4}, {}), X)
    seen: list[torch.Tensor] = []
    conv3 = after.graph.get_submodule("conv3")
    conv3.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    after.graph(X)
    torch.testing.assert_close(
        after.graph.get_submodule("norm3").running_mean,
        seen[0].mean((0, 2, 3)),
        rtol=1e-3,
        atol=1e-3,
    )
    assert {group.name: group.channels for group in find_groups(after)}["stem"] == 4


def test_a_rank_the_pruned_layer_does_not_have_is_refused() -> None:
    choices = plan({"stem": 2}, {"conv3": LowRank(method="tucker2", ranks=(3, 4))})
    with pytest.raises(BadInput, match=r"rank 3 is not in 1\.\.2"):
        apply_plan(seeded(Residual), choices, X)


def test_sparse_layers_are_zeroed_last_and_factors_with_them() -> None:
    """The layer is pruned and factorized; its three factors carry the sparsity of its name."""
    choices = plan(
        {"stem": 5, "conv3": 9},
        {"conv3": LowRank(method="tucker2", ranks=(3, 4))},
        {
            "conv3": WeightStorage(format="sparse", sparsity=0.5),
            "conv1": WeightStorage(format="sparse", sparsity=0.75),
            "conv2": WeightStorage(format="int4"),
        },
    )
    graph = apply_plan(seeded(Residual), choices, X).graph
    for name, sparsity in (("conv1", 0.75), ("conv3_first", 0.5), ("conv3_core", 0.5)):
        weight = graph.get_submodule(name).weight
        assert int((weight == 0).sum()) == math.ceil(weight.numel() * sparsity)
    for name in ("conv2", "skip", "head"):
        assert bool((graph.get_submodule(name).weight != 0).all())


def test_repair_brings_the_pruned_network_closer() -> None:
    before, choices = seeded(Residual), plan({"stem": 4, "conv1": 4, "conv3": 8}, {})
    bare, repaired = (apply_plan(before, choices, X, repaired=way) for way in (False, True))
    wanted = before.graph(X)
    errors = [(model.graph(X) - wanted).square().mean().item() for model in (bare, repaired)]
    assert errors[1] < 0.7 * errors[0]


def test_a_sparsity_of_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadInput, match="no layer 'conv9' whose weights could be sparse"):
        apply_plan(
            seeded(Residual),
            plan({}, {}, {"conv9": WeightStorage(format="sparse", sparsity=0.5)}),
            X,
        )
