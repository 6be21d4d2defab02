"""The rows and columns of the planner's mixed-integer program.

A layer's weights are a product of its input and output widths: the product of two choices is its
own variable z_ij, tied to both by its marginals (local-marginal relaxation), so it is 0 or 1
wherever the choices are. A layer that may be kept in several ways has such variables for each
storage, and single ones for each side of each factorization:

    sum_j z(dense, i, j) + sum_j z(int4, i, j) + sum_options ins(option, i) = x_i

so bytes = width in x width out x taps x bits / 8 stays linear while widths, ranks and bits move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgecompress.plan.choices import Choices, LayerOption
from edgecompress.plan.cost import (
    CHANNEL_CONSTANT_BYTES,
    GATE_CONSTANT_BYTES,
    SUMMING_OPS,
    arena_lifetimes,
    step_macs,
)
from edgecompress.plan.network import LINEAR_OPS, Network, Part, PlannedStep
from edgecompress.plan.storage import decoding_share, stored_share

Expression = dict[int, float]
Option = tuple[int, float]
"""(variable, channel count): the width a part has when that variable is 1."""


@dataclass
class Layered:
    """A layer with several ways of being kept; exactly one of `chosen` is 1.

    whole[n] holds the products z_ij of option n where it is not factorized, else it is empty and
    ins[n][i], outs[n][j] say which widths the factors meet.
    """

    options: tuple[LayerOption, ...]
    chosen: list[int]
    whole: list[dict[tuple[int, int], int]]
    ins: list[list[int]]
    outs: list[list[int]]


class Program:
    """Builds rows and columns; `one` is a column fixed at 1 that stands for fixed widths."""

    def __init__(self, network: Network, choices: Choices) -> None:
        self.network, self.choices = network, choices
        self.objective: list[float] = []
        self.integral: list[int] = []
        self.rows: list[tuple[Expression, float, float]] = []
        self.pairs: dict[tuple[str, str], dict[tuple[int, int], int]] = {}
        self.layered: dict[str, Layered] = {}
        self.one = self.column(integral=True)
        self.row({self.one: 1.0}, 1.0, 1.0)
        self.width_columns = {
            group: [self.column(damage, integral=True) for damage in choices.width_damage[group]]
            for group in choices.widths
        }
        for columns in self.width_columns.values():
            self.row(dict.fromkeys(columns, 1.0), 1.0, 1.0)
        for layer, options in choices.layers().items():
            self.add_layer(network.step_of_layer(layer), options)

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

    def sides(self, step: PlannedStep) -> tuple[list[Option], list[Option]]:
        """Width options of the input and output of a layer with one part on either side."""
        return (
            self.options(self.parts(step.inputs[0])[0]),
            self.options(self.parts(step.output)[0]),
        )

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
            columns = {pair: self.column() for pair in np.ndindex(len(ours), len(theirs))}
            self.pairs[key] = columns
            self.marginals(ours, [pair_row(columns, 0, i) for i in range(len(ours))])
            self.marginals(theirs, [pair_row(columns, 1, j) for j in range(len(theirs))])
        columns = self.pairs[key]
        return [(columns[i, j], ours[i][1] * theirs[j][1]) for i, j in columns]

    def marginals(self, options: list[Option], sums: list[list[int]]) -> None:
        """The columns of sums[i] add up to the binary of option i."""
        for (column, _), members in zip(options, sums, strict=True):
            self.row({**dict.fromkeys(members, 1.0), column: -1.0}, 0.0, 0.0)

    def add_layer(self, step: PlannedStep, options: tuple[LayerOption, ...]) -> None:
        """Columns of a layer with several options, tied to its widths on both sides."""
        left, right = self.parts(step.inputs[0])[0], self.parts(step.output)[0]
        ours, theirs = self.sides(step)
        same = left.group is not None and left.group == right.group
        pairs = [(i, j) for i, j in np.ndindex(len(ours), len(theirs)) if not same or i == j]
        chosen = [self.column(option.damage, integral=True) for option in options]
        self.row(dict.fromkeys(chosen, 1.0), 1.0, 1.0)
        whole, ins, outs = [], [], []
        for option, binary in zip(options, chosen, strict=True):
            factored = option.low_rank is not None
            whole.append({} if factored else {pair: self.column() for pair in pairs})
            ins.append([self.column() for _ in ours] if factored else [])
            outs.append([self.column() for _ in theirs] if factored else [])
            for columns in (list(whole[-1].values()), ins[-1], outs[-1]):
                if columns:
                    self.row({**dict.fromkeys(columns, 1.0), binary: -1.0}, 0.0, 0.0)
            if option.low_rank is not None:
                self.forbid_narrow(option.low_rank.ranks[0], ins[-1], ours)
                self.forbid_narrow(option.low_rank.ranks[-1], outs[-1], theirs)
        for axis, side, single in ((0, ours, ins), (1, theirs, outs)):
            self.marginals(
                side,
                [
                    [column for each in whole for column in pair_row(each, axis, k)]
                    + [columns[k] for columns in single if columns]
                    for k in range(len(side))
                ],
            )
        self.layered[step.layer] = Layered(options, chosen, whole, ins, outs)

    def forbid_narrow(self, rank: int, columns: list[int], options: list[Option]) -> None:
        """A rank never exceeds the width it meets."""
        narrow = [column for column, (_, n) in zip(columns, options, strict=True) if n < rank]
        if narrow:
            self.row(dict.fromkeys(narrow, 1.0), 0.0, 0.0)

    def weights(self, step: PlannedStep, *, macs: bool) -> Expression:
        """Stored bytes of a step's weights (or its multiply-accumulates) as a linear sum."""
        total: Expression = {}
        tensors = self.network.tensors
        here = tensors[step.output].positions if macs else 1
        target = self.parts(step.output)[0]
        if step.gates:
            times = step.gates * (step.times if macs else 1)
            for part in (*self.parts(step.inputs[0]), target):
                for column, count in self.product(part, target):
                    _add(total, column, count * times)
        elif step.op == "depthwise_conv2d":
            for column, count in self.options(target):
                _add(total, column, count * step.taps * here)
        elif step.layer in self.layered:
            before = tensors[step.inputs[0]].positions if macs else 1
            self.add_layered(total, step, before, here, macs=macs)
        else:
            for part in self.parts(step.inputs[0]):
                for column, count in self.product(part, target):
                    _add(total, column, count * step.taps * here / step.channel_groups)
        return total

    def add_layered(
        self, total: Expression, step: PlannedStep, before: int, here: int, *, macs: bool
    ) -> None:
        for index, option in enumerate(self.layered[step.layer].options):
            share = 1.0 if macs else stored_share(option.weights)
            self.add_option(total, step, index, before, here, share)

    def add_option(
        self, total: Expression, step: PlannedStep, index: int, before: int, here: int, share: float
    ) -> None:
        """`share` of the weights a layer has when kept in this way, times the places they meet."""
        layered = self.layered[step.layer]
        ours, theirs = self.sides(step)
        for (i, j), column in layered.whole[index].items():
            count = ours[i][1] * theirs[j][1] * step.taps / step.channel_groups
            _add(total, column, count * here * share)
        low_rank = layered.options[index].low_rank
        if low_rank is None:
            return
        first, last = low_rank.ranks[0], low_rank.ranks[-1]
        for column, (_, count) in zip(layered.ins[index], ours, strict=True):
            _add(total, column, count * first * before * share)
        for column, (_, count) in zip(layered.outs[index], theirs, strict=True):
            _add(total, column, count * last * here * share)
        if len(low_rank.ranks) == 2:
            core = first * last * step.taps * here
            _add(total, layered.chosen[index], core * share)

    def decoding(self, step: PlannedStep, macs_per_decoding: float) -> Expression:
        """What decoding a step's weights takes, as so many more multiply-accumulates."""
        total: Expression = {}
        layered = self.layered.get(step.layer)
        if layered is None:
            return total
        tensors = self.network.tensors
        before, here = tensors[step.inputs[0]].positions, tensors[step.output].positions
        for index, option in enumerate(layered.options):
            share = decoding_share(option.weights, here) * macs_per_decoding
            if share:
                self.add_option(total, step, index, before, here, share)
        return total

    def flash_row(self, limit: float, extra_step_bytes: int) -> None:
        terms: Expression = {}
        for step in self.network.steps:
            if step.op not in LINEAR_OPS and not step.gates:
                continue
            _merge(terms, self.weights(step, macs=False))
            constants = GATE_CONSTANT_BYTES * step.gates or CHANNEL_CONSTANT_BYTES
            for part in self.parts(step.output):
                for column, count in self.options(part):
                    _add(terms, column, count * constants)
            if step.layer in self.layered:
                layered = self.layered[step.layer]
                for column, option in zip(layered.chosen, layered.options, strict=True):
                    ranks = () if option.low_rank is None else option.low_rank.ranks
                    inner = sum(ranks) * CHANNEL_CONSTANT_BYTES
                    _add(terms, column, inner + len(ranks) * extra_step_bytes)
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
            layered = self.layered.get(step.layer)
            if layered is None or not any(layered.ins):
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
        layered = self.layered[step.layer]
        tensors = self.network.tensors
        places = (tensors[step.inputs[0]].positions, tensors[step.output].positions)
        before, after = places[0] if dies else 0, places[1] if written else 0
        ours, theirs = self.sides(step)
        rows: list[Expression] = [{}, {}, {}, {}]
        for index, option in enumerate(layered.options):
            for (i, j), column in layered.whole[index].items():
                _add(rows[0], column, ours[i][1] * before + theirs[j][1] * after)
            if option.low_rank is None:
                continue
            ranks, binary = option.low_rank.ranks, layered.chosen[index]
            inner = [rank * place for rank, place in zip(ranks, places, strict=False)]
            for column, (_, count) in zip(layered.ins[index], ours, strict=True):
                _add(rows[1], column, count * before)
            _add(rows[1], binary, inner[0])
            _add(rows[2], binary, sum(inner))
            _add(rows[3], binary, inner[-1])
            for column, (_, count) in zip(layered.outs[index], theirs, strict=True):
                _add(rows[3], column, count * after)
        return rows

    def summed(self) -> Expression:
        """Additions of pooled means."""
        total: Expression = {}
        for step in self.network.steps:
            if step.op in SUMMING_OPS:
                for column, size in self.size(step.output).items():
                    _add(total, column, size * step.taps)
        return total

    def macs_row(self, limit: float | None, reward: float, macs_per_decoding: float) -> None:
        """The cap where there is one, decoding counted in; compute left unused is accuracy left
        unused: using the original's MACs is worth `reward` damage."""
        steps = [step for step in self.network.steps if step.op in LINEAR_OPS or step.gates]
        terms = _total(self.weights(step, macs=True) for step in steps)
        _merge(terms, self.summed())
        if limit is not None:
            decoding = _total(self.decoding(step, macs_per_decoding) for step in steps)
            self.capped(_total([terms, decoding]), limit)
        most = max(1, sum(step_macs(self.network, step, {}) for step in steps))
        for column, value in terms.items():
            self.objective[column] -= reward * value / most


def pair_row(columns: Mapping[tuple[int, int], int], axis: int, index: int) -> list[int]:
    """The columns whose pair has `index` on `axis`."""
    return [column for pair, column in columns.items() if pair[axis] == index]


def _add(terms: Expression, column: int, value: float) -> None:
    terms[column] = terms.get(column, 0.0) + value


def _merge(into: Expression, terms: Mapping[int, float]) -> None:
    for column, value in terms.items():
        _add(into, column, value)


def _total(expressions: Iterable[Mapping[int, float]]) -> Expression:
    total: Expression = {}
    for terms in expressions:
        _merge(total, terms)
    return total
