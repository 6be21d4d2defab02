"""Finds target TOMLs, resolves `inherits`, and says what is wrong with one."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgecompress.errors import InvalidTarget, UnknownTarget
from edgecompress.paths import shipped
from edgecompress.target.schema import DeviceProfile


def target_names() -> list[str]:
    """Names of the shipped targets, sorted."""
    return sorted(path.stem for path in shipped("targets").glob("*.toml"))


def load_target(name: str) -> DeviceProfile:
    """A shipped target by name, or any target by the path of its TOML.

    Raises:
        UnknownTarget: no such name; the nearest ones are listed.
        InvalidTarget: the TOML, or one it inherits from, breaks the schema.
    """
    path = Path(name) if name.endswith(".toml") else shipped("targets") / f"{name}.toml"
    if not path.is_file():
        raise _unknown(name)
    merged = _merged(path, seen=())
    try:
        return DeviceProfile.model_validate(merged)
    except ValidationError as error:
        raise InvalidTarget(_explain(path, error)) from None


def _unknown(name: str) -> UnknownTarget:
    known = target_names()
    if name.endswith(".toml"):
        return UnknownTarget(
            f"There is no target file '{name}'.", next_step=f"Shipped: {', '.join(known)}."
        )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    next_step = f"Nearest: {', '.join(near)}." if near else f"Known: {', '.join(known)}."
    return UnknownTarget(f"There is no target '{name}'.", next_step=next_step)


def _merged(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The TOML laid over the one it inherits from; tables merge, everything else replaces."""
    if path in seen:
        chain = " -> ".join(part.stem for part in (*seen, path))
        raise InvalidTarget(f"Targets inherit in a circle: {chain}.")
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidTarget(f"{path} is not TOML: {error}.") from None
    parent = own.pop("inherits", None)
    if parent is None:
        return own
    beside = path.parent / f"{parent}.toml"
    base = beside if beside.is_file() else shipped("targets") / f"{parent}.toml"
    if not base.is_file():
        raise InvalidTarget(f"{path} inherits from '{parent}', which is not a target.")
    return _overlay(_merged(base, (*seen, path)), own)


def _overlay(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _overlay(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _explain(path: Path, error: ValidationError) -> str:
    """One line naming the file, each key at fault, and what the schema wants there."""
    faults = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        kind = fault["type"]
        if kind == "extra_forbidden":
            faults.append(f"'{where}' is not a key of the target schema")
        elif kind == "missing":
            faults.append(f"'{where}' is required by the target schema and missing")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            given = "" if isinstance(fault["input"], dict) else f" (given {fault['input']!r})"
            faults.append(f"'{where}': {message}{given}")
    return f"{path}: {'; '.join(faults)}."
