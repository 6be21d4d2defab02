"""Which layers to cut into how many stripes, when RAM demands it.

    does not fit -> the fullest step -> every stage around it that would fit, by memory alone
                 -> the one with the least extra work that fits as the device's own program
                 -> again, while another step is too full

The memory of a candidate is read off its divided program with the scratch its layers took unpatched
(milliseconds); only the few cheapest are given the device's kernels and placed (seconds).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgecompress.errors import DoesNotFit
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.memory.arena import place
from edgecompress.lower.memory.lifetimes import arena_buffers, live_bytes
from edgecompress.lower.memory.overlap import allowances
from edgecompress.lower.memory.regions import place_in_regions, ram_rooms
from edgecompress.lower.passes.choice import Goal
from edgecompress.lower.passes.patch.stage import (
    Stage,
    check_stage,
    divided,
    stripe_counts,
    with_functions,
)
from edgecompress.lower.passes.patch.stripe import CannotStripe
from edgecompress.lower.passes.specialize import Offers, choose_for, install
from edgecompress.lower.program import Buffer, Program
from edgecompress.records import PatchReport
from edgecompress.target.schema import DeviceProfile

_LONGEST_STAGE = 24
_MOST_STAGES = 3
_TRIALS = 6
_SPARE = 2
"""Stripe counts kept of each stage: the least that should do, and the next."""
BESIDE_ARENA_BYTES = 576
"""The runner's variables and the stack in use: about 200 and 320 on the virtual boards."""
_STEP_CYCLES = 200
"""Entering a kernel and leaving it: an estimate, so that many thin stripes are not free."""


@dataclass(frozen=True)
class Fitted:
    """A program with its device program, patched where that was needed and possible.

    Attributes:
        program: portable; `image_program` is the same steps on the device's kernels, placed.
        patches: what was cut, in the order it was found.
        fits: the arena is within its limit.
    """

    program: Program
    image_program: Program
    patches: tuple[PatchReport, ...] = ()
    fits: bool = True


def patch_to_fit(
    program: Program,
    profile: DeviceProfile,
    ram_limit_bytes: int | None = None,
    optimize: Goal = "balanced",
    offers: Offers | None = None,
) -> Fitted:
    """The device's program, with as few layers in stripes as its memory asks for.

    Args:
        program: lowered and placed; returned as it is when it fits, or when nothing helps enough.
        ram_limit_bytes: what the image may use of RAM in all; None for what the device has.
        offers: of this profile and program, where it is lowered for several goals.

    Raises:
        BuildFailed: see `specialize`.
        DoesNotFit: the device has several memories, and no division of the arena fits them.
    """
    limit = arena_limit_bytes(profile, ram_limit_bytes)
    search = _Search(profile, limit, offers or Offers(profile), optimize)
    whole = search.made(program)
    found = search.fitted(whole)
    if found is None:
        return Fitted(program, search.in_regions(whole.image), fits=False)
    return found


def least_memory(
    program: Program,
    profile: DeviceProfile,
    ram_limit_bytes: int | None = None,
    optimize: Goal = "balanced",
) -> PatchReport | None:
    """The one stage that helps most where none helps enough: for the way out in an error message.

    Tries limits above the one that cannot be met, a tenth of the distance to the whole arena more
    each time, so it is within that of the least. None where no stripes help.
    """
    offers = Offers(profile)
    limit = arena_limit_bytes(profile, ram_limit_bytes) or 0
    whole = _Search(profile, limit, offers, optimize).made(program)
    for tenth in range(1, 10):
        raised = limit + (whole.image.arena_bytes - limit) * tenth // 10
        found = _Search(profile, raised, offers, optimize, most_stages=1).fitted(whole)
        if found is not None and found.patches:
            return found.patches[0]
    return None


def arena_limit_bytes(profile: DeviceProfile, ram_limit_bytes: int | None = None) -> int | None:
    """What the arena may take, beside stack and variables; None where RAM has no stated limit.

    Args:
        ram_limit_bytes: what the image may use of RAM in all; None for what the device has.
    """
    limits = [] if ram_limit_bytes is None else [max(0, ram_limit_bytes - BESIDE_ARENA_BYTES)]
    if profile.kind == "mcu":
        limits.append(sum(room.size_bytes for room in ram_rooms(profile)))
    return min(limits, default=None)


@dataclass(frozen=True)
class _Made:
    """A program, what its steps run as on the device, and that device program in one arena."""

    program: Program
    chosen: Sequence[Implementation | None]
    image: Program


@dataclass(frozen=True)
class _Candidate:
    stage: Stage
    extra_cycles: float
    program: Program


@dataclass(frozen=True)
class _Search:
    """One device and one limit of its arena, in bytes; None for no limit."""

    profile: DeviceProfile
    limit_bytes: int | None
    offers: Offers
    optimize: Goal
    most_stages: int = _MOST_STAGES

    def made(self, program: Program) -> _Made:
        chosen = choose_for(program, self.offers, self.optimize)
        return _Made(program, chosen, install(program, chosen))

    def fitted(self, whole: _Made) -> Fitted | None:
        """Stage after stage in stripes until the arena is within the limit; None if it cannot."""
        current = whole
        patches: list[PatchReport] = []
        while not self.fits(current.image):
            found = self.improved(current) if len(patches) < self.most_stages else None
            if found is None:
                return None
            stage, better = found
            patches.append(_report(whole, current, stage, better))
            current = better
        if not patches:
            return Fitted(whole.program, self.in_regions(current.image))
        program = with_functions(current.program)
        image = self.in_regions(install(program, current.chosen))
        size = {"arena_after_bytes": image.arena_bytes}
        reports = tuple(patch.model_copy(update=size) for patch in patches)
        return Fitted(place(program), image, reports)

    def fits(self, image: Program) -> bool:
        if self.limit_bytes is not None and image.arena_bytes > self.limit_bytes:
            return False
        try:
            self.in_regions(image)
        except DoesNotFit:
            return False
        return True

    def in_regions(self, image: Program) -> Program:
        limit = None if self.limit_bytes is None else self.limit_bytes + BESIDE_ARENA_BYTES
        return place_in_regions(image, self.profile, limit)

    def goal_bytes(self, image: Program) -> int:
        """What may be live at a step: the limit, or one memory where they cannot be divided."""
        limit = image.arena_bytes if self.limit_bytes is None else self.limit_bytes
        rooms = [room.size_bytes for room in ram_rooms(self.profile)]
        return limit if image.arena_bytes > limit or not rooms else min(limit, max(rooms))

    def improved(self, made: _Made) -> tuple[Stage, _Made] | None:
        """The fullest step's stage in stripes, with the least extra work that relieves it."""
        goal = self.goal_bytes(made.image)
        others = [index for index, size in enumerate(_live(made.image)) if size > goal]
        for candidate in _candidates(made, goal):
            trial = self.made(candidate.program)
            relieved = max(_live(trial.image)[index] for index in _within(candidate.stage)) <= goal
            more = any(not _covers(candidate.stage, index) for index in others)
            if relieved and (more or self.fits(trial.image)):
                return candidate.stage, trial
        return None


def _candidates(made: _Made, goal: int) -> list[_Candidate]:
    """The cheapest stages around the fullest step that keep the goal, by memory alone."""
    program, live = made.program, _live(made.image)
    cycles, scratch = _cycles(made), _scratch_bytes(made.image)
    found: list[_Candidate] = []
    for first, end in _ranges(program, live, goal):
        if _kept_bytes(program, first, end) > goal:
            continue
        enough = 0
        for stripes in stripe_counts(program.buffers[program.steps[end - 1].output].shape[1])[1:]:
            stage = Stage(first, end, stripes)
            try:
                trial = divided(program, stage)
            except CannotStripe:
                break
            extra = _extra_cycles(program, trial, stage, cycles)
            if len(found) == _TRIALS and extra >= found[-1].extra_cycles:
                break  # more stripes only cost more
            peaks = _live(_with_scratch(trial, stage, scratch))
            if max(peaks[index] for index in _within(stage)) <= goal:
                found.append(_Candidate(stage, extra, trial))
                found = sorted(found, key=lambda candidate: candidate.extra_cycles)[:_TRIALS]
                enough += 1
            if enough == _SPARE:
                break
    return found


def _ranges(program: Program, live: Sequence[int], goal: int) -> Iterator[tuple[int, int]]:
    """Stages that hold the fullest step and those beside it that are too full, short ones first."""
    least = most = max(range(len(live)), key=lambda index: live[index])
    while least > 0 and live[least - 1] > goal:
        least -= 1
    while most + 1 < len(live) and live[most + 1] > goal:
        most += 1
    ranges = [
        (first, end)
        for first in range(max(0, most - _LONGEST_STAGE), least + 1)
        for end in range(most + 1, min(len(program.steps), first + _LONGEST_STAGE) + 1)
    ]
    for first, end in sorted(ranges, key=lambda pair: pair[1] - pair[0]):
        try:
            check_stage(program, Stage(first, end, 2))
        except CannotStripe:
            continue
        yield first, end


def _kept_bytes(program: Program, first: int, end: int) -> int:
    """What is live when a stage begins: at least that much is, with what leaves it over it."""
    inside = {step.output for step in program.steps[first:end]}
    return sum(
        buffer.size_bytes
        for buffer in arena_buffers(program)
        if buffer.first_step < end and buffer.last_step >= first and buffer.name not in inside
    )


def _live(program: Program) -> list[int]:
    """Bytes live at each step."""
    buffers = arena_buffers(program)
    lifetimes = [(item.size_bytes, item.first_step, item.last_step) for item in buffers]
    known = live_bytes(lifetimes, allowances(program, buffers))
    live: list[int] = []
    for index in range(len(program.steps)):
        # a step that begins no buffer of its own has at most what the one before it had
        live.append(known.get(index, live[-1] if live else 0))
    return live


def _within(stage: Stage) -> range:
    """The stage's steps in the divided program."""
    return range(stage.first, stage.first + (stage.end - stage.first) * stage.stripes)


def _covers(stage: Stage, index: int) -> bool:
    return stage.first <= index < stage.end


def _origin(stage: Stage, index: int) -> int:
    """The undivided program's step that a divided program's step is a part of."""
    length = stage.end - stage.first
    if index < stage.first:
        return index
    if index in _within(stage):
        return stage.first + (index - stage.first) % length
    return index - length * (stage.stripes - 1)


def _scratch_bytes(image: Program) -> list[int]:
    return [
        sum(
            image.buffers[item.name].size_bytes for item in step.arguments if item.kind == "scratch"
        )
        for step in image.steps
    ]


def _with_scratch(trial: Program, stage: Stage, scratch: Sequence[int]) -> Program:
    """The divided program with as much scratch a step as the whole layer took."""
    buffers = dict(trial.buffers)
    for index, step in enumerate(trial.steps):
        size = scratch[_origin(stage, index)]
        if size:
            name = f"{step.name}.scratch"
            buffers[name] = Buffer(name, (size,), "int8", size, index, index)
    return replace(trial, buffers=buffers)


def _cycles(made: _Made) -> list[float]:
    """Predicted cycles of each step; portable kernels by a rough count of their work."""
    return [
        float(item.cost.cycles)
        if item is not None
        else 4.0 * (step.macs + made.program.buffers[step.output].size_bytes)
        for step, item in zip(made.program.steps, made.chosen, strict=True)
    ]


def _extra_cycles(program: Program, trial: Program, stage: Stage, cycles: Sequence[float]) -> float:
    """What the stripes compute again, and what calling more kernels takes."""
    total = 0.0
    for index in _within(stage):
        origin = _origin(stage, index)
        rows = trial.buffers[trial.steps[index].output].shape[1]
        whole = program.buffers[program.steps[origin].output].shape[1]
        total += cycles[origin] * rows / whole + _STEP_CYCLES
    return total - sum(cycles[stage.first : stage.end])


def _report(whole: _Made, before: _Made, stage: Stage, after: _Made) -> PatchReport:
    steps = before.program.steps[stage.first : stage.end]
    added = after.program.macs - before.program.macs
    return PatchReport(
        first_layer=steps[0].name,
        last_layer=steps[-1].name,
        layers=len(steps),
        stripes=stage.stripes,
        arena_before_bytes=whole.image.arena_bytes,
        arena_after_bytes=after.image.arena_bytes,
        extra_macs_percent=round(100 * added / max(1, whole.program.macs), 2),
    )
