"""A few plans worth training: the program's optima, and the uniform ones they have to beat.

    joint             widths, ranks and bits together
    most compute      the same, using as many MACs as the budgets allow
    int8 only         widths and ranks
    uniform           every width by one factor, int8
    uniform int4      every width by one factor, every layer but the first and last in int4
    small             joint in three quarters of its flash, where compute binds
    low rank          every layer factorized to keep one share of its energy, see `plan.low_rank`
    low rank int4     the same with four-bit factors where int8 does not fit, or with enough of
                      them to save a quarter where compute binds

Each is checked with the exact accounts (`cost.evaluate`, offsets included) and the program is
solved again with tighter limits where its rows were too kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgecompress.errors import BadConfig
from edgecompress.plan.choices import Choices
from edgecompress.plan.code_size import code_table
from edgecompress.plan.cost import Corrections, evaluate, weight_count
from edgecompress.plan.latency import DECODING, TIME
from edgecompress.plan.network import Network
from edgecompress.plan.solve import MACS_REWARD, Limits, solve
from edgecompress.records import Budget, LowRank, Prediction, WeightStorage
from edgecompress.target.schema import DeviceProfile

_ATTEMPTS = 12
_UNIFORM_STEPS = 64
_SMALL_SAVES, _SMALL_SAVES_WEIGHTS = 0.25, 0.5
FEWEST_INT4_WEIGHTS = 512
"""Below this a layer saves fewer bytes than its decoding may cost."""
_CODE_UNCERTAINTY = 0.04
_CORRECTED_UNCERTAINTY = 0.005


@dataclass(frozen=True)
class Candidate:
    """`name` says where it comes from; `greedy` is the last resort."""

    name: str
    widths: dict[str, int]
    low_rank: dict[str, LowRank]
    predicted: Prediction
    weights: dict[str, WeightStorage] = field(default_factory=dict)

    def same_as(self, other: Candidate) -> bool:
        """The same plan, wherever it comes from."""
        ours = (self.widths, self.low_rank, self.weights)
        return ours == (other.widths, other.low_rank, other.weights)


@dataclass(frozen=True)
class Problem:
    """One planning task: what may change, what it may cost, and where it must fit."""

    network: Network
    profile: DeviceProfile
    budget: Budget
    corrections: Corrections

    def predict(
        self,
        widths: Mapping[str, int],
        low_rank: Mapping[str, LowRank] | None = None,
        weights: Mapping[str, WeightStorage] | None = None,
    ) -> Prediction:
        return evaluate(self.network, self.profile, widths, low_rank, self.corrections, weights)

    def macs_limit(self) -> float | None:
        """The latency budget in MACs; what decoding takes counts as so many more of them.

        Raises:
            BadConfig: the target has no cycle estimate to turn time into instructions.
        """
        if self.budget.latency_us is None:
            return None
        core = self.profile.core
        if core.cycles_per_instruction is None:
            raise BadConfig(
                f"Target {self.profile.name} has no cycles_per_instruction, so a latency budget "
                f"of {self.budget.latency_us:.0f} us cannot be planned for.",
                next_step="Leave the latency budget out.",
            )
        allowed_us = self.budget.latency_us / self.corrections.get(TIME, 1.0)
        cycles = allowed_us * 1e-6 * core.clock_hz
        instructions = cycles / core.cycles_per_instruction[1]
        return instructions / code_table(self.profile).instructions_per_mac

    def flash_reserve(self, predicted: Prediction) -> float:
        """Bytes kept free for what the code table may have wrong; constants are exact."""
        parts = predicted.flash_parts
        share = _CORRECTED_UNCERTAINTY if self.corrections else _CODE_UNCERTAINTY
        return share * (predicted.flash_bytes - parts["weights"])

    def ram_reserve(self, predicted: Prediction) -> float:
        """The same for the stack and the runner's variables; the arena is exact."""
        share = _CORRECTED_UNCERTAINTY if self.corrections else _CODE_UNCERTAINTY
        return share * (predicted.ram_parts["stack"] + predicted.ram_parts["static"])

    def flash_over(self, predicted: Prediction) -> float:
        """Bytes above the flash budget less its reserve; negative when it fits."""
        caps = [self.budget.flash_bytes, self.profile.flash_bytes]
        known = [cap for cap in caps if cap is not None]
        if not known:
            return float("-inf")
        return predicted.flash_bytes + self.flash_reserve(predicted) - min(known)

    def ram_over(self, predicted: Prediction) -> float:
        over = self.device_over(predicted)
        if self.budget.ram_bytes is not None:
            needed = predicted.ram_bytes + self.ram_reserve(predicted)
            over = max(over, needed - self.budget.ram_bytes)
        return over

    def device_over(self, predicted: Prediction) -> float:
        """RAM bytes above what the linker has: the device holds the stack's whole reserve."""
        if self.profile.ram_bytes is None:
            return float("-inf")
        linked = predicted.ram_bytes - predicted.ram_parts["stack"] + self.profile.stack_reserve
        return max(linked - self.profile.ram_bytes, predicted.unplaced_bytes or float("-inf"))

    def macs_over(self, predicted: Prediction) -> float:
        limit = self.macs_limit()
        if limit is None:
            return float("-inf")
        decoding = predicted.decoding_instructions / code_table(self.profile).instructions_per_mac
        return predicted.macs + decoding - limit

    def compute_binds(self, whole: Prediction) -> bool:
        """Whether the model as it is takes too long.

        Bytes buy no accuracy that the compute allows for then, so they are worth saving.
        """
        return self.macs_over(whole) > 0

    def sizes_where_compute_binds(
        self, whole: Prediction, found: Sequence[Prediction]
    ) -> list[float] | None:
        """Flash and RAM of each, as shares of the whole model's, where that takes too long.

        None where the model as it is keeps the latency budget.
        """
        if not self.compute_binds(whole):
            return None
        return [
            item.flash_bytes / whole.flash_bytes + item.ram_bytes / whole.ram_bytes
            for item in found
        ]

    def fits(self, predicted: Prediction) -> bool:
        overs = (
            self.flash_over(predicted),
            self.ram_over(predicted),
            self.macs_over(predicted),
        )
        return max(overs) <= 0

    def fits_exactly(self, predicted: Prediction) -> bool:
        """Within the budget with nothing kept in reserve, and sure to link on the device."""
        flash, ram = self.budget.flash_bytes, self.budget.ram_bytes
        device_flash = self.profile.flash_bytes
        needed = predicted.flash_bytes + self.flash_reserve(predicted)
        return (
            (flash is None or predicted.flash_bytes <= flash)
            and (device_flash is None or needed <= device_flash)
            and (ram is None or predicted.ram_bytes <= ram)
            and self.device_over(predicted) <= 0
            and self.macs_over(predicted) <= 0
        )


JOINT, UNIFORM, UNIFORM_INT4, SMALL, COMPUTE, INT8, LOW_RANK, LOW_RANK_INT4 = NAMES = (
    "joint", "uniform", "uniform int4", "small", "most compute", "int8 only", "low rank",
    "low rank int4",
)  # fmt: skip
UNMEASURED = (UNIFORM, UNIFORM_INT4, LOW_RANK, LOW_RANK_INT4)
"""Candidates that no measured damage decides."""


def propose(problem: Problem, choices: Choices, names: Sequence[str] = NAMES) -> list[Candidate]:
    """Different candidates that fit, in the order of `names`; [] if none does.

    Low rank is not made here: only the compiler knows what its factors take.
    """
    int8 = choices.without_formats()
    made: dict[str, Callable[[], Candidate | None]] = {
        JOINT: lambda: optimum(problem, choices, JOINT),
        COMPUTE: lambda: optimum(problem, choices, COMPUTE, macs_reward=_all_damage(choices)),
        INT8: lambda: optimum(problem, int8, INT8) if choices.storages else None,
        UNIFORM: lambda: uniform(problem, choices),
        UNIFORM_INT4: lambda: _uniform_int4(problem, choices),
        SMALL: lambda: _small(problem, choices),
    }
    candidates: list[Candidate] = []
    for name in names:
        item = made[name]() if name in made else None
        if item is not None and not any(item.same_as(other) for other in candidates):
            candidates.append(item)
    if not candidates:
        last = greedy(problem, choices)
        candidates = [] if last is None else [last]
    return candidates


def _uniform_int4(problem: Problem, choices: Choices) -> Candidate | None:
    layers = int4_layers(problem.network)
    possible = any(storage.format == "int4" for storage in choices.storages)
    return uniform(problem, choices, layers) if possible and layers else None


def _small(problem: Problem, choices: Choices) -> Candidate | None:
    if not problem.compute_binds(problem.predict({})):
        return None
    joint = optimum(problem, choices, SMALL)
    if joint is None:
        return None
    flash_bytes = int(joint.predicted.flash_bytes - bytes_worth_saving(joint.predicted))
    budget = problem.budget.model_copy(update={"flash_bytes": flash_bytes})
    return optimum(replace(problem, budget=budget), choices, SMALL)


def bytes_worth_saving(predicted: Prediction) -> float:
    """Of an image's flash, where compute binds: a quarter, but no more than half its weights."""
    weights = predicted.flash_parts["weights"]
    return min(_SMALL_SAVES * predicted.flash_bytes, _SMALL_SAVES_WEIGHTS * weights)


def optimum(
    problem: Problem, choices: Choices, name: str, *, macs_reward: float = MACS_REWARD
) -> Candidate | None:
    """The program's answer, its limits tightened until the exact accounts agree that it fits."""
    limits = replace(first_limits(problem), macs_reward=macs_reward)
    for _ in range(_ATTEMPTS):
        solution = solve(problem.network, choices, limits)
        if solution is None:
            return None
        chosen = (solution.widths, solution.low_rank, solution.weights)
        predicted = problem.predict(*chosen)
        if problem.fits(predicted):
            return Candidate(name, chosen[0], chosen[1], predicted, chosen[2])
        limits = tightened(limits, problem, predicted)
    return None


def _all_damage(choices: Choices) -> float:
    """More than any choice costs: what makes compute worth everything else."""
    widths = sum(max(damages) for damages in choices.width_damage.values())
    layers = sum(max(option.damage for option in options) for options in choices.layers().values())
    return 1.0 + widths + layers


def first_limits(problem: Problem) -> Limits:
    """What the budget leaves once everything that no choice changes is paid for."""
    original = problem.predict({})
    table = code_table(problem.profile)
    flash_over, ram_over = problem.flash_over(original), problem.ram_over(original)
    code_factor = problem.corrections.get("flash.kernels", 1.0)
    # the program counts bytes as they are, the accounts as an image corrected them
    weights_factor = problem.corrections.get("flash.weights", 1.0)
    arena_factor = problem.corrections.get("ram.arena", 1.0)
    return Limits(
        constant_bytes=None
        if math.isinf(flash_over)
        else (original.flash_parts["weights"] - flash_over) / weights_factor,
        arena_bytes=None
        if math.isinf(ram_over)
        else (original.ram_parts["arena"] - ram_over) / arena_factor,
        macs=problem.macs_limit(),
        macs_per_decoding=problem.corrections.get(DECODING, 1.0) / table.instructions_per_mac,
        extra_step_bytes=round(
            (table.kernel("conv2d pointwise") + table.model_step_bytes)
            * code_factor
            * (1 + _CODE_UNCERTAINTY)
        ),
    )


def tightened(limits: Limits, problem: Problem, predicted: Prediction) -> Limits:
    """The limits less what a solution of theirs came out over by."""
    flash, ram = problem.flash_over(predicted), problem.ram_over(predicted)
    if limits.constant_bytes is not None and flash > 0:
        limits = replace(limits, constant_bytes=limits.constant_bytes - flash)
    if limits.arena_bytes is not None and ram > 0:
        limits = replace(limits, arena_bytes=limits.arena_bytes - ram)
    return limits


def uniform(
    problem: Problem, choices: Choices, weights: Mapping[str, WeightStorage] | None = None
) -> Candidate | None:
    """The largest common fraction of every group's channels that fits, in steps of 1/64."""
    stored = dict(weights or {})
    for step in range(_UNIFORM_STEPS, 0, -1):
        widths = {
            group: max(options[0], rounded(options[-1] * step / _UNIFORM_STEPS, options[-1]))
            for group, options in choices.widths.items()
        }
        predicted = problem.predict(widths, None, stored)
        if problem.fits(predicted):
            return Candidate(UNIFORM_INT4 if stored else UNIFORM, widths, {}, predicted, stored)
    return None


def int4_layers(network: Network) -> dict[str, WeightStorage]:
    """int4 for every layer that is wide enough to gain by it, but the first and the last."""
    layers = [step for step in network.steps if step.layer]
    return {
        step.layer: WeightStorage(format="int4")
        for step in layers[1:-1]
        if step.op != "depthwise_conv2d" and weight_count(network, step, {}) >= FEWEST_INT4_WEIGHTS
    }


def narrowest(problem: Problem, choices: Choices) -> Candidate:
    """Every group at its least width: what the budget must hold at the very least."""
    widths = {group: options[0] for group, options in choices.widths.items()}
    return Candidate("narrowest", widths, {}, problem.predict(widths))


def greedy(problem: Problem, choices: Choices) -> Candidate | None:
    """The fallback: narrow, one option at a time, whatever saves most per damage, until it fits."""
    at = {group: len(options) - 1 for group, options in choices.widths.items()}

    def widths(position: Mapping[str, int]) -> dict[str, int]:
        return {group: choices.widths[group][index] for group, index in position.items()}

    current = problem.predict(widths(at))
    while not problem.fits(current):
        best: tuple[float, str, Prediction] | None = None
        for group, index in at.items():
            if index == 0:
                continue
            trial = problem.predict(widths({**at, group: index - 1}))
            damages = choices.width_damage[group]
            gain = _relief(problem, current, trial) / (damages[index - 1] - damages[index] + 1e-9)
            if best is None or gain > best[0]:
                best = (gain, group, trial)
        if best is None:
            return None
        _, group, current = best
        at[group] -= 1
    return Candidate("greedy", widths(at), {}, current)


def _relief(problem: Problem, before: Prediction, after: Prediction) -> float:
    """How much closer to the budgets a change brings, each overrun in its own fraction."""
    relief = 1e-6 * (before.flash_bytes - after.flash_bytes)
    for over in (problem.flash_over, problem.ram_over, problem.macs_over):
        now = over(before)
        if now > 0:
            relief += (now - max(0.0, over(after))) / now
    return relief


def rounded(count: float, full: int) -> int:
    """A channel count the kernels like: a multiple of 4, never 0, never above `full`."""
    return min(full, max(min(4, full), int(count) // 4 * 4))
