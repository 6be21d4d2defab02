"""A Cortex-M or RISC-V board in Unicorn: the profile's memory map and its port's registers.

The map is the contract. Flash can be read and executed, RAM read and written, the peripherals'
registers used as they are meant to be; any other access stops the firmware as a DeviceFault that
names the address, the instruction and the function. RAM starts filled with a pattern, as a real
board's is: firmware that counts on zeros is found out.
"""

from __future__ import annotations

import bisect
import ctypes
from pathlib import Path

import unicorn.unicorn_const as const
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from unicorn.unicorn_py3 import Uc, UcError

from edgecompress.device.cycles import Work, count_work
from edgecompress.device.peripherals import Console as Console
from edgecompress.device.peripherals import (
    ControlRegister,
    Surroundings,
    boot_of_port,
    control_registers_of_port,
    peripherals_of_port,
)
from edgecompress.device.peripherals.bus import PAGE_BYTES, Bus
from edgecompress.device.peripherals.cortex_m import core_peripherals
from edgecompress.device.ports.counting import count_instructions, make_counter
from edgecompress.device.ports.processors import (
    ILLEGAL_INSTRUCTION,
    PROCESSORS,
    access_control_register,
)
from edgecompress.errors import BadInput, DeviceFault, DeviceNotFound, InvalidTarget
from edgecompress.target.schema import DeviceProfile, Region

_RAM_PATTERN = b"\xa5"

# The C API's two ways into the model: what is executed below them is its own work.
_MODEL_ENTRIES = ("model_run", "model_run_step")

_ACCESS = {
    const.UC_MEM_READ_UNMAPPED: "read outside the memory map",
    const.UC_MEM_WRITE_UNMAPPED: "wrote outside the memory map",
    const.UC_MEM_FETCH_UNMAPPED: "jumped outside the memory map",
    const.UC_MEM_WRITE_PROT: "wrote to flash",
    const.UC_MEM_READ_PROT: "read memory that cannot be read",
    const.UC_MEM_FETCH_PROT: "jumped into memory that is not for code",
}


class Board:
    """One image loaded into one board, ready to `run`.

    Args:
        elf: the linked image.
        profile: its regions, console and virtual CPU.
        console: where UART bytes go and come from.
        counter: "auto", "native" or "python" (see counting.py).

    Raises:
        DeviceNotFound: the profile has no virtual board, or its port no model.
        InvalidTarget: a region or peripheral cannot be mapped exactly.
        BadInput: the file is not an ELF image, or does not lie in the profile's flash.
    """

    def __init__(
        self, elf: Path, profile: DeviceProfile, console: Console, *, counter: str = "auto"
    ) -> None:
        if profile.virtual is None:
            raise DeviceNotFound(
                f"{profile.name} has no virtual board: Unicorn emulates {', '.join(PROCESSORS)}.",
                next_step="Use --device qemu." if profile.qemu else None,
            )
        self.profile = profile
        self.fault: DeviceFault | None = None
        self._console = console
        self._shared_memories: list[ctypes.Array[ctypes.c_char]] = []
        self._control_registers: dict[int, ControlRegister] = {}
        self._processor = PROCESSORS[profile.virtual.cpu]
        self.engine = self._processor.engine()
        self._map_memory()
        self._map_peripherals(profile.virtual.cpu)
        self._symbols = _load(self.engine, elf, profile)
        self.counter = make_counter(
            self.engine, counter, instruction_set=self._processor.instruction_set
        )
        self.counter.watch([self._symbols.functions[name] for name in _MODEL_ENTRIES
                            if name in self._symbols.functions])  # fmt: skip
        self.engine.hook_add(const.UC_HOOK_MEM_INVALID, self._refuse_access)
        self.engine.hook_add(const.UC_HOOK_INTR, self._exception)

    def run(self) -> None:
        """From reset until `stop` or a fault, which is left in `fault`."""
        try:
            start = self._boot()
            if self.fault is None:
                self.engine.emu_start(start, 0xFFFFFFFF)
        except UcError as error:
            if self.fault is None:
                undefined = error.errno == const.UC_ERR_INSN_INVALID
                self.fault = self._fault(
                    f"raised {self._processor.undefined}" if undefined else f"stopped: {error}"
                )

    def _boot(self) -> int:
        """Where the image begins, after what a boot ROM does first."""
        boot = boot_of_port(self.profile.console.port)
        if boot is not None:
            return boot(self.engine, self._surroundings)
        return self._processor.reset(self.engine, self.profile.region("flash").origin)

    def stop(self) -> None:
        """From any thread."""
        self.engine.emu_stop()

    def take_work(self) -> Work | None:
        """What the model executed since the last call, the protocol around it left out.

        None when nothing of it was recorded.
        """
        blocks = self.counter.take_blocks()
        if not blocks:
            return None
        if self._processor.instruction_set == "riscv":
            # Every RISC-V load and store moves one register.
            instructions = sum(
                block.entries * count_instructions(self._read(block.address, block.size), "riscv")
                for block in blocks
            )
            return Work(instructions, instructions, {})
        return count_work(blocks, self._read)

    def _read(self, address: int, size: int) -> bytes:
        return bytes(self.engine.mem_read(address, size))

    def _map_memory(self) -> None:
        for region in self.profile.regions:
            _check_pages(region, self.profile)
            readable = const.UC_PROT_READ
            also = const.UC_PROT_EXEC if region.kind == "flash" else const.UC_PROT_WRITE
            if region.data_origin is not None:
                self._map_twice(region, region.data_origin)
                continue
            self.engine.mem_map(region.origin, region.size, readable | also)
            if region.kind == "ram":
                self.engine.mem_write(region.origin, _RAM_PATTERN * region.size)

    def _map_twice(self, region: Region, data_origin: int) -> None:
        """One memory behind two windows: `origin` is fetched from only, `data_origin` only read."""
        memory = ctypes.create_string_buffer(region.size)
        self._shared_memories.append(memory)
        for address, allowed in (
            (region.origin, const.UC_PROT_EXEC),
            (data_origin, const.UC_PROT_READ),
        ):
            self.engine.mem_map_ptr(address, region.size, allowed, ctypes.addressof(memory))

    def _map_peripherals(self, cpu: str) -> None:
        def halt(reason: str) -> None:
            self._halt(self._fault(reason))

        self._surroundings = surroundings = Surroundings(
            profile=self.profile,
            console=self._console,
            instructions=lambda: self.counter.instructions,
            halt=halt,
            read_memory=self._read,
            write_memory=lambda address, data: self.engine.mem_write(address, data),
        )
        peripherals = peripherals_of_port(self.profile.console.port)(surroundings)
        if self._processor.instruction_set == "thumb":
            peripherals += core_peripherals(surroundings, cpu)
        Bus(self.engine, peripherals, self.profile.name, halt)
        if make := control_registers_of_port(self.profile.console.port):
            self._control_registers = make(surroundings)

    def _refuse_access(
        self, _engine: Uc, access: int, address: int, size: int, _value: int, _state: object
    ) -> bool:
        what = _ACCESS.get(access, "touched memory it must not")
        self.fault = self._fault(f"{what}: {size} bytes at {address:#010x}")
        return False

    def _exception(self, _engine: Uc, number: int, _state: object) -> None:
        if self._control_registers and number == ILLEGAL_INSTRUCTION:
            # The emulator names the instruction after the one it does not know.
            at = self.engine.reg_read(self._processor.program_counter) - 4
            if access_control_register(self.engine, self._read(at, 4), self._control_registers):
                return
        what = self._processor.exceptions.get(number, f"exception {number}")
        self._halt(self._fault(f"raised {what}"))

    def _halt(self, fault: DeviceFault) -> None:
        self.fault = self.fault or fault
        self.engine.emu_stop()

    def _fault(self, what: str) -> DeviceFault:
        address = self.engine.reg_read(self._processor.program_counter)
        regions = ", ".join(
            f"{region.name} {region.origin:#010x}..{region.origin + region.size - 1:#010x}"
            for region in self.profile.regions
        )
        return DeviceFault(
            f"The firmware {what}, at pc {address:#010x} in {self._symbols(address)} "
            f"({self.profile.name}: {regions})."
        )


def _check_pages(region: Region, profile: DeviceProfile) -> None:
    if region.origin % PAGE_BYTES or region.size % PAGE_BYTES:
        raise InvalidTarget(
            f"{profile.name}: region {region.name} ({region.size} bytes at {region.origin:#010x}) "
            f"is not whole {PAGE_BYTES} byte pages, so the virtual board cannot enforce it exactly."
        )


def _load(engine: Uc, path: Path, profile: DeviceProfile) -> _Symbols:
    """Programs the flash; returns the image's functions."""
    flash = [region for region in profile.regions if region.kind == "flash"]
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            for segment in elf.iter_segments("PT_LOAD"):
                start, size = segment["p_paddr"], segment["p_filesz"]
                if size == 0:
                    continue
                if not any(
                    region.origin <= start and start + size <= region.origin + region.size
                    for region in flash
                ):
                    raise BadInput(
                        f"{path.name} programs {size} bytes at {start:#010x}, outside the flash of "
                        f"{profile.name}.",
                        next_step="Compile the image again for this target.",
                    )
                engine.mem_write(start, segment.data())
            return _Symbols(elf)
    except ELFError as error:
        raise BadInput(f"{path.name} is not an ELF image: {error}.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None


class _Symbols:
    """The image's functions, by name and by address."""

    def __init__(self, elf: ELFFile) -> None:
        self.functions: dict[str, int] = {
            symbol.name: symbol["st_value"] & ~1
            for section in elf.iter_sections()
            if isinstance(section, SymbolTableSection)
            for symbol in section.iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC"
        }
        self._ordered = sorted((start, name) for name, start in self.functions.items())
        self._starts = [start for start, _name in self._ordered]

    def __call__(self, address: int) -> str:
        """What names an address: "function+0x12"."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return "no function"
        start, found = self._ordered[index]
        return f"{found}+{address - start:#x}"
