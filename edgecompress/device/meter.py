"""Measures one sample on one device, and can say at any moment what it has measured so far."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.device.cycles import MODELS, Work
from edgecompress.device.doubts import doubts_of_device, doubts_of_time
from edgecompress.device.provenance import Remarks
from edgecompress.device.statistics import summarize
from edgecompress.progress import SILENT, Progress
from edgecompress.records import CycleEstimate, LayerMeasurement, Measurement, TimeStatistics

if TYPE_CHECKING:
    from edgecompress.device.harness import Session, StepCost

LAYER_PASSES = 5
"""Passes over the layers where ticks are time and more than one run was asked for."""
KEPT_RUNS = 100_000
"""A watch that goes on for days keeps this many of its latest runs."""


class Meter:
    """Collects warm-up, runs and passes over the layers.

    Ticks of an emulator become instructions, ticks of a real clock become microseconds, and
    neither is ever given as the other; under qemu-user there is no honest figure, so both are
    None. The few instructions of reading the timer are included. Runs after the first may compute
    on an input the arena has reused, which changes no kernel's path through its code.

    Args:
        session: an open device.
        x: one sample in the device's layout and type.
    """

    def __init__(self, session: Session, x: np.ndarray, remarks: Remarks | None = None) -> None:
        self._session, self._x = session, x
        self._remarks = remarks or Remarks()
        self._warmup, self._runs = 0, 0
        self._ticks: deque[int] = deque(maxlen=KEPT_RUNS)
        self._wall_seconds = 0.0
        self._work: Work | None = None
        self._layers: tuple[LayerMeasurement, ...] = ()
        self._stack_bytes: int | None = None
        self._loaded = False

    @property
    def runs(self) -> int:
        return self._runs

    def warm_up(self, runs: int) -> None:
        """Inferences that are not counted."""
        self._load()
        for _ in range(runs):
            self._session.run()
            self._warmup += 1

    @property
    def times(self) -> bool:
        """Whether its ticks are time, `tick_hz` of them a second."""
        return self._session.port.clock.ticks_are_time

    @property
    def tick_hz(self) -> int:
        return self._session.tick_hz

    def run(self, runs: int, progress: Progress = SILENT) -> list[int]:
        """Measured inferences, added to those before; the ticks of these."""
        self._load()
        made = []
        for _ in range(runs):
            first = not self._runs
            if first:
                self._session.take_work()
            begun = time.perf_counter()
            ticks = self._session.run()
            self._wall_seconds += time.perf_counter() - begun
            if first:
                self._work = self._session.take_work()
            made.append(ticks)
            self._ticks.append(ticks)
            self._runs += 1
            progress.advance()
        return made

    def finish(self, passes: int | None = None) -> None:
        """The passes over the layers, and the stack's mark.

        Args:
            passes: at most; by default as many as there were runs.
        """
        wanted = min(self._runs if passes is None else passes, LAYER_PASSES)
        passes = max(1, wanted) if self.times else 1
        taken = []
        self._loaded = False
        for _ in range(passes):
            taken.append(self._session.step_costs(self._x))
        self._layers = tuple(
            self._layer([one[index] for one in taken]) for index in range(len(taken[0]))
        )
        self._stack_bytes = self._session.stack_high_water()

    def _load(self) -> None:
        if not self._loaded:
            self._session.load(self._x)
            self._loaded = True

    def time(self) -> TimeStatistics | None:
        """Of the runs so far; None where ticks are not time, or there are none."""
        if not self._ticks or not self._session.port.clock.ticks_are_time:
            return None
        return summarize(self._ticks, self._session.tick_hz)

    def record(self, *, incomplete: str = "") -> Measurement:
        """All that was measured so far, at least one run.

        Args:
            incomplete: why there is less of it than was asked for.
        """
        session, clock = self._session, self._session.port.clock
        per_tick = clock.instructions_per_tick
        found = self.time()
        ticks = statistics.median(self._ticks)
        origin = session.provenance(self._remarks)
        doubts: list[str] = []
        if clock.ticks_are_time:
            doubts += doubts_of_device(origin)
        if found is not None:
            complete = self._runs == len(self._ticks)
            wall = self._wall_seconds if complete else None
            doubts += doubts_of_time(found, list(self._ticks), wall_seconds=wall)
        return Measurement(
            device=session.port.name,
            label=clock.label,
            instructions=None if per_tick is None else round(ticks * per_tick),
            words=None if self._work is None else self._work.words,
            cycles=self._cycles(self._work),
            latency_us=None if found is None else found.median_us,
            runs=self._runs,
            stack_high_water_bytes=self._stack_bytes,
            layers=self._layers,
            warmup=self._warmup,
            ticks=tuple(self._ticks),
            instructions_per_tick=per_tick,
            time=found,
            provenance=origin,
            incomplete=incomplete,
            warnings=tuple(doubts),
        )

    def _layer(self, costs: list[StepCost]) -> LayerMeasurement:
        layer = self._session.manifest.layers[costs[0].index]
        ticks = [cost.ticks for cost in costs]
        return LayerMeasurement(
            index=layer.index,
            name=layer.name,
            ticks=round(statistics.median(ticks)),
            macs=layer.macs,
            implementation=layer.implementation,
            cycles=self._cycles(costs[0].work),
            low_ticks=min(ticks),
            high_ticks=max(ticks),
        )

    def _cycles(self, work: Work | None) -> CycleEstimate | None:
        """By the model of the image's own core; None where it has none."""
        core = self._session.core
        if work is None or core not in work.cycles:
            return None
        low, high = work.cycles[core]
        return CycleEstimate(low=low, high=high, model=MODELS[core].name)
