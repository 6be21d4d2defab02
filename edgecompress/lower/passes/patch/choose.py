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
from edgecompress.lower.passes.patch.stage import Stage, check_stage, divided, with_functions
from edgecompress.lower.passes.patch.stripe import CannotStripe
from edgecompress.lower.passes.specialize import Offers, choose_for, install
from edgecompress.lower.program import Buffer, Program
from edgecompress.records import Optimize, PatchReport
from edgecompress.target.schema import DeviceProfile

_STRIPES = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
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
        nearest: where the limit was not met, the stage that would come nearest to it.
    """

    program: Program
    image_program: Program
    patches: tuple[PatchReport, ...] = ()
    nearest: PatchReport | None = None


def patch_to_fit(
    program: Program,
    profile: DeviceProfile,
    ram_limit_bytes: int | None = None,
    optimize: Optimize = "balanced",
) -> Fitted:
    """The device's program, with as few layers in stripes as its memory asks for.

    Args:
        program: lowered and placed; returned as it is when it fits, or when nothing helps.
        ram_limit_bytes: what the image may use of RAM in all; None for what the device has.

    Raises:
        BuildFailed: see `specialize`.
        DoesNotFit: the device has several memories, and no division of the arena fits them.
    """
    search = _Search(profile, arena_limit_bytes(profile, ram_limit_bytes), optimize)
    whole = search.image(program)
    if search.fits(whole):
        return Fitted(program, search.in_regions(whole))
    current, image = program, whole
    reports: list[PatchReport] = []
    while len(reports) < _MOST_STAGES and not search.fits(image):
        found = search.improve(current, image)
        if found is None:
            return Fitted(program, search.in_regions(whole), nearest=search.nearest)
        current, image, report = found
        reports.append(report)
    if not search.fits(image):
        return Fitted(program, search.in_regions(whole), nearest=search.nearest)
    current = with_functions(current)
    return Fitted(place(current), search.in_regions(search.image(current)), tuple(reports))


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
class _Candidate:
    stage: Stage
    extra_cycles: float
    program: Program


class _Search:
    """One device, one limit; remembers the offers and the stage that came nearest."""

    def __init__(self, profile: DeviceProfile, limit_bytes: int | None, optimize: Optimize) -> None:
        self.profile, self.optimize = profile, optimize
        self.limit_bytes = limit_bytes
        self.offers = Offers(profile)
        self.nearest: PatchReport | None = None

    def image(self, program: Program) -> Program:
        """The device's program, in one arena."""
        return install(program, choose_for(program, self.offers, self.optimize))

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

    def improve(
        self, program: Program, image: Program
    ) -> tuple[Program, Program, PatchReport] | None:
        """(divided program, its device program, report) with the fullest step relieved."""
        goal = self.goal_bytes(image)
        cycles = _cycles(program, choose_for(program, self.offers, self.optimize))
        live = _live(image)
        full = max(range(len(live)), key=lambda index: live[index])
        others = [index for index, size in enumerate(live) if size > goal]
        candidates = sorted(
            self._candidates(program, image, goal, full, cycles),
            key=lambda candidate: candidate.extra_cycles,
        )
        for candidate in candidates[:_TRIALS]:
            trial = self.image(candidate.program)
            relieved = max(_live(trial)[index] for index in _within(candidate.stage)) <= goal
            more = any(not _covers(candidate.stage, index) for index in others)
            if relieved and (more or self.fits(trial)):
                return candidate.program, trial, _report(program, image, candidate.stage, trial)
        return None

    def _candidates(
        self, program: Program, image: Program, goal: int, full: int, cycles: Sequence[float]
    ) -> Iterator[_Candidate]:
        """Stages around the fullest step within the goal, by memory alone."""
        live = _live(image)
        scratch = _scratch_bytes(image)
        for first, end in _ranges(program, live, goal, full):
            if _kept_bytes(program, first, end) > goal:
                continue
            enough = 0
            for stripes in _STRIPES:
                stage = Stage(first, end, stripes)
                try:
                    trial = divided(program, stage)
                except CannotStripe:
                    break
                peaks = _live(_with_scratch(trial, stage, scratch))
                self._remember(program, image, stage, trial, max(peaks))
                if max(peaks[index] for index in _within(stage)) <= goal:
                    yield _Candidate(stage, _extra_cycles(program, trial, stage, cycles), trial)
                    enough += 1
                if enough == _SPARE:
                    break

    def _remember(
        self, program: Program, image: Program, stage: Stage, trial: Program, peak: int
    ) -> None:
        if self.nearest is None or peak < self.nearest.arena_after_bytes:
            found = _report(program, image, stage, trial)
            self.nearest = found.model_copy(update={"arena_after_bytes": peak})


def _ranges(
    program: Program, live: Sequence[int], goal: int, full: int
) -> Iterator[tuple[int, int]]:
    """Stages that hold the fullest step and those beside it that are too full, short ones first."""
    least = most = full
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


def _cycles(program: Program, chosen: Sequence[Implementation | None]) -> list[float]:
    """Predicted cycles of each step; portable kernels by a rough count of their work."""
    return [
        float(item.cost.cycles)
        if item is not None
        else 4.0 * (step.macs + program.buffers[step.output].size_bytes)
        for step, item in zip(program.steps, chosen, strict=True)
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


def _report(program: Program, image: Program, stage: Stage, trial: Program) -> PatchReport:
    return PatchReport(
        first_layer=program.steps[stage.first].name,
        last_layer=program.steps[stage.end - 1].name,
        layers=stage.end - stage.first,
        stripes=stage.stripes,
        arena_before_bytes=image.arena_bytes,
        arena_after_bytes=trial.arena_bytes,
        extra_macs_percent=round(100 * (trial.macs / max(1, program.macs) - 1), 2),
    )
