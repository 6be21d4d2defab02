from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from edgecompress.compress.lowrank import choose_ranks, factorize, observe_all, ranks_at_energies
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable
from edgecompress.plan.candidates import (
    LOW_RANK,
    LOW_RANK_INT4,
    UNIFORM,
    Candidate,
    Problem,
    int4_layers,
)
from edgecompress.plan.code_size import code_table
from edgecompress.plan.low_rank import low_rank_candidates
from edgecompress.plan.network import read_network
from edgecompress.plan.search import Found, search
from edgecompress.plan.trials import MemoryStore
from edgecompress.records import Budget, Prediction, WeightStorage
from edgecompress.target import load_target

PROFILE = load_target("cortex-m7")
ROOMY = Budget(flash_bytes=16_000)


class LowRankNet(nn.Module):
    """1 -> c -> c -> c -> 3 on 8x8 images; the two wide layers are of so low a spatial rank."""

    def __init__(self, channels: int = 32, rank: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.wide1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.wide2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, 3)
        for layer in (self.wide1, self.wide2):
            tall, wide = torch.randn(channels, 3, rank), torch.randn(channels, 3, rank)
            with torch.no_grad():
                layer.weight.copy_(torch.einsum("ihr,owr->oihw", tall, wide) / 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu2(self.wide2(self.relu1(self.wide1(self.relu(self.stem(x))))))
        return self.head(torch.flatten(self.pool(x), 1))


@pytest.fixture
def low_rank_net(as_trainable) -> Trainable:
    torch.manual_seed(0)
    return as_trainable(LowRankNet(), (1, 1, 8, 8))


@pytest.fixture
def answered(low_rank_net, splits) -> Splits:
    """Images whose labels are the network's own answers, about as often each."""
    net = low_rank_net.graph
    with torch.no_grad():
        outputs = net(torch.from_numpy(splits.train.x))
        head = net.get_submodule("head")
        head.bias -= outputs.mean(0)

        def labelled(data: Dataset) -> Dataset:
            return Dataset(data.x, net(torch.from_numpy(data.x)).argmax(1).numpy())

        return replace(splits, train=labelled(splits.train), validation=labelled(splits.validation))


def searched(
    trainable: Trainable, splits: Splits, budget: Budget, store: MemoryStore | None = None
) -> Found:
    return search(
        trainable, splits, PROFILE, budget, model_hash="1" * 64,
        names=(UNIFORM, LOW_RANK), store=store,
    )  # fmt: skip


def test_it_wins_where_the_layers_really_are_of_low_rank(low_rank_net, answered):
    store = MemoryStore()
    found = searched(low_rank_net, answered, ROOMY, store)
    scores = {trial.name: trial.score for trial in found.trials}
    assert scores.keys() == {UNIFORM, LOW_RANK}
    assert scores[LOW_RANK].order > scores[UNIFORM].order
    assert {"wide1", "wide2"} <= found.plan.low_rank.keys()
    assert found.plan.widths == {}
    assert found.plan.predicted.flash_bytes <= 16_000
    assert searched(low_rank_net, answered, ROOMY, store) == found


def test_where_compute_binds_its_largest_layers_in_four_bits_compete(as_trainable, splits):
    """Bytes buy nothing there, so a quarter of the flash is worth saving: by the table's account,
    in as few layers as do it."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 640), nn.ReLU()]
    net = as_trainable(nn.Sequential(*layers, nn.Linear(640, 4), nn.Linear(4, 3)), (1, 1, 8, 8))
    x, network = torch.from_numpy(splits.train.x), read_network(net)
    free = Problem(network, PROFILE, Budget(), {})
    core, table = PROFILE.core, code_table(PROFILE)
    instructions = 0.6 * free.predict({}).macs * table.instructions_per_mac
    cycles = instructions * core.cycles_per_instruction[1]
    problem = replace(free, budget=Budget(latency_us=cycles / core.clock_hz * 1e6))
    whole = problem.predict({})
    assert problem.compute_binds(whole)
    compiled = []

    def exact(item: Candidate) -> Prediction:
        compiled.append(problem.predict(item.widths, item.low_rank, item.weights))
        return compiled[-1]

    int8, int4 = low_rank_candidates(
        net, observe_all(net, x), problem, whole, (WeightStorage(format="int4"),), exact
    )
    assert (int8.name, int4.name) == (LOW_RANK, LOW_RANK_INT4)
    assert int8.weights == {}
    assert set(int4_layers(network)) == {"3", "5"}
    assert set(int4.weights) == {"3"}
    assert problem.fits_exactly(int4.predicted)
    assert int4.predicted.decoding_instructions > 0
    assert int4.predicted.flash_bytes < int8.predicted.flash_bytes
    # MACs say where to look: a bisection of 96 energies would compile six of each
    assert len(compiled) <= 4


def test_it_is_not_proposed_where_no_layer_gains_enough_by_it(residual, splits):
    found = searched(residual, splits, Budget(flash_bytes=13_300, ram_bytes=2_300))
    assert found.plan.low_rank == {}
    assert found.plan.widths


def test_a_ladder_of_energies_chooses_what_each_energy_alone_does(residual, splits):
    x = torch.from_numpy(splits.train.x[:64])
    energies = (0.999, 0.95, 0.6)
    assert ranks_at_energies(residual, energies, observe_all(residual, x)) == [
        choose_ranks(residual, energy, calibration=x) for energy in energies
    ]


def test_moments_taken_of_all_layers_at_once_give_the_same_factors(residual, splits):
    x = torch.from_numpy(splits.train.x[:64])
    for chosen in ranks_at_energies(residual, (0.95, 0.6), observe_all(residual, x)):
        assert chosen
        once = factorize(residual, chosen, x, observe_all(residual, x)).graph
        each = factorize(residual, chosen, x).graph
        assert all(map(torch.equal, once.parameters(), each.parameters()))
