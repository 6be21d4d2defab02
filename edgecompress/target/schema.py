"""What a device is: one strict schema for every target TOML."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from edgecompress.errors import BadInput
from edgecompress.records import Budget, Record
from edgecompress.target.port_settings import complete_settings, port_names
from edgecompress.units import format_bytes, parse_bytes

# A name becomes a file's, a C string and a comment of the linker script.
_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$"
# What `parse_bytes` takes, for editors.
_SIZE_PATTERN = r"^\s*\d+(\.\d+)?\s*[kKmMgG]?([iI]?[bB]?)\s*$"


def _bytes(value: Any) -> int:
    """`parse_bytes` in pydantic's terms, so that its message names the key at fault."""
    try:
        return parse_bytes(value)
    except BadInput as error:
        raise ValueError(str(error).rstrip(".")) from None


def _linker_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise ValueError("the linker takes letters, digits and _ in a region's name")
    return name


Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": _SIZE_PATTERN}]},
        mode="validation",
    ),
]


class Region(Record):
    """A contiguous memory the linker may place things in.

    `banks` are the sizes, lowest address first, of the parts that can work at the same time, such
    as two flash banks or SRAM1 to SRAM3; empty where there is one or nobody looked it up.

    Flash is whatever is read-only and mapped when the image starts: QSPI memory too, if something
    before the image maps it. The first flash region holds vectors and code.

    `wait_cycles` is what a data access of up to one word waits beyond the core's own cycles,
    caches off; `wait_source` says where that comes from. They only decide what is placed where.

    `data_origin` is where a flash region is read as data, where the core only fetches instructions
    at `origin`, as on the ESP32-C3; None where both are the same.
    """

    name: Annotated[str, AfterValidator(_linker_name)]
    kind: Literal["flash", "ram"]
    origin: int = Field(ge=0)
    size: Bytes = Field(gt=0)
    banks: tuple[Bytes, ...] = ()
    data_origin: int | None = Field(default=None, ge=0)
    wait_cycles: float = Field(default=0.0, ge=0)
    wait_source: str = ""

    @property
    def read_origin(self) -> int:
        """Where loads find the region."""
        return self.origin if self.data_origin is None else self.data_origin

    @model_validator(mode="after")
    def _only_flash_is_read_elsewhere(self) -> Region:
        if self.data_origin is not None and self.kind != "flash":
            raise ValueError("data_origin is given but kind is not 'flash'")
        return self

    @model_validator(mode="after")
    def _waits_name_their_source(self) -> Region:
        if self.wait_cycles and not self.wait_source:
            raise ValueError("wait_cycles is given but wait_source is empty")
        return self

    @model_validator(mode="after")
    def _banks_fill_the_region(self) -> Region:
        if self.banks and sum(self.banks) != self.size:
            raise ValueError(
                f"its banks hold {format_bytes(sum(self.banks))} together but size is "
                f"{format_bytes(self.size)}"
            )
        return self


class Core(Record):
    """What the processor can do.

    `cycles_per_instruction` is (low, high), an estimate used only to turn exact instruction
    counts into a labelled time range; `cycles_source` says where it comes from.
    """

    name: str
    isa: Literal[
        "armv6-m",
        "armv7-m",
        "armv7e-m",
        "armv8-m.main",
        "armv8.1-m.main",
        "rv32imc",
        "armv8-a",
        "x86-64",
        "cuda",
    ]
    clock_hz: int = Field(gt=0)
    fpu: Literal["none", "single", "double"] = "none"
    dsp: bool = False
    mve: bool = False
    cycles_per_instruction: tuple[float, float] | None = None
    cycles_source: str = ""

    @model_validator(mode="after")
    def _estimate_names_its_source(self) -> Core:
        if self.cycles_per_instruction is not None:
            low, high = self.cycles_per_instruction
            if not 0 < low <= high:
                raise ValueError(f"cycles_per_instruction is [{low}, {high}]; write [low, high]")
            if not self.cycles_source:
                raise ValueError("cycles_per_instruction is given but cycles_source is empty")
        return self


class Toolchain(Record):
    """How the two compilers name this core.

    `llvm` is TVM's target dictionary; `zig_target` and `zig_cpu` are zig cc's -target and -mcpu.
    """

    llvm: dict[str, Any]
    zig_target: str
    zig_cpu: str = ""


class Console(Record):
    """The serial port the firmware talks on, and the timer it reads.

    `port` names a folder of runtimes/ports, `settings` holds what that port's settings.toml lists
    (see `port_settings`), defaults included. `timer` is for the cmsdk port: "cmsdk" is an Arm CMSDK
    APB timer, which counts down; "counter" is a free-running 32-bit up counter whose one register
    is at `timer_address`.
    """

    port: str
    base_address: int = 0
    baud: int = 115200
    timer_address: int = 0
    timer: Literal["cmsdk", "counter"] = "cmsdk"
    settings: dict[str, int | str] = Field(default={})

    @field_validator("port")
    @classmethod
    def _port_exists(cls, port: str) -> str:
        if port not in port_names():
            raise ValueError(f"runtimes/ports has {', '.join(port_names())}")
        return port

    @model_validator(mode="before")
    @classmethod
    def _settings_are_the_ports(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("port") not in port_names():
            return given
        settings = given.get("settings", {})
        if not isinstance(settings, dict):
            return given
        return {**given, "settings": complete_settings(given["port"], settings)}


class VirtualBoard(Record):
    """The Unicorn board: a CPU model and the profile's own memory map."""

    cpu: Literal["cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "rv32"]


class QemuBoard(Record):
    """A QEMU machine whose memory map and UART are this profile's."""

    machine: str = ""
    cpu: str = ""
    user: str = ""


class Flashing(Record):
    """How firmware gets onto the chip; `tool` is the usual way, `others` work too.

    `pyocd_target` is what `pyocd flash --target` takes, `pack` the CMSIS-Pack that knows it (empty:
    built into pyOCD). `esptool_chip` is esptool's --chip. `offset` is where in flash the image
    goes, in bytes, for tools that write to offsets. `map_differs` says why pyOCD's memory map is
    not this profile's, for `targets check`.
    """

    tool: Literal["pyocd", "esptool", "stm32loader"]
    others: tuple[Literal["pyocd", "esptool", "stm32loader"], ...] = ()
    pyocd_target: str = ""
    pack: str = ""
    esptool_chip: str = ""
    offset: int = Field(default=0, ge=0)
    map_differs: str = ""

    @model_validator(mode="after")
    def _tools_know_the_chip(self) -> Flashing:
        for tool, key in (("pyocd", "pyocd_target"), ("esptool", "esptool_chip")):
            if tool in (self.tool, *self.others) and not getattr(self, key):
                raise ValueError(f"flashing names {tool} but {key} is empty")
        return self


class DeviceProfile(Record):
    """One device, whole: everything the planner, the compiler, the linker and the harness need.

    `aliases` (part numbers) and `boards` name the target too, in any case; "*" and "?" in them
    stand for any characters, for one. `unconfirmed` lists keys whose value nobody has looked up.
    """

    schema_version: int = 1
    name: str = Field(pattern=_NAME_PATTERN)
    family: str = Field(default="", pattern=f"^$|{_NAME_PATTERN}")
    aliases: tuple[str, ...] = ()
    boards: tuple[str, ...] = ()
    description: str
    kind: Literal["mcu", "host", "cuda"]
    source: str
    date: str
    unconfirmed: tuple[str, ...] = ()
    core: Core
    toolchain: Toolchain
    regions: tuple[Region, ...] = ()
    console: Console
    virtual: VirtualBoard | None = None
    qemu: QemuBoard | None = None
    cuda: dict[str, Any] | None = None
    flashing: Flashing | None = None
    stack_reserve: Bytes = 4096

    @model_validator(mode="after")
    def _both_sides_agree(self) -> DeviceProfile:
        if self.kind == "mcu":
            kinds = {region.kind for region in self.regions}
            for needed in ("flash", "ram"):
                if needed not in kinds:
                    raise ValueError(f"kind is 'mcu' but [[regions]] has no {needed} region")
        if self.kind == "cuda" and self.cuda is None:
            raise ValueError("kind is 'cuda' but the [cuda] table is missing")
        names = [region.name for region in self.regions]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two regions are named {', '.join(sorted(twice))}")
        self._check_overlaps()
        self._check_stack()
        return self

    def _check_overlaps(self) -> None:
        windows = [(region.origin, region) for region in self.regions]
        windows += [(region.read_origin, region) for region in self.regions
                    if region.data_origin is not None]  # fmt: skip
        windows.sort(key=lambda window: window[0])
        for (origin, one), (next_origin, two) in itertools.pairwise(windows):
            if origin + one.size > next_origin:
                raise ValueError(
                    f"region {one.name} ({format_bytes(one.size)} at {origin:#010x}) overlaps "
                    f"region {two.name} at {next_origin:#010x}"
                )

    def _check_stack(self) -> None:
        ram = self.ram_bytes
        if ram is None:
            return
        if self.stack_reserve >= ram:
            raise ValueError(
                f"stack_reserve is {format_bytes(self.stack_reserve)} but the ram regions hold "
                f"{format_bytes(ram)}"
            )
        fastest = self.fastest_ram
        if self.stack_reserve >= fastest.size:
            raise ValueError(
                f"stack_reserve is {format_bytes(self.stack_reserve)} but {fastest.name}, the "
                f"fastest ram region, where the stack goes, holds {format_bytes(fastest.size)}"
            )

    @property
    def has_firmware(self) -> bool:
        """Whether firmware.elf can talk on the real chip.

        The CMSDK UART is that of Arm's FPGA images, QEMU and the virtual board: a microcontroller
        described with it gets its library for the user's own firmware, and an image for the
        virtual board only.
        """
        return self.kind != "mcu" or self.console.port != "cmsdk"

    def _total(self, kind: str) -> int | None:
        sizes = [region.size for region in self.regions if region.kind == kind]
        return sum(sizes) if sizes else None

    @property
    def flash_bytes(self) -> int | None:
        """All flash regions together; None for a host without a stated limit."""
        return self._total("flash")

    @property
    def ram_bytes(self) -> int | None:
        """All RAM regions together; None for a host without a stated limit."""
        return self._total("ram")

    def region(self, kind: Literal["flash", "ram"]) -> Region:
        """The first region of a kind. Raises StopIteration on a host, which has none."""
        return next(region for region in self.regions if region.kind == kind)

    @property
    def fastest_ram(self) -> Region:
        """Where stack and variables go: the first of the RAM regions with the least waiting."""
        rams = [region for region in self.regions if region.kind == "ram"]
        return min(rams, key=lambda region: region.wait_cycles)

    def budget(
        self,
        flash: str | int | None = None,
        ram: str | int | None = None,
        latency_us: float | None = None,
    ) -> Budget:
        """The profile's budget, with the user's own caps in its place where given."""
        return Budget(
            flash_bytes=self.flash_bytes if flash is None else parse_bytes(flash),
            ram_bytes=self.ram_bytes if ram is None else parse_bytes(ram),
            latency_us=latency_us,
        )
