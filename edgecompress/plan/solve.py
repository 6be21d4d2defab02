"""Widths and ranks jointly, as one mixed-integer linear program solved by HiGHS.

    minimise    sum of the damages of the chosen options
    subject to  flash:  constants + code <= limit
                RAM:    live bytes at every step <= limit (offsets can need more; `search` checks)
                MACs:   optional cap

One binary a group and width, one a layer and rank (or "as it is"). A layer's weights are a product
of its input and output widths: the product of two choices is its own variable, tied to both by its
marginals (local-marginal relaxation), so it is 0 or 1 wherever the choices are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from edgecompress.plan.cost import CHANNEL_CONSTANT_BYTES, arena_lifetimes
from edgecompress.plan.network import LINEAR_OPS, Network, Part, PlannedStep
from edgecompress.records import LowRank

_RELATIVE_GAP = 2e-3
_NODE_LIMIT = 20_000


@dataclass(frozen=True)
class Choices:
    """What may be chosen and what each choice costs in damage (0 for the original).

    `widths` maps a group to its channel counts, `ranks` a layer to factorizations; the damages run
    parallel to them. Keeping a layer as it is costs 0 and is always allowed.
    """

    widths: dict[str, tuple[int, ...]]
    width_damage: dict[str, tuple[float, ...]]
    ranks: dict[str, tuple[LowRank, ...]] = field(default_factory=dict)
    rank_damage: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def without_ranks(self) -> Choices:
        return Choices(self.widths, self.width_damage)


@dataclass(frozen=True)
class Limits:
    """What is left for weights and their per-channel constants, for the arena, and for MACs.

    `extra_step_bytes` is the code each additional low-rank step costs.
    """

    constant_bytes: float | None
    arena_bytes: float | None
    macs: float | None = None
    extra_step_bytes: int = 0


@dataclass(frozen=True)
class Solution:
    widths: dict[str, int]
    low_rank: dict[str, LowRank]
    damage: float


def solve(network: Network, choices: Choices, limits: Limits) -> Solution | None:
    """The least-damage choice within the limits, or None when there is none.

    Deterministic: the search stops by gap or by node count, never by the clock.
    """
    return _Program(network, choices, limits).solve()


Expression = dict[int, float]
Option = tuple[int, float]
"""(variable, channel count): the width a part has when that variable is 1."""


@dataclass
class _Gated:
    """A layer that may be factorized: products of (kept as is | rank) with its two widths.

    dense[i, j], ins[rank][i], outs[rank][j] are variables; ranks[rank] is the binary.
    """

    kept: int
    ranks: list[int]
    dense: dict[tuple[int, int], int]
    ins: list[list[int]]
    outs: list[list[int]]


class _Program:
    """Builds rows and columns; `one` is a column fixed at 1 that stands for fixed widths."""

    def __init__(self, network: Network, choices: Choices, limits: Limits) -> None:
        self.network, self.choices, self.limits = network, choices, limits
        self.objective: list[float] = []
        self.integral: list[int] = []
        self.rows: list[tuple[Expression, float, float]] = []
        self.pairs: dict[tuple[str, str], dict[tuple[int, int], int]] = {}
        self.gated: dict[str, _Gated] = {}
        self.one = self.column(integral=True)
        self.row({self.one: 1.0}, 1.0, 1.0)
        self.width_columns = {
            group: [self.column(damage, integral=True) for damage in choices.width_damage[group]]
            for group in choices.widths
        }
        for columns in self.width_columns.values():
            self.row(dict.fromkeys(columns, 1.0), 1.0, 1.0)
        for layer in choices.ranks:
            self.gate(network.step_of_layer(layer))

    def column(self, cost: float = 0.0, *, integral: bool = False) -> int:
        self.objective.append(cost)
        self.integral.append(int(integral))
        return len(self.objective) - 1

    def row(self, terms: Expression, low: float, high: float) -> None:
        self.rows.append((terms, low, high))

    def options(self, part: Part) -> list[Option]:
        if part.group is None or part.group not in self.width_columns:
            return [(self.one, part.channels * part.repeat)]
        widths = self.choices.widths[part.group]
        columns = self.width_columns[part.group]
        return [(col, width * part.repeat) for col, width in zip(columns, widths, strict=True)]

    def parts(self, tensor: str) -> tuple[Part, ...]:
        return self.network.tensors[tensor].parts

    def size(self, tensor: str) -> Expression:
        """Bytes of an activation."""
        total: Expression = {}
        for part in self.parts(tensor):
            for column, count in self.options(part):
                _add(total, column, count * self.network.tensors[tensor].positions)
        return total

    def product(self, left: Part, right: Part) -> list[tuple[int, float]]:
        """(column, left count x right count) for every pair of options, as one linear sum."""
        ours, theirs = self.options(left), self.options(right)
        if len(ours) == 1 or len(theirs) == 1:
            return [
                (theirs[j][0] if len(ours) == 1 else ours[i][0], a * b)
                for i, (_, a) in enumerate(ours)
                for j, (_, b) in enumerate(theirs)
            ]
        if left.group == right.group:
            return [(col, a * b) for (col, a), (_, b) in zip(ours, theirs, strict=True)]
        key = (str(left.group), str(right.group))
        if key not in self.pairs:
            self.pairs[key] = self.pair_columns(ours, theirs, [], [])
        columns = self.pairs[key]
        return [
            (columns[i, j], a * b)
            for i, (_, a) in enumerate(ours)
            for j, (_, b) in enumerate(theirs)
        ]

    def pair_columns(
        self,
        ours: Sequence[Option],
        theirs: Sequence[Option],
        ins: Sequence[Sequence[int]],
        outs: Sequence[Sequence[int]],
    ) -> dict[tuple[int, int], int]:
        """One column a pair, with marginals: sum_j z_ij + sum_r ins_ri = x_i, and so for outs."""
        columns = {(i, j): self.column() for i in range(len(ours)) for j in range(len(theirs))}
        for i, (column, _) in enumerate(ours):
            terms = {columns[i, j]: 1.0 for j in range(len(theirs))}
            terms |= {rank[i]: 1.0 for rank in ins}
            self.row({**terms, column: -1.0}, 0.0, 0.0)
        for j, (column, _) in enumerate(theirs):
            terms = {columns[i, j]: 1.0 for i in range(len(ours))}
            terms |= {rank[j]: 1.0 for rank in outs}
            self.row({**terms, column: -1.0}, 0.0, 0.0)
        return columns

    def gate(self, step: PlannedStep) -> None:
        """Columns of a layer that may be factorized; exactly one of kept and the ranks is 1."""
        ours = self.options(self.parts(step.inputs[0])[0])
        theirs = self.options(self.parts(step.output)[0])
        damages = self.choices.rank_damage[step.layer]
        kept = self.column(integral=True)
        ranks = [self.column(damage, integral=True) for damage in damages]
        self.row(dict.fromkeys([kept, *ranks], 1.0), 1.0, 1.0)
        ins = [[self.column() for _ in ours] for _ in ranks]
        outs = [[self.column() for _ in theirs] for _ in ranks]
        dense = self.pair_columns(ours, theirs, ins, outs)
        self.row({**dict.fromkeys(dense.values(), 1.0), kept: -1.0}, 0.0, 0.0)
        for index, choice in enumerate(self.choices.ranks[step.layer]):
            sides = (
                (ins[index], ours, choice.ranks[0]),
                (outs[index], theirs, choice.ranks[-1]),
            )
            for columns, options, rank in sides:
                self.row({**dict.fromkeys(columns, 1.0), ranks[index]: -1.0}, 0.0, 0.0)
                too_narrow = [
                    column
                    for column, (_, count) in zip(columns, options, strict=True)
                    if count < rank
                ]
                self.row(dict.fromkeys(too_narrow, 1.0), 0.0, 0.0)
        self.gated[step.layer] = _Gated(kept, ranks, dense, ins, outs)

    def weights(self, step: PlannedStep, *, macs: bool) -> Expression:
        """int8 weights of a step (or its multiply-accumulates) as a linear sum."""
        total: Expression = {}
        tensors = self.network.tensors
        here = tensors[step.output].positions if macs else 1
        (target,) = self.parts(step.output)[:1]
        if step.op == "depthwise_conv2d":
            for column, count in self.options(target):
                _add(total, column, count * step.taps * here)
        elif step.layer in self.gated:
            before = tensors[step.inputs[0]].positions if macs else 1
            self.add_gated(total, step, before, here)
        else:
            for part in self.parts(step.inputs[0]):
                for column, count in self.product(part, target):
                    _add(total, column, count * step.taps * here / step.channel_groups)
        return total

    def add_gated(self, total: Expression, step: PlannedStep, before: int, here: int) -> None:
        gated = self.gated[step.layer]
        ours = self.options(self.parts(step.inputs[0])[0])
        theirs = self.options(self.parts(step.output)[0])
        for (i, j), column in gated.dense.items():
            _add(total, column, ours[i][1] * theirs[j][1] * step.taps * here)
        for index, choice in enumerate(self.choices.ranks[step.layer]):
            first, last = choice.ranks[0], choice.ranks[-1]
            for column, (_, count) in zip(gated.ins[index], ours, strict=True):
                _add(total, column, count * first * before)
            for column, (_, count) in zip(gated.outs[index], theirs, strict=True):
                _add(total, column, count * last * here)
            if len(choice.ranks) == 2:
                _add(total, gated.ranks[index], first * last * step.taps * here)

    def flash_row(self, limit: float) -> None:
        terms: Expression = {}
        for step in self.network.steps:
            if step.op not in LINEAR_OPS:
                continue
            _merge(terms, self.weights(step, macs=False))
            for part in self.parts(step.output):
                for column, count in self.options(part):
                    _add(terms, column, count * CHANNEL_CONSTANT_BYTES)
            if step.layer in self.gated:
                gated = self.gated[step.layer]
                for column, choice in zip(gated.ranks, self.choices.ranks[step.layer], strict=True):
                    inner = sum(choice.ranks) * CHANNEL_CONSTANT_BYTES
                    _add(terms, column, inner + len(choice.ranks) * self.limits.extra_step_bytes)
        self.capped(terms, limit)

    def capped(self, terms: Expression, limit: float) -> None:
        """terms <= limit, scaled so that HiGHS's absolute tolerance is far below one byte."""
        scale = 1.0 / max(limit, 1.0)
        self.row({col: value * scale for col, value in terms.items()}, -np.inf, limit * scale)

    def memory_rows(self, limit: float) -> None:
        """Live bytes at every step, and at every inner step of a layer that may be factorized."""
        lifetimes = arena_lifetimes(self.network, {})
        for index, step in enumerate(self.network.steps):
            live = [name for name, (_, first, last) in lifetimes.items() if first <= index <= last]
            if step.layer not in self.gated:
                self.capped(_total(self.size(name) for name in live), limit)
                continue
            source = self.network.tensors[step.inputs[0]].storage
            dies = source in live and lifetimes[source][2] == index
            written = step.output in live
            moving = {step.output} | ({source} if dies else set())
            others = _total(self.size(name) for name in live if name not in moving)
            for terms in self.inner_rows(step, dies, written):
                self.capped(_total([others, terms]), limit)

    def inner_rows(self, step: PlannedStep, dies: bool, written: bool) -> list[Expression]:
        """Bytes of the layer's own tensors: as it is, then while each factor runs."""
        gated = self.gated[step.layer]
        tensors = self.network.tensors
        before = tensors[step.inputs[0]].positions if dies else 0
        after = tensors[step.output].positions if written else 0
        ours = self.options(self.parts(step.inputs[0])[0])
        theirs = self.options(self.parts(step.output)[0])
        kept: Expression = {}
        for (i, j), column in gated.dense.items():
            _add(kept, column, ours[i][1] * before + theirs[j][1] * after)
        places = (tensors[step.inputs[0]].positions, tensors[step.output].positions)
        rows: list[Expression] = [kept, {}, {}, {}]
        for index, choice in enumerate(self.choices.ranks[step.layer]):
            inner = [rank * place for rank, place in zip(choice.ranks, places, strict=False)]
            for column, (_, count) in zip(gated.ins[index], ours, strict=True):
                _add(rows[1], column, count * before)
            _add(rows[1], gated.ranks[index], inner[0])
            _add(rows[2], gated.ranks[index], sum(inner))
            _add(rows[3], gated.ranks[index], inner[-1])
            for column, (_, count) in zip(gated.outs[index], theirs, strict=True):
                _add(rows[3], column, count * after)
        return rows

    def macs_row(self, limit: float) -> None:
        steps = [step for step in self.network.steps if step.op in LINEAR_OPS]
        self.capped(_total(self.weights(step, macs=True) for step in steps), limit)

    def solve(self) -> Solution | None:
        limits = self.limits
        caps = (limits.constant_bytes, limits.arena_bytes, limits.macs)
        if any(cap is not None and cap < 0 for cap in caps):
            return None
        for cap, add in zip(caps, (self.flash_row, self.memory_rows, self.macs_row), strict=True):
            if cap is not None:
                add(cap)
        entries = [
            (row, column, value)
            for row, (terms, _, _) in enumerate(self.rows)
            for column, value in terms.items()
        ]
        rows, columns, values = (list(item) for item in zip(*entries, strict=True))
        shape = (len(self.rows), len(self.objective))
        result = milp(
            np.array(self.objective),
            constraints=LinearConstraint(
                coo_array((values, (rows, columns)), shape=shape).tocsr(),
                np.array([low for _, low, _ in self.rows]),  # type: ignore[arg-type]
                np.array([high for _, _, high in self.rows]),  # type: ignore[arg-type]
            ),
            integrality=np.array(self.integral),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": _RELATIVE_GAP, "node_limit": _NODE_LIMIT},
        )
        return None if result.x is None else self.read(result.x)

    def read(self, x: np.ndarray) -> Solution:
        widths = {
            group: self.choices.widths[group][int(np.argmax(x[columns]))]
            for group, columns in self.width_columns.items()
        }
        low_rank: dict[str, LowRank] = {}
        damage = sum(
            self.choices.width_damage[group][int(np.argmax(x[columns]))]
            for group, columns in self.width_columns.items()
        )
        for layer, gated in self.gated.items():
            chosen = int(np.argmax(x[[gated.kept, *gated.ranks]]))
            if chosen:
                low_rank[layer] = self.choices.ranks[layer][chosen - 1]
                damage += self.choices.rank_damage[layer][chosen - 1]
        return Solution(widths, low_rank, damage)


def _add(terms: Expression, column: int, value: float) -> None:
    terms[column] = terms.get(column, 0.0) + value


def _merge(into: Expression, terms: Mapping[int, float]) -> None:
    for column, value in terms.items():
        _add(into, column, value)


def _total(expressions) -> Expression:
    total: Expression = {}
    for terms in expressions:
        _merge(total, terms)
    return total
