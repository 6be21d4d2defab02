"""How long the planner's program takes to solve on a MobileNetV2 of full width.

    python tools/bench/milp.py [--side 224] [--target cortex-m7] [--json]

The network is `networks.mobilenet_v2` with the widths of Sandler et al. (2018, table 2), its
damages measured on random inputs. Budgets are shares of what the network takes as int8. A line a
budget: seconds of the first program and of `optimum`, which solves it again until the exact
accounts agree, and how much of the network the plan keeps. Limit: ten seconds a program.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import networks
import torch
from planner import latency_of

from edgecompress.errors import EdgeCompressError
from edgecompress.model.load import load_source
from edgecompress.model.trainable import Trainable, to_trainable
from edgecompress.plan.candidates import JOINT, Problem, first_limits, optimum
from edgecompress.plan.formats import encoded_formats
from edgecompress.plan.network import prunable_groups, read_network
from edgecompress.plan.sensitivity import measure
from edgecompress.plan.solve import solve
from edgecompress.progress import SILENT
from edgecompress.records import Budget, Prediction
from edgecompress.target import DeviceProfile, load_target

STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
LAST = 1280
_ROOM = 1 << 26
SHARES: dict[str, dict[str, float]] = {
    "50 % flash": {"flash": 0.5},
    "25 % flash": {"flash": 0.25},
    "70 % RAM": {"ram": 0.7},
    "half of all": {"flash": 0.5, "ram": 0.7, "macs": 0.5},
}


def network() -> torch.nn.Module:
    return networks.mobilenet_v2(96, STAGES, LAST)


def budget_of(shares: dict[str, float], whole: Prediction, profile: DeviceProfile) -> Budget:
    """The shares of what the whole network takes."""
    flash = int(shares["flash"] * whole.flash_bytes) if "flash" in shares else None
    ram = int(shares["ram"] * whole.ram_bytes) if "ram" in shares else None
    latency_us = latency_of(profile, int(shares["macs"] * whole.macs)) if "macs" in shares else None
    return Budget(flash_bytes=flash, ram_bytes=ram, latency_us=latency_us)


def roomy(profile: DeviceProfile) -> DeviceProfile:
    """The device with memories that hold all of the network: budgets are shares of it."""
    regions = tuple(region.model_copy(update={"size": _ROOM}) for region in profile.regions)
    return profile.model_copy(update={"regions": regions})


def solved(trainable: Trainable, target: str, x: torch.Tensor) -> list[dict[str, Any]]:
    """Measures once, then solves for every budget; x: [N, 3, side, side] float32."""
    groups = prunable_groups(trainable)
    net = read_network(trainable, groups)
    profile = roomy(load_target(target))
    whole = Problem(net, profile, Budget(), {}).predict({})
    before = time.perf_counter()
    choices = measure(trainable, net, groups, x, SILENT, encoded_formats(profile))
    measured_s = time.perf_counter() - before
    rows = []
    for name, shares in SHARES.items():
        problem = Problem(net, profile, budget_of(shares, whole, profile), {})
        started = time.perf_counter()
        solve(net, choices, first_limits(problem))
        once = time.perf_counter()
        found = optimum(problem, choices, JOINT)
        done = time.perf_counter()
        rows.append({
            "budget": name, "groups": len(groups), "macs": whole.macs,
            "measured_s": round(measured_s, 1), "program_s": round(once - started, 2),
            "optimum_s": round(done - once, 2), "fits": found is not None,
            "flash_share": None if found is None else share(found.predicted, whole, "flash_bytes"),
            "macs_share": None if found is None else share(found.predicted, whole, "macs"),
        })  # fmt: skip
    return rows


def share(ours: Prediction, whole: Prediction, field: str) -> float:
    return round(getattr(ours, field) / getattr(whole, field), 3)


def as_text(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    lines = [
        f"{first['groups']} groups, {first['macs'] / 1e6:.0f} M MACs; measured in "
        f"{first['measured_s']} s",
        f"{'budget':14}{'program s':>10}{'optimum s':>10}{'flash':>8}{'MACs':>8}",
    ]
    for row in rows:
        kept = "  nothing fits"
        if row["fits"]:
            kept = f"{row['flash_share']:8.1%}{row['macs_share']:8.1%}"
        lines.append(f"{row['budget']:14}{row['program_s']:10.2f}{row['optimum_s']:10.2f}{kept}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--target", default="cortex-m7")
    parser.add_argument("--samples", type=int, default=4, help="random inputs to measure with")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    shape = (1, 3, options.side, options.side)
    trainable = to_trainable(load_source("milp:network", input_shape=shape))
    try:
        rows = solved(trainable, options.target, torch.randn(options.samples, *shape[1:]))
    except EdgeCompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(rows, indent=2) if options.json else as_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
