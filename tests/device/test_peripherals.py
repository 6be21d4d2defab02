"""The bus of a virtual board and the peripherals of the core, without any firmware."""

from __future__ import annotations

import pytest
import unicorn.unicorn_const as const
from unicorn.unicorn_py3 import Uc

from edgecompress.device.peripherals import (
    Peripheral,
    SerialLine,
    Surroundings,
    peripherals_of_port,
)
from edgecompress.device.peripherals.bus import Bus
from edgecompress.device.peripherals.cortex_m import core_peripherals
from edgecompress.errors import DeviceNotFound, InvalidTarget
from edgecompress.target import load_target

SCB, DWT = 0xE000E000, 0xE0001000


class _Silent:
    def __init__(self, text: bytes = b"") -> None:
        self.left = bytearray(text)
        self.waits = 0

    def send(self, byte: int) -> None: ...

    def receive(self, *, wait: bool) -> int | None:
        self.waits += wait
        return self.left.pop(0) if self.left and not wait else None

    def available(self) -> bool:
        return bool(self.left)


class Bench:
    """Peripherals on a bus, the reasons they halted for, and a clock set by hand."""

    def __init__(self, target: str = "cortex-m7") -> None:
        self.reasons: list[str] = []
        self.now = 0
        self.surroundings = Surroundings(
            load_target(target), _Silent(), lambda: self.now, self.reasons.append
        )
        self.engine = Uc(const.UC_ARCH_ARM, const.UC_MODE_THUMB)

    def bus(self, *peripherals: Peripheral) -> Bus:
        return Bus(self.engine, peripherals, "the bench", self.reasons.append)


class _Plain(Peripheral):
    def __init__(self, name: str, base: int, size: int, surroundings: Surroundings) -> None:
        super().__init__(name, base, size, surroundings)
        self.words: dict[int, int] = {}

    def read(self, offset: int) -> int:
        return self.words.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.words[offset] = value


def test_peripherals_of_one_page_are_told_apart_by_address() -> None:
    bench = Bench()
    one = _Plain("one", 0x40000000, 0x400, bench.surroundings)
    two = _Plain("two", 0x40000400, 0x1000, bench.surroundings)
    bus = bench.bus(two, one)
    bus.write(0x40000010, 0x11223344, 4)
    bus.write(0x40000410, 5, 4)
    bus.write(0x40001000, 6, 4)
    assert one.words == {0x10: 0x11223344}
    assert two.words == {0x10: 5, 0xC00: 6}
    assert [bus.read(0x40000010 + part, 1) for part in range(4)] == [0x44, 0x33, 0x22, 0x11]
    assert bus.read(0x40000012, 2) == 0x1122
    bus.write(0x40000011, 0xAA, 1)
    bus.write(0x40000012, 0xBBCC, 2)
    assert one.words == {0x10: 0xBBCCAA44}
    assert bench.reasons == []
    bus.read(0x40001800, 4)
    bus.write(0x40001804, 1, 2)
    assert bench.reasons == [
        "read 4 bytes at 0x40001800, where the device has no register",
        "wrote 0x1 (2 bytes) at 0x40001804, where the device has no register",
    ]


def test_overlaps_are_refused_by_name() -> None:
    bench = Bench()
    one = _Plain("one", 0x40000000, 0x404, bench.surroundings)
    two = _Plain("two", 0x40000400, 4, bench.surroundings)
    with pytest.raises(
        InvalidTarget, match=r"the one \(1028 bytes at 0x40000000\) overlaps the two"
    ):
        bench.bus(one, two)
    bench.engine.mem_map(0x40000000, 0x1000)
    with pytest.raises(InvalidTarget, match="a memory region lies in its 4096 byte page"):
        bench.bus(one)


def test_a_register_without_a_model_is_named() -> None:
    bench = Bench()
    bus = bench.bus(Peripheral("clock control", 0x40023800, 0x400, bench.surroundings))
    bus.read(0x40023808, 4)
    bus.write(0x4002380C, 3, 4)
    assert bench.reasons == [
        "read clock control register 0x40023808, not modelled",
        "wrote 0x3 to clock control register 0x4002380c, not modelled",
    ]


def test_a_port_without_a_model_is_said_to_have_none() -> None:
    with pytest.raises(DeviceNotFound, match=r"'posix' port's .*peripherals/posix\.py is missing"):
        peripherals_of_port("posix")


def test_the_serial_line_waits_only_when_it_is_asked_again() -> None:
    console = _Silent(b"a")
    line = SerialLine(console, patience=2)
    assert line.poll()
    assert line.receive() == ord("a")
    for waits in (0, 0, 1, 2):
        assert not line.poll()
        assert console.waits == waits
    line.send(1)
    assert not line.poll()
    assert console.waits == 2


def test_the_cycle_counter_wants_trace_and_its_lock_open() -> None:
    bench = Bench()
    bus = bench.bus(*core_peripherals(bench.surroundings, "cortex-m7"))
    bus.read(DWT + 4, 4)
    assert "DEMCR.TRCENA is 0" in bench.reasons[0]
    bench.reasons.clear()
    bus.write(SCB + 0xDFC, 1 << 24, 4)
    bus.write(DWT, 1, 4)
    bus.read(DWT + 4, 4)
    assert bench.reasons == [
        "read DWT CYCCNT while it does not count, as the lock was not opened through LAR first"
    ]
    bench.reasons.clear()
    bus.write(DWT + 0xFB0, 0xC5ACCE55, 4)
    bench.now = 1000
    bus.write(DWT + 4, 0, 4)
    bus.write(DWT, 1, 4)
    bench.now = 1234
    assert bus.read(DWT + 4, 4) == 234
    bench.now = 2**32 + 1007
    assert bus.read(DWT + 4, 4) == 7
    assert bench.reasons == []


def test_the_m4_has_no_lock_and_the_m0_no_counter() -> None:
    bench = Bench()
    bus = bench.bus(*core_peripherals(bench.surroundings, "cortex-m4"))
    bus.write(SCB + 0xDFC, 1 << 24, 4)
    bus.write(DWT, 1, 4)
    bench.now = 9
    assert bus.read(DWT + 4, 4) == 9
    assert bus.read(SCB + 0xD00, 4) == 0x410FC241
    bare = Bench()
    bare.bus(*core_peripherals(bare.surroundings, "cortex-m0")).read(DWT + 4, 4)
    assert "where the device has no register" in bare.reasons[0]


def test_systick_counts_down_and_tells_a_wrap_once() -> None:
    bench = Bench()
    bus = bench.bus(*core_peripherals(bench.surroundings, "cortex-m0"))
    bus.write(SCB + 0x14, 99, 4)
    bus.write(SCB + 0x18, 0, 4)
    bus.write(SCB + 0x10, 5, 4)
    readings = []
    for bench.now in (0, 1, 99, 100, 101):
        readings.append(bus.read(SCB + 0x18, 4))
    assert readings == [0, 99, 1, 0, 99]
    assert bus.read(SCB + 0x10, 4) == 5 | 1 << 16
    assert bus.read(SCB + 0x10, 4) == 5
    bus.write(SCB + 0x14, 1 << 24, 4)
    bus.write(SCB + 0x10, 1, 4)
    assert "more than its 24 bits" in bench.reasons[0]
    assert "the external clock" in bench.reasons[1]


def test_a_cache_is_invalidated_before_it_is_on() -> None:
    bench = Bench()
    bus = bench.bus(*core_peripherals(bench.surroundings, "cortex-m7"))
    bus.write(SCB + 0xD14, 3 << 16, 4)
    assert bench.reasons == [
        "turned the instruction cache on before it invalidated it",
        "turned the data cache on after invalidating 0 of its 512 lines",
    ]
    bench.reasons.clear()
    bus.write(SCB + 0xD14, 0, 4)
    geometry = bus.read(SCB + 0xD80, 4)
    sets, ways = (geometry >> 13 & 0x7FFF) + 1, (geometry >> 3 & 0x3FF) + 1
    for line in range(sets):
        for way in range(ways):
            bus.write(SCB + 0xF60, way << 30 | line << 5, 4)
    bus.write(SCB + 0xF50, 0, 4)
    bus.write(SCB + 0xD14, 3 << 16, 4)
    assert bench.reasons == []
    other = Bench()
    other.bus(*core_peripherals(other.surroundings, "cortex-m4")).write(SCB + 0xD14, 1 << 16, 4)
    assert other.reasons[0] == "turned on a cache this core does not have"
