"""Widths, ranks and bits jointly, as one mixed-integer linear program solved by HiGHS.

    minimise    sum of the damages of the chosen options - a little for each MAC used
    subject to  flash:  constants + code <= limit
                RAM:    live bytes at every step <= limit (offsets can need more; `search` checks)
                MACs:   optional cap

One binary a group and width, one a layer and way of keeping it (`LayerOption`: as it is, at a rank,
in another storage, or both). `plan.program` writes the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from edgecompress.plan.choices import Choices
from edgecompress.plan.network import Network
from edgecompress.plan.program import Program
from edgecompress.records import LowRank, WeightStorage

_RELATIVE_GAP = 2e-3
_NODE_LIMIT = 4_000
MACS_REWARD = 1e-3
"""Damage that using every MAC of the original is worth: it decides between equals, no more."""


@dataclass(frozen=True)
class Limits:
    """What is left for weights and their per-channel constants, for the arena, and for MACs.

    `extra_step_bytes` is the code each additional low-rank step costs; `macs_reward` the damage
    that using all of the original's MACs makes good; `macs_per_decoding` the MACs that each
    instruction of decoding takes the time of.
    """

    constant_bytes: float | None
    arena_bytes: float | None
    macs: float | None = None
    extra_step_bytes: int = 0
    macs_reward: float = MACS_REWARD
    macs_per_decoding: float = 1.0


@dataclass(frozen=True)
class Solution:
    widths: dict[str, int]
    low_rank: dict[str, LowRank]
    weights: dict[str, WeightStorage]
    damage: float


def solve(network: Network, choices: Choices, limits: Limits) -> Solution | None:
    """The least-damage choice within the limits, or None when there is none.

    Deterministic: the search stops by gap or by node count, never by the clock.
    """
    caps = (limits.constant_bytes, limits.arena_bytes, limits.macs)
    if any(cap is not None and cap < 0 for cap in caps):
        return None
    program = Program(network, choices)
    if limits.constant_bytes is not None:
        program.flash_row(limits.constant_bytes, limits.extra_step_bytes)
    if limits.arena_bytes is not None:
        program.memory_rows(limits.arena_bytes)
    program.macs_row(limits.macs, limits.macs_reward, limits.macs_per_decoding)
    entries = [
        (row, column, value)
        for row, (terms, _, _) in enumerate(program.rows)
        for column, value in terms.items()
    ]
    rows, columns, values = (list(item) for item in zip(*entries, strict=True))
    shape = (len(program.rows), len(program.objective))
    result = milp(
        np.array(program.objective),
        constraints=LinearConstraint(
            coo_array((values, (rows, columns)), shape=shape).tocsr(),
            np.array([low for _, low, _ in program.rows]),  # type: ignore[arg-type]
            np.array([high for _, _, high in program.rows]),  # type: ignore[arg-type]
        ),
        integrality=np.array(program.integral),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": _RELATIVE_GAP, "node_limit": _NODE_LIMIT},
    )
    if result.x is None:
        return None
    return _read(program, choices, result.x)


def _read(program: Program, choices: Choices, x: np.ndarray) -> Solution:
    widths: dict[str, int] = {}
    damage = 0.0
    for group, columns in program.width_columns.items():
        chosen = int(np.argmax(x[columns]))
        widths[group] = choices.widths[group][chosen]
        damage += choices.width_damage[group][chosen]
    low_rank: dict[str, LowRank] = {}
    weights: dict[str, WeightStorage] = {}
    for layer, layered in program.layered.items():
        option = layered.options[int(np.argmax(x[layered.chosen]))]
        damage += option.damage
        if option.low_rank is not None:
            low_rank[layer] = option.low_rank
        if option.weights is not None:
            weights[layer] = option.weights
    return Solution(widths, low_rank, weights, damage)
