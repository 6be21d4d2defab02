"""Finds a target by name, alias or file, resolves `inherits`, and says what is wrong with one."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgecompress.errors import InvalidTarget, UnknownTarget
from edgecompress.target.files import Entry, overlay, read_file
from edgecompress.target.folders import Found, Index, build_index, find, matches, plain
from edgecompress.target.pyocd_chips import Chip
from edgecompress.target.schema import DeviceProfile

_NEAR = 0.6  # of difflib's ratio


def target_names() -> list[str]:
    """Names of all targets: the user's folders' and the shipped ones, sorted."""
    return sorted(build_index().targets)


def list_targets() -> tuple[list[tuple[Found, DeviceProfile]], dict[Path, str]]:
    """Every target with where it comes from, sorted by name, and the files that are wrong."""
    index = build_index()
    listed, faults = [], dict(index.faults)
    for name, fault in index.doubles.items():
        faults[Path(name)] = fault
    for _, found in sorted(index.targets.items()):
        try:
            listed.append((found, _validated(found.entry, index)))
        except InvalidTarget as error:
            faults[found.entry.path] = error.message
    return listed, faults


def place_of(name: str) -> str:
    """The file that describes a target, and which variant of it.

    Raises:
        UnknownTarget: no such name; the nearest ones are listed.
    """
    return _entry(name, build_index()).place


def relatives(part: str) -> tuple[str | None, list[str]]:
    """The target that already answers to a part number, and those of its family with firmware."""
    index = build_index()
    known = find(part, index)
    family = next(
        (
            found.entry.name
            for found in index.families.values()
            if any(matches(plain(part), word) for word in found.entry.words())
        ),
        None,
    )
    members = [
        found.entry.name
        for found in index.targets.values()
        if family is not None and found.entry.own.get("family") == family
    ]
    ready = [name for name in sorted(members) if load_target(name).has_firmware]
    return (known.entry.name if known else None), ready


def with_family_facts(chip: Chip) -> Chip:
    """The chip with core and FPU of the family its part number is of, where it did not say.

    A family's `aliases` are the part numbers that belong to it; one with cores of several kinds
    has no core of its own and says nothing.
    """
    index = build_index()
    for found in index.families.values():
        if any(matches(plain(chip.part), word) for word in found.entry.words()):
            tables = _merged(found.entry, index, seen=())
            core = tables.get("core", {})
            known = chip.core or core.get("name")
            if known == core.get("name") and not isinstance(chip.fpu, str):
                source = f"{chip.source}; core and FPU as in family {found.entry.name}"
                return replace(chip, core=known, fpu=core.get("fpu"), source=source)
            return chip
    return chip


def load_target(name: str) -> DeviceProfile:
    """A target by name or alias in any case, or by the path of its TOML.

    A path may end in ":variant" to name one of a family file.

    Raises:
        UnknownTarget: no such name; the nearest ones are listed.
        InvalidTarget: the TOML, or one it inherits from, breaks the schema.
    """
    index = build_index()
    return _validated(_entry(name, index), index)


def _entry(name: str, index: Index) -> Entry:
    file, _, variant = name.rpartition(":")
    if name.endswith(".toml"):
        return _entry_of_file(name, "")
    if file.endswith(".toml"):
        return _entry_of_file(file, variant)
    found = find(name, index)
    if found is not None:
        return found.entry
    for path, fault in index.faults.items():
        if plain(path.stem) == plain(name):
            raise InvalidTarget(fault)
    raise _unknown(name, index)


def _entry_of_file(file: str, variant: str) -> Entry:
    path = Path(file)
    if not path.is_file():
        raise UnknownTarget(
            f"There is no target file '{file}'.",
            next_step="`edgecompress targets list` names those that ship.",
        )
    entries = [entry for entry in read_file(path) if not entry.is_family]
    named = [entry for entry in entries if not variant or plain(entry.name) == plain(variant)]
    if len(named) == 1:
        return named[0]
    names = ", ".join(entry.name for entry in entries)
    if variant:
        raise UnknownTarget(f"{file} describes no '{variant}'.", next_step=f"It has {names}.")
    raise UnknownTarget(
        f"{file} describes {len(entries)} targets: {names}.",
        next_step=f"Name one: {file}:{entries[0].name}.",
    )


def _unknown(name: str, index: Index) -> UnknownTarget:
    if plain(name) in index.families:
        members = [
            found.entry.name
            for found in index.targets.values()
            if found.entry.own.get("family") == plain(name)
        ]
        return UnknownTarget(
            f"'{name}' is a family of targets.", next_step=f"It has {', '.join(sorted(members))}."
        )
    known = {plain(word): found.entry.name for found in index.targets.values()
             for word in (found.entry.name, *found.entry.words())}  # fmt: skip
    asked = plain(name)
    words = difflib.get_close_matches(asked, known, n=6, cutoff=_NEAR)
    # A part number of which we know other packages: the longest common beginning is nearest.
    words += [word for word in known if len(asked) >= 6 and word.startswith(asked[:9])]
    near = list(dict.fromkeys(known[word] for word in words))[:3]
    if near:
        return UnknownTarget(
            f"There is no target '{name}'.", next_step=f"Nearest: {', '.join(near)}."
        )
    return UnknownTarget(
        f"There is no target '{name}'.",
        next_step=f"`edgecompress targets list` names all {len(index.targets)}; "
        "`edgecompress targets new` describes another chip.",
    )


def _validated(entry: Entry, index: Index) -> DeviceProfile:
    merged = _merged(entry, index, seen=())
    try:
        return DeviceProfile.model_validate(merged)
    except ValidationError as error:
        raise InvalidTarget(_explain(entry.place, error)) from None


def _merged(entry: Entry, index: Index, seen: tuple[Entry, ...]) -> dict[str, Any]:
    """The entry's tables over those of what it inherits from, all the way down."""
    if entry in seen:
        chain = " -> ".join(part.name for part in (*seen, entry))
        raise InvalidTarget(f"Targets inherit in a circle: {chain}.")
    if len(seen) > 16:
        raise InvalidTarget(f"{entry.place} inherits through more than 16 others.")
    if entry.inherits is None:
        return entry.own
    parent = _parent(entry, entry.inherits, index)
    return overlay(_merged(parent, index, (*seen, entry)), entry.own)


def _parent(entry: Entry, name: str, index: Index) -> Entry:
    """In the same file, else in the file of that name beside it, else in the folders.

    A user's target may inherit from the shipped one whose name it takes.
    """
    candidates = [other for other in read_file(entry.path) if other.name == name]
    beside = entry.path.parent / f"{name}.toml"
    if beside.is_file() and beside != entry.path:
        candidates += [other for other in read_file(beside) if other.name in (name, beside.stem)]
    found = index.targets.get(name) or index.families.get(name)
    if found is not None:
        candidates.append(found.entry)
    candidates += _shipped(name)
    for other in candidates:
        if other != entry:
            return other
    if candidates:
        return entry
    raise InvalidTarget(f"{entry.place} inherits from '{name}', which is not a target or family.")


def _shipped(name: str) -> list[Entry]:
    from edgecompress.paths import shipped

    return [
        entry
        for path in sorted(shipped("targets").glob("*.toml"))
        for entry in read_file(path)
        if entry.name == name
    ]


def _explain(place: str, error: ValidationError) -> str:
    """One line naming the file, each key at fault, and what the schema wants there."""
    faults = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        kind = fault["type"]
        if kind == "extra_forbidden":
            faults.append(f"'{where}' is not a key of the target schema")
        elif kind == "missing":
            faults.append(f"'{where}' is required by the target schema and missing")
        elif kind == "string_pattern_mismatch":
            faults.append(
                f"'{where}': a name begins with a letter or digit and has letters, digits, spaces "
                f"and . _ + -, 64 at most (given {fault['input']!r})"
            )
        else:
            message = fault["msg"].removeprefix("Value error, ")
            given = "" if isinstance(fault["input"], dict) else f" (given {fault['input']!r})"
            faults.append(f"'{where}': {message}{given}")
    return f"{place}: {'; '.join(faults)}."
