"""The same measurement again and again, to see it drift."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecompress.device.harness import open_device
from edgecompress.device.meter import Meter
from edgecompress.device.provenance import Remarks
from edgecompress.device.statistics import summarize
from edgecompress.errors import DeviceTrouble
from edgecompress.measuring.artifact import open_artifact
from edgecompress.measuring.profiling import keep, keep_incomplete
from edgecompress.progress import SILENT, Progress
from edgecompress.records import Measurement, TimeStatistics


@dataclass(frozen=True)
class Round:
    """One round of a watch.

    Attributes:
        number: from 1.
        median_ticks: of this round.
        drift: its median against the first round's, as a fraction.
        time: of this round, where ticks are time.
        instructions: of this round, where ticks count them.
        runs: of all rounds so far.
    """

    number: int
    median_ticks: float
    drift: float
    time: TimeStatistics | None
    instructions: int | None
    runs: int


def watch(
    image_dir: Path,
    on_round: Callable[[Round], bool | None],
    *,
    device: str | None = None,
    runs: int = 10,
    warmup: int = 1,
    layers: bool = False,
    target: str | None = None,
    voltage_v: float | None = None,
    note: str = "",
    progress: Progress = SILENT,
) -> Measurement:
    """Rounds of `runs` until interrupted (KeyboardInterrupt) or `on_round` returns False.

    Both are ordinary ends: all rounds together are one measurement, kept beside the image. Layers
    are measured once, before the rounds.

    Raises:
        KeyboardInterrupt: before the first run was measured.
        DeviceTrouble: as `profile`; the rounds until then are kept.
    """
    artifact = open_artifact(image_dir, target)
    where = device or artifact.default_device()
    progress.stage(f"Watch {where}; Ctrl-C ends it")
    with open_device(image_dir, artifact.profile, where) as session:
        meter = Meter(session, artifact.sample(), Remarks(voltage_v, note))
        try:
            meter.warm_up(warmup)
            meter.finish(runs)
            _rounds(meter, on_round, runs, session.port.clock.instructions_per_tick)
        except DeviceTrouble as error:
            kept = keep_incomplete(artifact, meter, error.message)
            if kept is not None:
                error.message += f" {meter.runs} runs were measured and are kept in {kept}."
            raise
        except KeyboardInterrupt:
            if not meter.runs:
                raise
        measured = keep(artifact, meter.record(), progress)
    return measured if layers else measured.model_copy(update={"layers": ()})


def _rounds(
    meter: Meter, on_round: Callable[[Round], bool | None], runs: int, per_tick: float | None
) -> None:
    number, first = 0, 0.0
    while True:
        number += 1
        ticks = meter.run(runs)
        median = statistics.median(ticks)
        first = first or median
        made = Round(
            number=number,
            median_ticks=median,
            drift=median / first - 1 if first else 0.0,
            time=summarize(ticks, meter.tick_hz) if meter.times else None,
            instructions=None if per_tick is None else round(median * per_tick),
            runs=meter.runs,
        )
        if on_round(made) is False:
            return
