"""Where target files are looked for, and which of them describes a name."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgecompress.errors import InvalidTarget
from edgecompress.paths import shipped
from edgecompress.target.files import Entry, read_file

VARIABLE = "EDGECOMPRESS_TARGETS"
SHIPPED = "shipped"


@dataclass(frozen=True)
class Folder:
    """A folder of target files; `label` is what a user calls it."""

    path: Path
    label: str


@dataclass(frozen=True)
class Found:
    """A target of a folder; `shadows` are the places of those of the same name it hides."""

    entry: Entry
    folder: Folder
    shadows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Index:
    """All targets by name, families by name, and what is wrong.

    `faults` are files that cannot be read, `doubles` names one folder describes twice, in lower
    case.
    """

    targets: dict[str, Found] = field(default_factory=dict)
    families: dict[str, Found] = field(default_factory=dict)
    faults: dict[Path, str] = field(default_factory=dict)
    doubles: dict[str, str] = field(default_factory=dict)


def target_folders() -> list[Folder]:
    """./targets, each folder of $EDGECOMPRESS_TARGETS, the shipped ones; first wins.

    A folder that is not there is passed over; one listed twice counts once, the shipped one always
    as shipped.
    """
    own = [Folder(Path("targets"), "./targets")]
    listed = os.environ.get(VARIABLE, "").split(os.pathsep)
    own += [Folder(Path(part).expanduser(), part) for part in listed if part]
    home = shipped("targets")
    seen = {home.resolve()}
    folders = []
    for folder in own:
        where = folder.path.resolve()
        if where not in seen and folder.path.is_dir():
            seen.add(where)
            folders.append(folder)
    return [*folders, Folder(home, SHIPPED)]


def build_index() -> Index:
    """Reads every folder. A broken file, or a name described twice, leaves the others usable."""
    index = Index()
    for folder in target_folders():
        here: dict[str, Entry] = {}
        for entry in _entries(folder, index.faults):
            if other := here.get(entry.name.lower()):
                index.doubles[entry.name.lower()] = (
                    f"'{entry.name}' is described twice: in {other.path} and in {entry.path}."
                )
                continue
            here[entry.name.lower()] = entry
        for entry in here.values():
            table = index.families if entry.is_family else index.targets
            hidden = table.get(entry.name)
            if hidden is None:
                table[entry.name] = Found(entry, folder)
            else:
                shadows = (*hidden.shadows, f"{folder.label}: {entry.path.name}")
                table[entry.name] = Found(hidden.entry, hidden.folder, shadows)
    return index


def _entries(folder: Folder, faults: dict[Path, str]) -> Iterator[Entry]:
    for path in sorted(folder.path.glob("*.toml")):
        try:
            yield from read_file(path)
        except InvalidTarget as error:
            faults[path] = error.message


def plain(word: str) -> str:
    """A name as it is compared: "STM32H743ZI" and "Nucleo H743ZI" are typed in many ways."""
    return word.strip().lower().replace("_", "-").replace(" ", "-")


def matches(asked: str, word: str) -> bool:
    """Whether a name, already `plain`, is an alias: "*" and "?" stand for any characters, one."""
    pattern = plain(word)
    if "*" in pattern or "?" in pattern:
        return fnmatch.fnmatchcase(asked, pattern)
    return asked == pattern


def find(name: str, index: Index) -> Found | None:
    """By its exact name, else by its name in any case, else by alias or board.

    Raises:
        InvalidTarget: two targets of the same folder have the name or claim the alias; both are
            named.
    """
    if double := index.doubles.get(name.strip().lower()):
        raise InvalidTarget(double)
    if exact := index.targets.get(name):
        return exact
    asked = plain(name)
    for found in index.targets.values():
        if plain(found.entry.name) == asked:
            return found
    claims = [
        found
        for found in index.targets.values()
        if any(matches(asked, word) for word in found.entry.words())
    ]
    first = [claim for claim in claims if claim.folder == claims[0].folder]
    if len(first) > 1:
        both = " and ".join(f"'{claim.entry.name}' ({claim.entry.path})" for claim in first[:2])
        raise InvalidTarget(f"'{name}' is an alias of {both}.", next_step="Give the full name.")
    return first[0] if first else None
