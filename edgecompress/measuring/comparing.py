"""Two measurements as a ratio with the interval it lies in."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from pathlib import Path

from edgecompress.device.statistics import ratio_of_medians, summarize
from edgecompress.errors import BadInput
from edgecompress.measuring.artifact import open_artifact
from edgecompress.measuring.likeness import Findings, check_across, check_alike
from edgecompress.measuring.store import FOLDER, read_measurement
from edgecompress.records import Comparison, Interval, LayerRatio, Measurement, TimeStatistics

FEW_RUNS = 10
"""Below this a bootstrap of the median is too narrow to be believed."""
MOST_PER_TICK = 1e9
"""Instructions a tick: emulated timers count every 40 to 50."""


def compare(
    first: Path, second: Path, *, across: Collection[str] = (), force: bool = False
) -> Comparison:
    """The second measurement against the first.

    Args:
        first, second: files `profile` wrote, or artifact folders: their latest measurement.
        across: what may differ besides the firmware, see `likeness.ACROSS`.
        force: compares unlike runs of the same kind of number too, and marks the result.

    Raises:
        BadInput: no measurement, a damaged one, one of a firmware the folder no longer holds, or
            one that holds no figure.
        UnlikeRuns: the runs differ in what makes the ratio meaningless.
    """
    across = check_across(across)
    (first_file, one), (second_file, two) = _read(first), _read(second)
    findings = check_alike(one, two, across=across, force=force)
    for file, measured in ((first_file, one), (second_file, two)):
        _check_has_figure(file, measured)
    return _compared(one, two, findings, (str(first_file), str(second_file)))


def _read(path: Path) -> tuple[Path, Measurement]:
    file, measured = read_measurement(path)
    if measured.provenance is None:
        raise BadInput(
            f"{file} does not say where it comes from.", next_step="Measure again with `profile`."
        )
    if (path / "image.json").is_file():
        held = open_artifact(path, measured.provenance.target).manifest.firmware_hash
        if held != measured.provenance.firmware_hash:
            raise BadInput(
                f"{file}, the latest measurement of {path}, is of another firmware "
                f"({measured.provenance.firmware_hash[:12]}) than the folder holds "
                f"({held[:12]}).",
                next_step=f"Measure it: edgecompress profile {path}; or name a file in "
                f"{path / FOLDER}.",
            )
    return file, measured


def _check_has_figure(file: Path, measured: Measurement) -> None:
    if measured.instructions is None and measured.time is None:
        raise BadInput(
            f"{file} holds neither a time nor a count: {measured.device} has no honest clock.",
            next_step="Measure on a device, or on a virtual board.",
        )
    if not _is_sound(measured):
        raise BadInput(
            f"{file} contradicts itself: its figures are not those of the runs it lists.",
            next_step="Measure again; it was changed, or damaged.",
        )
    if _cost(measured) <= 0 or not all(measured.ticks):
        raise BadInput(
            f"{file} has runs that took no time, of which there is no ratio.",
            next_step="Measure again; a timer that stands still measures nothing.",
        )
    if measured.time is not None and len(measured.ticks) < 2:
        raise BadInput(
            f"{file} is of a single run, from which no interval follows.",
            next_step=f"Measure again with --runs {FEW_RUNS} or more.",
        )


def _is_sound(measured: Measurement) -> bool:
    """Whether the figures follow from the runs: files may come from anywhere."""
    assert measured.provenance is not None
    if not measured.ticks:
        return False
    if measured.time is not None:
        tick_hz = measured.provenance.tick_hz
        return (
            measured.label == "measured on device"
            and tick_hz > 0
            and _same(measured.time, summarize(measured.ticks, tick_hz))
        )
    per_tick = measured.instructions_per_tick
    if per_tick is None or not 0 < per_tick < MOST_PER_TICK:
        return False
    return measured.instructions == round(statistics.median(measured.ticks) * per_tick)


def _same(one: TimeStatistics, two: TimeStatistics) -> bool:
    """Up to the rounding in which versions of numpy and scipy differ."""
    pairs = zip(one.model_dump().values(), two.model_dump().values(), strict=True)
    return all(
        first is second is None
        or (first is not None and second is not None and math.isclose(first, second, rel_tol=1e-6))
        for first, second in pairs
    )


def _compared(
    one: Measurement, two: Measurement, findings: Findings, names: tuple[str, str]
) -> Comparison:
    timed = one.time is not None and two.time is not None
    ratio, method = _ratio_of_times(one, two) if timed else _ratio_of_counts(one, two)
    first, second = one.provenance, two.provenance
    assert first is not None
    assert second is not None
    return Comparison(
        first_name=names[0],
        second_name=names[1],
        label=one.label,
        unit="us" if timed else "instructions",
        first=_cost(one),
        second=_cost(two),
        ratio=ratio,
        method=method,
        layers=_layer_ratios(one, two),
        flash_bytes=(first.flash_bytes, second.flash_bytes),
        ram_bytes=(first.ram_bytes, second.ram_bytes),
        differs=findings.differs,
        allowed=findings.allowed,
        forced=findings.forced,
        warnings=_warnings(one, two),
    )


def _cost(measured: Measurement) -> float:
    if measured.time is not None:
        return measured.time.median_us
    assert measured.instructions is not None
    return float(measured.instructions)


def _ratio_of_times(one: Measurement, two: Measurement) -> tuple[Interval, str]:
    scales = [_us_per_tick(measured) for measured in (one, two)]
    ratio = ratio_of_medians(
        [tick * scales[0] for tick in one.ticks],
        [tick * scales[1] for tick in two.ticks],
        first_resolution_us=scales[0],
        second_resolution_us=scales[1],
    )
    return ratio, "95 % interval: percentile bootstrap of both medians, widened by a tick of each"


def _us_per_tick(measured: Measurement) -> float:
    assert measured.time is not None
    return measured.time.resolution_us


def _ratio_of_counts(one: Measurement, two: Measurement) -> tuple[Interval, str]:
    """Exact where every run counted the same and a tick is an instruction; else all it can be."""
    (first, low_first, high_first), (second, low_second, high_second) = _range(one), _range(two)
    ratio = Interval(
        value=second / first,
        low=low_second / high_first,
        high=high_second / low_first,
        exact=low_first == high_first and low_second == high_second,
    )
    if ratio.exact:
        return ratio, "exact, emulated"
    return ratio, "bounds: least and most counted, and a tick of the emulated timer"


def _range(measured: Measurement) -> tuple[float, float, float]:
    """(median, least, most) instructions of a run."""
    per_tick = measured.instructions_per_tick or 1.0
    hidden = per_tick if per_tick > 1 else 0.0
    low, high = min(measured.ticks) * per_tick - hidden, max(measured.ticks) * per_tick + hidden
    return _cost(measured), max(low, 1.0), high


def _layer_ratios(one: Measurement, two: Measurement) -> tuple[LayerRatio, ...]:
    """By name, in the first's order, then what only the second has."""
    first, second = _layer_costs(one), _layer_costs(two)
    ratios = []
    for name in [*first, *(name for name in second if name not in first)]:
        costs = first.get(name), second.get(name)
        known = costs[0] and costs[1] is not None
        ratios.append(
            LayerRatio(
                name=name, first=costs[0], second=costs[1],
                ratio=costs[1] / costs[0] if known else None,  # type: ignore[operator]
            )
        )  # fmt: skip
    return tuple(ratios)


def _layer_costs(measured: Measurement) -> dict[str, float]:
    scale = measured.instructions_per_tick or 1.0
    if measured.time is not None:
        scale = _us_per_tick(measured)
    return {layer.name: layer.ticks * scale for layer in measured.layers}


def _warnings(one: Measurement, two: Measurement) -> tuple[str, ...]:
    found = []
    for which, measured in (("first", one), ("second", two)):
        found += [f"In the {which}: {warning}" for warning in measured.warnings]
        if measured.incomplete:
            found.append(f"The {which} is incomplete: {measured.incomplete}")
        if measured.time is not None and len(measured.ticks) < FEW_RUNS:
            found.append(
                f"The {which} has {len(measured.ticks)} runs; below {FEW_RUNS} the interval is too "
                "narrow."
            )
    return tuple(found)
