"""Which differences between two measurements are the point of comparing them, and which void it.

A ratio means something when one thing differs. The firmware may: the same model, compiled another
way, is what is usually compared. Every other aspect must be the same unless the user names it as
what the comparison is about (`--across clock`), and a board may be another only where the firmware
is the same, else one cannot tell which of the two made the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from edgecompress.errors import BadConfig, UnlikeRuns
from edgecompress.records import Measurement, Provenance

CLOCK_TOLERANCE = 1e-3
"""Clocks read back from registers and crystals agree far closer than this."""


@dataclass(frozen=True)
class Aspect:
    """Something two runs may differ in.

    Attributes:
        name: what `--across` takes.
        words: in messages.
        of: its value in a measurement, as text that is equal where the aspect is.
    """

    name: str
    words: str
    of: Callable[[Measurement, Provenance], str]


@dataclass(frozen=True)
class Findings:
    """Differences by aspect, as (in the first, in the second)."""

    differs: dict[str, tuple[str, str]]
    allowed: tuple[str, ...]
    forced: tuple[str, ...]


def _model(_measured: Measurement, origin: Provenance) -> str:
    return f"{origin.model_name} ({origin.model_hash[:12]})"


def _port(_measured: Measurement, origin: Provenance) -> str:
    """A device's own timer does not care which cable asks; emulators count differently."""
    return "cable" if origin.port == "serial" else origin.port


def _host(_measured: Measurement, origin: Provenance) -> str:
    """This computer is the device only where the image ran as its process."""
    if origin.port != "process":
        return ""
    return f"{origin.host.processor or origin.host.machine}, {origin.host.system}"


def _clock(_measured: Measurement, origin: Provenance) -> str:
    return f"{origin.clock_hz / 1e6:g} MHz"


def _settings(_measured: Measurement, origin: Provenance) -> str:
    """The firmware's own, and where and under which governor a phone's system ran it."""
    words = [f"{key}={value}" for key, value in sorted(origin.settings.items())]
    conditions = origin.conditions
    if conditions is not None:
        words.append(f"cpus={'+'.join(map(str, conditions.pinned_cpus)) or 'any'}")
        words += [f"{one.name}={one.governor}" for one in conditions.clusters_after if one.governor]
    return " ".join(words)


def _compiler(_measured: Measurement, origin: Provenance) -> str:
    return "" if origin.build is None else " ".join((origin.build.compiler, *origin.build.flags))


VOIDING = (
    Aspect("kind", "kind of number", lambda measured, _: measured.label),
    Aspect("model", "model", _model),
    Aspect("target", "target", lambda _, origin: origin.target),
    Aspect("port", "way to the device", _port),
    Aspect("host", "computer", _host),
    Aspect("clock", "clock", _clock),
    Aspect("settings", "settings", _settings),
    Aspect("requantize", "rounding of integer kernels", lambda _, origin: origin.requantize),
    Aspect("compiler", "compiler and flags", _compiler),
)
"""Differences that make a ratio meaningless, unless they are what it is about."""

NOTED = (
    Aspect("firmware", "firmware", lambda _, origin: origin.firmware_hash[:12]),
    Aspect("timer", "timer", lambda _, origin: f"{origin.tick_hz:,} Hz"),
    Aspect("warmup", "warm-up runs", lambda measured, _: str(measured.warmup)),
    Aspect("voltage", "voltage", lambda _, origin: _volts(origin)),
)
"""Differences that are shown and compared across."""

DEVICE = Aspect("device", "board", lambda _, origin: origin.device_id)
ACROSS = (*(aspect.name for aspect in VOIDING if aspect.name != "kind"), "firmware", "device")


def _volts(origin: Provenance) -> str:
    return "" if origin.voltage_v is None else f"{origin.voltage_v:g} V"


def _versions(origin: Provenance, other: Provenance) -> str:
    """Of the packages whose version is another in the other."""
    own, others = ({**one.versions, **(one.build.versions if one.build else {})}
                   for one in (origin, other))  # fmt: skip
    differing = [name for name in sorted({*own, *others}) if own.get(name) != others.get(name)]
    return ", ".join(f"{name} {own.get(name, 'absent')}" for name in differing)


def check_across(names: Collection[str]) -> tuple[str, ...]:
    """Raises BadConfig for what is not an aspect to compare across."""
    for name in names:
        if name not in ACROSS:
            raise BadConfig(
                f"'{name}' is nothing to compare across.", next_step=f"Use {', '.join(ACROSS)}."
            )
    return tuple(names)


def check_alike(
    first: Measurement, second: Measurement, *, across: Collection[str] = (), force: bool = False
) -> Findings:
    """What differs, where that does not void the comparison.

    Args:
        across: aspects that may differ.
        force: takes every other difference too, but not numbers of another kind.

    Raises:
        UnlikeRuns: with every difference that forbids it.
    """
    differs = _differences(first, second, VOIDING) | _differences(first, second, NOTED)
    void = [aspect for aspect in VOIDING if aspect.name in differs and aspect.name not in across]
    boards = _differences(first, second, (DEVICE,))
    differs |= boards
    if boards and "firmware" in differs and "device" not in across and _known(boards["device"]):
        void.append(DEVICE)
    impossible = any(aspect.name == "kind" for aspect in void)
    if void and (impossible or not force):
        raise _unlike(void, differs, impossible=impossible)
    return Findings(
        differs=differs,
        allowed=tuple(name for name in across if name in differs),
        forced=tuple(aspect.name for aspect in void),
    )


def _known(pair: tuple[str, str]) -> bool:
    return all(pair)


def _differences(
    first: Measurement, second: Measurement, aspects: Collection[Aspect]
) -> dict[str, tuple[str, str]]:
    one, two = first.provenance, second.provenance
    assert one is not None
    assert two is not None
    found = {}
    for aspect in aspects:
        pair = aspect.of(first, one), aspect.of(second, two)
        if pair[0] == pair[1] or (
            aspect.name == "clock"
            and math.isclose(one.clock_hz, two.clock_hz, rel_tol=CLOCK_TOLERANCE)
        ):
            continue
        found[aspect.name] = pair
    if aspects is NOTED and (versions := _versions(one, two)):
        found["versions"] = (versions, _versions(two, one))
    return found


def _unlike(
    void: list[Aspect], differs: dict[str, tuple[str, str]], *, impossible: bool
) -> UnlikeRuns:
    listed = [(aspect.words, *differs[aspect.name]) for aspect in void]
    sentences = "; ".join(
        f"{words}: {one or 'unknown'} against {two or 'unknown'}" for words, one, two in listed
    )
    names = ",".join(aspect.name for aspect in void if aspect.name != "kind")
    if impossible:
        next_step = "Measure both on a device, or both on the same emulator."
    else:
        next_step = (
            f"If that is what you compare, say --across {names}; --force compares anyway and "
            "marks the result."
        )
    return UnlikeRuns(f"These runs are not alike. {sentences}.", listed, next_step=next_step)
