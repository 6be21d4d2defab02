"""A target file as it is written: one target, or a family with its variants, not yet merged.

    inherits = "cortex-m4"          # a target or a family
    family = "stm32f4"
    source = "..."                  # shared by all variants, tables too

    [[variants]]
    name = "stm32f446re"
    regions = [...]

A variant is laid over the shared part, that over what it inherits from; tables merge key by key,
everything else replaces.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecompress.errors import InvalidTarget

_LARGEST_FILE_BYTES = 4 << 20
# What one target is called is not handed down to another.
_NOT_INHERITED = ("name", "aliases", "boards")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Entry:
    """One target of a file, or, with `is_family`, what its variants share.

    `own` is the file's tables for it, `inherits` the name of what they are laid over.
    """

    name: str
    path: Path
    own: dict[str, Any]
    inherits: str | None
    is_family: bool = False
    is_variant: bool = False

    @property
    def place(self) -> str:
        """The file, and which variant of it."""
        return f"{self.path}:{self.name}" if self.is_variant else str(self.path)

    def words(self) -> Iterator[str]:
        """Its aliases and boards; "*" and "?" in them stand for any characters, for one."""
        for key in ("aliases", "boards"):
            listed = self.own.get(key, [])
            yield from (
                (word for word in listed if isinstance(word, str))
                if isinstance(listed, list)
                else ()
            )


def read_file(path: Path) -> tuple[Entry, ...]:
    """Every target of a TOML, the family itself first where it is one.

    Raises:
        InvalidTarget: not TOML, too large, or its variants are not a list of named tables.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidTarget(f"{path} cannot be read: {error.strerror}.") from None
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1024)
def _read(path: Path, _changed_ns: int, size_bytes: int) -> tuple[Entry, ...]:
    if size_bytes > _LARGEST_FILE_BYTES:
        raise InvalidTarget(
            f"{path} has {size_bytes} bytes; a target file has at most {_LARGEST_FILE_BYTES}."
        )
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTarget(f"{path} is not TOML: {error}.") from None
    except OSError as error:
        raise InvalidTarget(f"{path} cannot be read: {error.strerror}.") from None
    inherits = tables.pop("inherits", None)
    if inherits is not None and not isinstance(inherits, str):
        raise InvalidTarget(f"{path}: inherits is {inherits!r}; write one target's name.")
    variants = tables.pop("variants", None)
    if variants is None:
        name = tables.get("name", path.stem)
        return (Entry(str(name), path, tables, inherits),)
    return tuple(_family(path, tables, variants, inherits))


def _family(
    path: Path, shared: dict[str, Any], variants: Any, inherits: str | None
) -> Iterator[Entry]:
    if "name" in shared:
        raise InvalidTarget(
            f"{path} has [[variants]] and a name of its own; give the family's as family."
        )
    family = shared.get("family")
    if not isinstance(family, str) or _NAME.fullmatch(family) is None:
        raise InvalidTarget(f"{path} has [[variants]] but family names none (given {family!r}).")
    if not isinstance(variants, list) or not variants:
        raise InvalidTarget(f"{path}: variants is not a list of tables; write [[variants]].")
    yield Entry(family, path, shared, inherits, is_family=True)
    seen: set[str] = set()
    for index, variant in enumerate(variants):
        name = variant.get("name") if isinstance(variant, dict) else None
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise InvalidTarget(f"{path}: variants.{index} has no usable name (given {name!r}).")
        if name in seen:
            raise InvalidTarget(f"{path} describes two variants named '{name}'.")
        seen.add(name)
        parent = variant.get("inherits", family)
        if not isinstance(parent, str):
            raise InvalidTarget(f"{path}: variants.{index}.inherits is {parent!r}; write a name.")
        own = {key: value for key, value in variant.items() if key != "inherits"}
        yield Entry(name, path, {"family": family, **own}, parent, is_variant=True)


def overlay(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `base`: tables key by key, everything else replaces; names are not inherited."""
    kept = {key: value for key, value in base.items() if key not in _NOT_INHERITED}
    return _merge(kept, own)


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged
