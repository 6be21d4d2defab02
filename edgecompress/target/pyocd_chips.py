"""What pyOCD and CMSIS-Packs know of a chip: its memories, and where they say so core and clock.

pyOCD is an extra. Nothing here touches a probe, reads pyOCD's configuration or runs a script of
the working folder.
"""

from __future__ import annotations

import fnmatch
import io
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgecompress.errors import BadInput, UnknownTarget

_LARGEST_DESCRIPTION_BYTES = 64 << 20
_LARGEST_ALGORITHM_BYTES = 16 << 20
_MOST_FILES = 200_000
_LISTED = 8
_SERIES = 7  # "stm32h7"

_CORES = {
    "CM0": "cortex-m0", "CM0+": "cortex-m0plus", "CM0PLUS": "cortex-m0plus", "CM1": "cortex-m1",
    "CM3": "cortex-m3", "CM4": "cortex-m4", "CM7": "cortex-m7", "CM23": "cortex-m23",
    "CM33": "cortex-m33", "CM35P": "cortex-m35p", "CM55": "cortex-m55", "CM85": "cortex-m85",
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """One memory as pyOCD names it; sizes in bytes."""

    kind: Literal["flash", "ram"]
    name: str
    origin: int
    size: int
    boot: bool = False

    @property
    def end(self) -> int:
        return self.origin + self.size


@dataclass(frozen=True)
class Chip:
    """The facts of one chip; None where the source does not say.

    `fpu` True: it has one, of unknown precision.
    """

    part: str
    vendor: str
    pyocd_target: str
    pack: str
    source: str
    memories: tuple[Memory, ...]
    core: str | None = None
    fpu: Literal["none", "single", "double"] | bool | None = None
    clock_hz: int | None = None


def pyocd_missing() -> str | None:
    """Why pyOCD cannot be asked, or None."""
    try:
        import pyocd  # noqa: F401
    except ImportError:
        return "pyOCD is not installed (pip install 'edgecompress[targets]')"
    return None


def _need_pyocd() -> None:
    if reason := pyocd_missing():
        raise BadInput(f"{reason}.", next_step="Or describe the chip by hand.")
    # It warns on import about everything it can do without.
    logging.getLogger("pyocd").setLevel(logging.CRITICAL)


def builtin_names() -> list[str]:
    """The targets pyOCD knows without packs, sorted."""
    _need_pyocd()
    from pyocd.target.builtin import BUILTIN_TARGETS

    return sorted(BUILTIN_TARGETS)


def builtin_name(part: str) -> str | None:
    """pyOCD's name for a part number: exact, or with its x's standing for any character.

    "stm32h743zi" is "stm32h743xx"; an ordering code such as "stm32h743zit6" too.
    """
    asked = part.lower().replace("-", "_")
    names = builtin_names()
    if asked in names:
        return asked
    patterns = [name for name in names if _covers(name, asked)]
    return max(patterns, key=lambda name: (len(name.rstrip("x")), len(name)), default=None)


def _covers(name: str, asked: str) -> bool:
    """pyOCD writes an x for a character that does not matter, after the series' own letters."""
    pattern = name[:_SERIES] + name[_SERIES:].replace("x", "?")
    return len(name) > _SERIES and "?" in pattern and fnmatch.fnmatchcase(asked, f"{pattern}*")


def builtin_chip(part: str) -> Chip:
    """The facts of a chip pyOCD knows without a pack.

    Raises:
        UnknownTarget: it does not; the nearest names are listed.
    """
    import difflib

    name = builtin_name(part)
    if name is None:
        known = builtin_names()
        near = difflib.get_close_matches(part.lower(), known, n=4, cutoff=0.5)
        near += [one for one in known if one.startswith(part.lower()[:7])][:_LISTED]
        listed = ", ".join(dict.fromkeys(near)) or f"{len(known)} others; see `pyocd list -t`"
        raise UnknownTarget(
            f"pyOCD knows no target '{part}' without a CMSIS-Pack.",
            next_step=f"It has {listed}. Or give the vendor's pack with --from-pack.",
        )
    from pyocd import __version__

    target = _offline_target(name)
    core, fpu = _core_of_svd(target)
    return Chip(
        part=part.lower(),
        vendor=target.vendor,
        pyocd_target=name,
        pack="",
        source=f"pyOCD {__version__}, builtin target {name}",
        memories=_memories(target.memory_map),
        core=core,
        fpu=fpu,
    )


def builtin_memories(name: str) -> tuple[Memory, ...] | None:
    """The memories of one of pyOCD's builtin targets, None when it has none of that name."""
    return _memories(_offline_target(name).memory_map) if name in builtin_names() else None


def _offline_target(name: str) -> Any:
    """pyOCD's object for a chip that is not there."""
    from pyocd.core.session import Session
    from pyocd.probe.debug_probe import DebugProbe
    from pyocd.target.builtin import BUILTIN_TARGETS

    class Offline(Session):
        """Without a probe pyOCD loads no user script; a target wants to see one."""

        @property
        def probe(self) -> DebugProbe:
            return DebugProbe()

    session = Offline(None, no_config=True, project_dir=os.getcwd())
    return BUILTIN_TARGETS[name](session)


def _core_of_svd(target: Any) -> tuple[str | None, bool | None]:
    """The <cpu> of the register description pyOCD brings for the chip, where it has one."""
    location = getattr(target, "_svd_location", None)
    stream = getattr(location, "filename", None)
    if stream is None or not hasattr(stream, "read"):
        return None, None
    import defusedxml.ElementTree

    for _, element in defusedxml.ElementTree.iterparse(stream, forbid_dtd=True):
        if element.tag == "cpu":
            fpu = (element.findtext("fpuPresent") or "").strip().lower() in ("1", "true")
            name = (element.findtext("name") or "").strip().upper()
            return _CORES.get(name), fpu
        if element.tag == "peripheral":
            break
    return None, None


def _memories(memory_map: Iterable[Any]) -> tuple[Memory, ...]:
    from pyocd.core.memory_map import MemoryType

    kinds: dict[Any, Literal["flash", "ram"]] = {MemoryType.FLASH: "flash", MemoryType.RAM: "ram"}
    found = []
    for region in memory_map:
        # Flash whose programming algorithm the pack does not bring is a ROM to pyOCD.
        boots_from_rom = region.type is MemoryType.ROM and region.is_boot_memory
        kind = "flash" if boots_from_rom else kinds.get(region.type)
        if kind is not None and not getattr(region, "alias", None):
            found.append(
                Memory(kind, region.name, region.start, region.length, region.is_boot_memory)
            )
    return tuple(found)


def pack_chip(pack: Path, part: str | None) -> Chip:
    """The facts a CMSIS-Pack gives of one of its devices.

    Args:
        part: its name, any case; an ordering code finds the device it begins with. None takes the
            only one.

    Raises:
        BadInput: not a pack, or one made to exhaust memory.
        UnknownTarget: it has no such device, or several and `part` is None.
    """
    _need_pyocd()
    devices = {device.part_number: device for device in _opened(pack).devices}
    device = _chosen(devices, pack, part)
    # pyOCD has no public way to the clock.
    processors = list(getattr(getattr(device, "_info", None), "processors", []))
    attributes = dict(processors[0].attrib) if processors else {}
    core = attributes.get("Dcore", "").removeprefix("ARM ").replace("Cortex-", "C").upper()
    return Chip(
        part=device.part_number.lower(),
        vendor=device.vendor,
        pyocd_target=device.part_number.lower(),
        pack=pack.name,
        source=f"CMSIS-Pack {pack.name}, device {device.part_number}",
        memories=_memories(device.memory_map),
        core=_CORES.get(core),
        fpu=_fpu(attributes.get("Dfpu", "")),
        clock_hz=_clock(attributes.get("Dclock", "")),
    )


def _opened(pack: Path) -> Any:
    """pyOCD's CmsisPack, after what could hurt it has been looked for.

    pyOCD reads the description whole and lets it define entities.
    """
    import defusedxml.ElementTree
    from defusedxml.common import DefusedXmlException
    from pyocd.target.pack.cmsis_pack import CmsisPack, MalformedCmsisPackError

    try:
        with zipfile.ZipFile(pack) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_FILES:
                raise BadInput(f"{pack} holds {len(entries)} files; a pack has fewer.")
            description = next((one for one in entries if one.filename.endswith(".pdsc")), None)
            if description is None:
                raise BadInput(f"{pack} has no .pdsc file, so it is not a CMSIS-Pack.")
            if description.file_size > _LARGEST_DESCRIPTION_BYTES:
                raise BadInput(
                    f"{pack}: {description.filename} unpacks to {description.file_size >> 20} MiB; "
                    f"a description has at most {_LARGEST_DESCRIPTION_BYTES >> 20} MiB."
                )
            text = archive.read(description)
        for _, element in defusedxml.ElementTree.iterparse(io.BytesIO(text), forbid_dtd=True):
            if element.tag == "algorithm":
                _refuse_large(entries, element.get("name", ""), pack)
        return CmsisPack(str(pack))
    except FileNotFoundError:
        raise BadInput(f"There is no file {pack}.") from None
    except DefusedXmlException as error:
        raise BadInput(f"{pack}: its description defines entities or a DTD ({error}).") from None
    except (zipfile.BadZipFile, MalformedCmsisPackError, OSError, EOFError) as error:
        raise BadInput(f"{pack} is not a CMSIS-Pack: {error}.") from None
    except (SyntaxError, ValueError, KeyError, AssertionError, NotImplementedError,
            RuntimeError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]  # fmt: skip
        raise BadInput(f"{pack}: its description cannot be read: {error}.") from None


def _refuse_large(entries: list[zipfile.ZipInfo], name: str, pack: Path) -> None:
    """pyOCD unpacks a flash algorithm whole into memory, whatever file the name means."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    for entry in entries:
        if entry.filename.endswith(base) and entry.file_size > _LARGEST_ALGORITHM_BYTES:
            raise BadInput(
                f"{pack}: flash algorithm {entry.filename} unpacks to {entry.file_size >> 20} MiB; "
                f"one has at most {_LARGEST_ALGORITHM_BYTES >> 20} MiB."
            )


def _chosen(devices: dict[str, Any], pack: Path, part: str | None) -> Any:
    if not devices:
        raise UnknownTarget(f"{pack} describes no devices.")
    if part is None:
        if len(devices) == 1:
            return next(iter(devices.values()))
        raise UnknownTarget(
            f"{pack} describes {len(devices)} devices.",
            next_step=f"Name one with --device: {_shortened(devices)}.",
        )
    asked = part.lower()
    rules: tuple[Callable[[str], bool], ...] = (
        lambda name: name == asked,
        lambda name: asked.startswith(name),
        lambda name: name.startswith(asked),
    )
    for fits in rules:
        for name, device in devices.items():
            if fits(name.lower()):
                return device
    near = [name for name in devices if name.lower().startswith(asked[:7])] or list(devices)
    raise UnknownTarget(
        f"{pack} describes no device '{part}'.", next_step=f"It has {_shortened(near)}."
    )


def _shortened(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


def _fpu(word: str) -> Literal["none", "single", "double"] | bool | None:
    """Dfpu of the CMSIS-Pack format (family and device description)."""
    return {
        "NO_FPU": "none", "0": "none", "SP_FPU": "single", "DP_FPU": "double", "FPU": True,
        "1": True,
    }.get(word.upper())  # type: ignore[return-value]  # fmt: skip


def _clock(word: str) -> int | None:
    try:
        clock_hz = int(word, 0)
    except ValueError:
        return None
    return clock_hz if 0 < clock_hz < 10**10 else None


def merged(memories: Iterable[Memory]) -> Iterator[tuple[Memory, tuple[int, ...]]]:
    """Neighbours of a kind as one memory, with the sizes of its parts, lowest address first."""
    ordered = sorted(memories, key=lambda memory: (memory.kind, memory.origin))
    group: list[Memory] = []
    for memory in [*ordered, None]:
        if group and memory is not None and memory.kind == group[-1].kind:
            if memory.origin == group[-1].end:
                group.append(memory)
                continue
            if memory.origin < group[-1].end:  # the same cells under a second name
                continue
        if group:
            first = group[0]
            size = sum(part.size for part in group)
            boot = any(part.boot for part in group)
            parts = tuple(part.size for part in group) if len(group) > 1 else ()
            yield Memory(first.kind, first.name, first.origin, size, boot), parts
        group = [] if memory is None else [memory]
