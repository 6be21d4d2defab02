"""Where low rank wins: dense networks on real data, every candidate trained equally, JSON rows.

    ./tools/run python tools/bench/low_rank.py --seeds 0,1,2 > rows.jsonl

    fashion  784-512-512-10 classifier of Fashion-MNIST
    hapt     768-256-256-12 classifier of activity windows, the test users never seen
    fsdd     490-128-128-128-8-128-128-128-490 autoencoder of spoken digits' MFCC: the form of
             MLPerf Tiny's anomaly detector

Each network is planned at a share of its int8 flash. Every candidate the search judged is then
trained for the same number of steps and quantized; `test` is top-1 in percent, of the autoencoder
the share of its inputs' variance explained, in percent.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

sys.path.insert(0, str(Path(__file__).parent))

import planner_data

from edgecompress.compress.quantize import quantize
from edgecompress.model.data import Dataset, Splits
from edgecompress.model.reference import run_onnx
from edgecompress.model.trainable import Trainable
from edgecompress.plan.account import Account
from edgecompress.plan.last_resort import find_plan
from edgecompress.plan.realize import realize
from edgecompress.plan.scores import Scorer
from edgecompress.plan.trials import calibration_samples
from edgecompress.records import Budget, Plan
from edgecompress.target import load_target

NETWORKS = {
    "fashion": (784, 512, 512, 10),
    "hapt": (768, 256, 256, 12),
    "fsdd": (490, 128, 128, 128, 8, 128, 128, 128, 490),
}
_SAMPLES, _STEPS, _BATCH, _RATE = 8000, 1500, 64, 1e-3


def flat(name: str) -> Splits:
    """The data set as rows of standardized features; labels are left out for the autoencoder."""
    loaded = planner_data.load(name, _SAMPLES)
    mean = loaded.train.x.mean(0, keepdims=True)
    scale = loaded.train.x.std() + 1e-6

    def part(data: Dataset) -> Dataset:
        x = np.ascontiguousarray(((data.x - mean) / scale).reshape(len(data), -1), np.float32)
        return Dataset(x, None if name == "fsdd" else data.y)

    parts = {key: part(getattr(loaded, key)) for key in ("train", "validation", "test")}
    return replace(loaded, **parts)


def trained(name: str, splits: Splits, seed: int) -> Trainable:
    torch.manual_seed(seed)
    widths = NETWORKS[name]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    network = nn.Sequential(*layers[:-1]).train()
    x = torch.from_numpy(splits.train.x)
    y = x if splits.train.y is None else torch.from_numpy(splits.train.y)
    loss = nn.functional.mse_loss if splits.train.y is None else nn.functional.cross_entropy
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(0, len(x), (_BATCH,))
        optimizer.zero_grad()
        loss(network(x[rows]), y[rows]).backward()
        optimizer.step()
        decay.step()
    graph = fx.symbolic_trace(network.eval())
    return Trainable(graph, torch.zeros(1, widths[0]), "x", "y")


def tested(outputs: np.ndarray, splits: Splits) -> float:
    x, y = splits.test.x, splits.test.y
    if y is not None:
        return 100.0 * float((outputs.argmax(1) == y).mean())
    return 100.0 * (1.0 - float(np.mean((outputs.reshape(x.shape) - x) ** 2)) / float(x.var()))


def rows_of(name: str, share: float, seed: int, steps: int, target: str) -> Iterator[dict]:
    """A row for the source and one for each candidate, the chosen one marked."""
    profile, splits = load_target(target), flat(name)
    source = trained(name, splits, seed)
    whole = Account(profile, Budget(), splits.train.x, {}, "balanced").of(source)
    budget = Budget(flash_bytes=int(share * whole.flash_bytes))
    common = {"dataset": name, "share": share, "seed": seed, "target": target}
    with torch.no_grad():
        made = source.graph(torch.from_numpy(splits.test.x)).numpy()
    yield {**common, "candidate": "source", "flash_bytes": whole.flash_bytes, "macs": whole.macs,
           "test": round(tested(made, splits), 2)}  # fmt: skip
    found = find_plan(source, splits, profile, budget, model_hash="0" * 64, seed=seed)
    scorer = Scorer.of_source(source, splits)
    for trial in found.trials:
        plan: Plan = trial.plan.model_copy(update={"finetune_steps": steps})
        student = realize(source, plan, splits)
        samples = calibration_samples(splits, seed).numpy()
        deployable = quantize(student, samples, name="candidate", weights=plan.weights)
        made = np.asarray(run_onnx(deployable, splits.test.x))
        chosen: Any = found.plan
        same = (plan.widths, plan.low_rank, plan.weights, plan.student) == (
            chosen.widths, chosen.low_rank, chosen.weights, chosen.student,
        )  # fmt: skip
        yield {**common, "candidate": trial.name, "chosen": same, "metric": scorer.metric,
               "judged": trial.score.value, "flash_bytes": plan.predicted.flash_bytes,
               "macs": plan.predicted.macs, "low_rank_layers": len(plan.low_rank),
               "int4_layers": len(plan.weights), "steps": steps,
               "test": round(tested(made, splits), 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default=",".join(NETWORKS))
    parser.add_argument("--shares", default="0.25,0.125")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--target", default="cortex-m4")
    asked = parser.parse_args()
    for name in asked.datasets.split(","):
        for share in map(float, asked.shares.split(",")):
            for seed in map(int, asked.seeds.split(",")):
                for row in rows_of(name, share, seed, asked.steps, asked.target):
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
