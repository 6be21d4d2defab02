from __future__ import annotations

import pytest
import torch
from small_networks import Residual, seeded

from edgecompress.compress.apply import apply_plan
from edgecompress.compress.groups import find_groups
from edgecompress.errors import BadInput
from edgecompress.records import Budget, LowRank, Plan, Prediction


def plan(widths: dict[str, int], low_rank: dict[str, LowRank]) -> Plan:
    return Plan(
        model_hash="", data_hash="", target="cortex-m7", budget=Budget(), seed=0, effort="fast",
        widths=widths, low_rank=low_rank, predicted=Prediction(flash_bytes=0, ram_bytes=0),
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
