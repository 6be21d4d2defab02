"""What every Cortex-M core brings along: SysTick, system control, caches, debug and trace.

Registers: Armv7-M Architecture Reference Manual (DDI 0403) B3.2 (system control), B3.3 (SysTick),
C1.8 (DWT); Armv8-M (DDI 0553) has them at the same addresses. Caches and TCM: Cortex-M7 Technical
Reference Manual (DDI 0489) chapter 3. Clocks count executed instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgecompress.device.peripherals.base import Peripheral, Surroundings

_SYSTEM_CONTROL_SPACE, _DWT = 0xE000E000, 0xE0001000

_SYSTICK_CONTROL, _SYSTICK_RELOAD, _SYSTICK_VALUE = 0x010, 0x014, 0x018
_SYSTICK_ENABLE, _SYSTICK_CORE_CLOCK, _SYSTICK_WRAPPED = 1, 1 << 2, 1 << 16
_CPUID, _VTOR, _CCR, _CCSIDR, _CSSELR = 0xD00, 0xD08, 0xD14, 0xD80, 0xD84
_CCR_DATA_CACHE, _CCR_INSTRUCTION_CACHE = 1 << 16, 1 << 17
_DEMCR, _DEMCR_TRACE = 0xDFC, 1 << 24
_INVALIDATE_INSTRUCTIONS, _INVALIDATE_DATA_SET_WAY = 0xF50, 0xF60
# ICSR, VTOR, AIRCR, SCR, SHPR1-3, SHCSR, CFSR, HFSR, DFSR, MMFAR, BFAR, CPACR, FPCCR: kept as
# written. The caches' own maintenance by address (0xF58..0xF74) does nothing that is seen here.
_KEPT = frozenset(
    {0xD04, _VTOR, 0xD0C, 0xD10, 0xD18, 0xD1C, 0xD20, 0xD24, 0xD28, 0xD2C, 0xD30, 0xD34, 0xD38}
    | {0xD88, 0xF34, 0xF38, _DEMCR, _CSSELR}
)
_CACHE_MAINTENANCE = frozenset(range(0xF50, 0xF78, 4)) - {0xF54}
# ITCMCR, DTCMCR, AHBPCR, CACR.
_M7_MEMORY_CONTROL = frozenset({0xF90, 0xF94, 0xF98, 0xF9C})

_DWT_CONTROL, _DWT_CYCLES, _DWT_LOCK, _DWT_LOCK_STATE = 0x000, 0x004, 0xFB0, 0xFB4
_DWT_COUNTS_CYCLES = 1
_UNLOCK = 0xC5ACCE55


@dataclass(frozen=True)
class _Core:
    """CPUID, and which of the optional parts a core has.

    `data_sets`, `data_ways`: the geometry of its data cache; 0 without caches.
    """

    cpuid: int
    has_cycle_counter: bool = True
    counter_is_locked: bool = False
    data_sets: int = 0
    data_ways: int = 0


# CPUIDs are those of the cores' Technical Reference Manuals. The M7's data cache has 16 KiB in 4
# ways of 32-byte lines, as an STM32H7's; firmware asks CCSIDR, so another size is no difference.
_CORES = {
    "cortex-m0": _Core(0x410CC200, has_cycle_counter=False),
    "cortex-m3": _Core(0x412FC231),
    "cortex-m4": _Core(0x410FC241),
    "cortex-m7": _Core(0x411FC272, counter_is_locked=True, data_sets=128, data_ways=4),
    "cortex-m33": _Core(0x410FD213),
}


def core_peripherals(surroundings: Surroundings, cpu: str) -> list[Peripheral]:
    """The private peripherals of `cpu`, a Cortex-M of `VirtualBoard.cpu`."""
    core = _CORES[cpu]
    space = SystemControlSpace(surroundings, core)
    if not core.has_cycle_counter:
        return [space]
    return [space, Dwt(surroundings, core, lambda: space.traces)]


class SystemControlSpace(Peripheral):
    """SysTick, the System Control Block and cache maintenance."""

    def __init__(self, surroundings: Surroundings, core: _Core) -> None:
        super().__init__("system control space", _SYSTEM_CONTROL_SPACE, 0x1000, surroundings)
        self._core = core
        self._registers: dict[int, int] = {}
        self._systick_start = 0
        self._systick_wraps_seen = 0
        self._instructions_invalidated = False
        self._lines_invalidated: set[int] = set()

    @property
    def traces(self) -> bool:
        """DEMCR.TRCENA, without which the DWT does not work."""
        return bool(self._registers.get(_DEMCR, 0) & _DEMCR_TRACE)

    def _has(self, offset: int) -> bool:
        if offset in _CACHE_MAINTENANCE or offset in _M7_MEMORY_CONTROL:
            return self._core.data_sets > 0
        return offset in _KEPT

    def read(self, offset: int) -> int:
        if _SYSTICK_CONTROL <= offset <= _SYSTICK_VALUE:
            return self._read_systick(offset)
        if offset == _CPUID:
            return self._core.cpuid
        if offset == _CCR:
            return self._registers.get(_CCR, 0)
        if offset == _CCSIDR and self._core.data_sets:
            # Line of 2^(1 + 2) words, ways - 1 from bit 3, sets - 1 from bit 13.
            return 1 | (self._core.data_ways - 1) << 3 | (self._core.data_sets - 1) << 13
        if not self._has(offset):
            self.refuse("read", offset)
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if _SYSTICK_CONTROL <= offset <= _SYSTICK_VALUE:
            self._write_systick(offset, value)
        elif offset == _CCR:
            self._write_configuration(value)
        elif not self._has(offset):
            self.refuse("wrote", offset)
        else:
            if offset == _INVALIDATE_INSTRUCTIONS:
                self._instructions_invalidated = True
            elif offset == _INVALIDATE_DATA_SET_WAY:
                self._lines_invalidated.add(value)
            self._registers[offset] = value

    def _write_configuration(self, value: int) -> None:
        """CCR: a cache holds anything after reset, so it must be invalidated before it is on."""
        turned_on = value & ~self._registers.get(_CCR, 0)
        both = _CCR_DATA_CACHE | _CCR_INSTRUCTION_CACHE
        if turned_on & both and not self._core.data_sets:
            self.halt("turned on a cache this core does not have")
        if turned_on & _CCR_INSTRUCTION_CACHE and not self._instructions_invalidated:
            self.halt("turned the instruction cache on before it invalidated it")
        lines = self._core.data_sets * self._core.data_ways
        if turned_on & _CCR_DATA_CACHE and len(self._lines_invalidated) < lines:
            self.halt(
                f"turned the data cache on after invalidating {len(self._lines_invalidated)} of "
                f"its {lines} lines"
            )
        self._registers[_CCR] = value

    def _systick_period(self) -> int:
        return self._registers.get(_SYSTICK_RELOAD, 0) + 1

    def _systick_elapsed(self) -> int:
        if not self._registers.get(_SYSTICK_CONTROL, 0) & _SYSTICK_ENABLE:
            return 0
        return self.surroundings.instructions() - self._systick_start

    def _read_systick(self, offset: int) -> int:
        period = self._systick_period()
        elapsed = self._systick_elapsed()
        if offset == _SYSTICK_VALUE:
            return (period - elapsed % period) % period
        if offset == _SYSTICK_CONTROL:
            wraps = elapsed // period
            wrapped = _SYSTICK_WRAPPED if wraps > self._systick_wraps_seen else 0
            self._systick_wraps_seen = wraps
            return self._registers.get(offset, 0) | wrapped
        return self._registers.get(offset, 0)

    def _write_systick(self, offset: int, value: int) -> None:
        if offset == _SYSTICK_CONTROL:
            if value & _SYSTICK_ENABLE and not value & _SYSTICK_CORE_CLOCK:
                self.halt("started SysTick on the external clock, which is not modelled")
            if value & 2:
                self.halt("enabled the SysTick interrupt, but the board has no interrupts")
        if offset == _SYSTICK_RELOAD and value >> 24:
            self.halt(f"set SysTick to reload {value:#x}, more than its 24 bits")
        # Any write to the value clears it, and counting goes on from the reload value.
        if offset != _SYSTICK_RELOAD:
            self._systick_start = self.surroundings.instructions()
            self._systick_wraps_seen = 0
        if offset != _SYSTICK_VALUE:
            self._registers[offset] = value


class Dwt(Peripheral):
    """The cycle counter, which counts executed instructions here."""

    def __init__(self, surroundings: Surroundings, core: _Core, traces: Callable[[], bool]) -> None:
        super().__init__("DWT", _DWT, 0x1000, surroundings)
        self._traces = traces
        self._has_lock = core.counter_is_locked
        self._locked = core.counter_is_locked
        self._control = 0
        self._start = 0

    def read(self, offset: int) -> int:
        if not self._traces():
            self.halt("read the DWT while DEMCR.TRCENA is 0")
        if offset == _DWT_CONTROL:
            return self._control
        if offset == _DWT_CYCLES:
            if not self._control & _DWT_COUNTS_CYCLES:
                why = ", as the lock was not opened through LAR first" if self._locked else ""
                self.halt(f"read DWT CYCCNT while it does not count{why}")
            return (self.surroundings.instructions() - self._start) & 0xFFFFFFFF
        if offset == _DWT_LOCK_STATE:
            return (1 if self._has_lock else 0) | (2 if self._locked else 0)
        self.refuse("read", offset)
        return 0

    def write(self, offset: int, value: int) -> None:
        if not self._traces():
            self.halt("wrote to the DWT while DEMCR.TRCENA is 0")
        if offset == _DWT_LOCK:
            # Without a lock the register is there and ignores what is written.
            self._locked = self._has_lock and value != _UNLOCK
        elif offset not in (_DWT_CONTROL, _DWT_CYCLES):
            self.refuse("wrote", offset)
        elif self._locked:
            return
        elif offset == _DWT_CONTROL:
            self._control = value
        else:
            self._start = self.surroundings.instructions() - value
