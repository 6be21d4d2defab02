"""The meter on a device whose clock is simulated: noisy, drifting, coarse, wrong, or gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecompress.device.harness import Image, Session, load_manifest
from edgecompress.device.identity import MemoryRange
from edgecompress.device.meter import KEPT_RUNS, LAYER_PASSES, Meter
from edgecompress.device.ports.base import Clock
from edgecompress.device.provenance import Remarks
from edgecompress.device_records import AdbConditions, CpuCluster
from edgecompress.errors import DeviceFault
from edgecompress.target.schema import DeviceProfile

X = np.zeros((1, 32), np.int8)
TIME = Clock("measured on device", ticks_are_time=True)
MHZ = 1_000_000


class SimulatedClient:
    """A device that answers at once with the ticks it is given."""

    def __init__(self, ticks: Iterator[int], clock: Clock) -> None:
        self._ticks = ticks
        self.port = SimpleNamespace(name="simulated board", kind="serial", clock=clock)
        self.retransmissions, self.resets = 3, 0
        self.loads = 0

    def load_input(self, data: bytes) -> None:
        self.loads += 1

    def run(self) -> int:
        return next(self._ticks)

    def begin(self) -> None: ...

    def step(self, index: int) -> int:
        return next(self._ticks) // 2

    def stack(self) -> tuple[int, int]:
        return 100, 4096


Bench = Callable[..., Meter]


@pytest.fixture
def bench(tiny_image: Callable[..., Path], m7: DeviceProfile) -> Bench:
    folder = tiny_image("cortex-m7")
    manifest = load_manifest(folder)

    def build(ticks: Iterator[int], clock: Clock = TIME, **identity: Any) -> Meter:
        said = {
            "tick_hz": MHZ, "clock_hz": m7.core.clock_hz, "clock_source": "registers",
            "settings": "icache=on dcache=on wait_states=7", "device_id": "0011aabb",
            "regions": (MemoryRange("stack", 0x20000000, 4096),),
        }  # fmt: skip
        client: Any = SimulatedClient(ticks, clock)
        session = Session(
            client,
            Image(folder, manifest, m7),
            SimpleNamespace(**said | identity),  # type: ignore[arg-type]
        )
        return Meter(session, X, Remarks(voltage_v=3.3, note="bench 2"))

    return build


def noisy(scale: float = 0.01, median: int = 10_000) -> Iterator[int]:
    random = np.random.default_rng(3)
    while True:
        yield round(random.normal(median, scale * median))


def doubts(meter: Meter, runs: int = 50) -> str:
    meter.run(runs)
    # Simulated runs take no time of ours, which is itself a doubt: not the one under test.
    return "\n".join(w for w in meter.record().warnings if "in the host's" not in w
                     and "of the host's" not in w)  # fmt: skip


def test_a_noisy_clock_becomes_statistics(bench: Bench) -> None:
    meter = bench(noisy())
    meter.warm_up(5)
    ticks = meter.run(200)
    meter.finish()
    measured = meter.record()
    assert measured.label == "measured on device"
    assert measured.instructions is None
    assert measured.ticks == tuple(ticks)
    assert (measured.runs, measured.warmup) == (200, 5)
    assert measured.time is not None
    assert measured.time.median_us == measured.latency_us == np.median(ticks)
    assert 9_900 < measured.time.median_us < 10_100
    assert measured.stack_high_water_bytes == 100
    layer = measured.layers[0]
    assert layer.low_ticks is not None
    assert layer.high_ticks is not None
    assert layer.low_ticks <= layer.ticks <= layer.high_ticks
    assert layer.low_ticks < layer.high_ticks, f"{LAYER_PASSES} passes over noise"


def test_provenance_says_where_it_comes_from(bench: Bench) -> None:
    meter = bench(noisy())
    meter.run(2)
    origin = meter.record().provenance
    assert origin is not None
    assert origin.settings == {"icache": "on", "dcache": "on", "wait_states": "7"}
    assert (origin.device_id, origin.clock_source) == ("0011aabb", "registers")
    assert (origin.voltage_v, origin.note, origin.retransmissions) == (3.3, "bench 2", 3)
    assert origin.rated_clock_hz == origin.clock_hz == 216_000_000
    assert len(origin.artifact_hash) == len(origin.firmware_hash) == 64
    assert {"edgecompress", "python", "numpy"} <= set(origin.versions)
    assert origin.time_utc.endswith("+00:00")
    assert origin.host.machine


def test_a_quiet_run_has_no_doubts(bench: Bench) -> None:
    assert doubts(bench(noisy(0.005))) == ""


def test_a_large_spread_is_said(bench: Bench) -> None:
    assert "spans" in doubts(bench(noisy(0.2)))


def test_a_drift_is_said(bench: Bench) -> None:
    assert "second half of the runs took +" in doubts(bench(count(10_000, 40)))


def test_a_coarse_timer_is_said(bench: Bench) -> None:
    assert "One tick of the timer is 5.0 %" in doubts(bench(repeat(20)))


def test_a_timer_that_stands_still_is_said(bench: Bench) -> None:
    assert "did not advance" in doubts(bench(repeat(0)))


def test_more_work_than_time_is_a_wrong_clock(bench: Bench) -> None:
    meter = bench(repeat(10_000_000))
    meter.run(3)
    assert any("its timer runs faster" in warning for warning in meter.record().warnings)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"clock_hz": 216_000_000}, ""),
        ({"clock_hz": 215_000_000}, ""),
        ({"clock_hz": 16_000_000}, "runs at 16 MHz, the target is rated at 216 MHz (-92.6 %"),
        ({"clock_hz": 0}, ""),
        ({"settings": "icache=off dcache=off"}, "Off on the device: icache, dcache"),
        ({"settings": "xip_cache=off flash_divider=4"}, "Off on the device: xip_cache"),
        ({"settings": "icache=as_rom_left_it network_core=off"}, ""),
        ({"settings": "oscillator=crystal"}, ""),
        ({"settings": "oscillator=internal"}, "internal oscillator (oscillator=internal)"),
        ({"settings": "icache=on hfclk=rc"}, "internal oscillator (hfclk=rc)"),
        ({"settings": "crystal=failed pll=failed"}, "Failed to start on the device: crystal, pll"),
        ({"settings": ""}, ""),
    ],
)
def test_the_devices_own_state(bench: Bench, said: dict[str, Any], expected: str) -> None:
    found = doubts(bench(noisy(0.001), **said))
    assert expected in found
    if not expected:
        assert found == ""


@pytest.mark.parametrize(
    ("pinned", "governors", "expected"),
    [
        ((), ("performance", "performance"), ""),
        ((), ("schedutil", "performance"), "governor is schedutil"),
        ((4,), ("schedutil", "performance"), ""),
        ((4,), ("performance", "powersave"), "governor is powersave"),
        ((), ("", ""), ""),
    ],
)
def test_a_phones_governor(
    bench: Bench, pinned: tuple[int, ...], governors: tuple[str, str], expected: str
) -> None:
    seen = AdbConditions(
        serial="0a388e93", pinned_cpus=pinned,
        clusters_after=(CpuCluster(name="little", cpus=(0, 1), governor=governors[0]),
                        CpuCluster(name="big", cpus=(4, 5), governor=governors[1])),
    )  # fmt: skip
    meter = bench(noisy(0.001), clock_source="host", device_id="", clock_hz=2_000_000_000)
    port: Any = meter._session.port
    port.kind, port.conditions = "adb", lambda: seen
    found = doubts(meter)
    assert expected in found
    if not expected:
        assert found == ""
    origin = meter.record().provenance
    assert origin is not None
    assert origin.conditions == seen
    assert origin.device_id == "0a388e93"


@pytest.mark.parametrize(("mhz", "throttled"), [(2400, False), (1100, True)])
def test_a_hot_phone_is_throttled(bench: Bench, mhz: int, throttled: bool) -> None:
    big = CpuCluster(
        name="big", cpus=(4, 5), governor="performance", frequency_hz=mhz * MHZ,
        max_frequency_hz=2400 * MHZ,
    )  # fmt: skip
    meter = bench(noisy(0.001), clock_source="host")
    port: Any = meter._session.port
    port.kind = "adb"
    port.conditions = lambda: AdbConditions(serial="x", clusters_after=(big,))
    assert ("big cluster ran at 1100 MHz of 2400 MHz: throttled" in doubts(meter)) == throttled


def test_a_phone_that_is_gone_leaves_its_runs_without_conditions(bench: Bench) -> None:
    def gone() -> AdbConditions:
        raise DeviceFault("the phone is gone.")

    meter = bench(noisy())
    port: Any = meter._session.port
    port.conditions = gone
    meter.run(3)
    origin = meter.record(incomplete="gone").provenance
    assert origin is not None
    assert origin.conditions is None


def test_emulated_counts_get_no_statistics_and_no_doubts(bench: Bench) -> None:
    clock = Clock("emulated instructions", instructions_per_tick=40.0)
    meter = bench(repeat(700), clock, clock_hz=16_000_000)
    meter.run(5)
    measured = meter.record()
    assert measured.instructions == 28_000
    assert measured.time is None
    assert measured.latency_us is None
    assert measured.warnings == ()
    assert measured.instructions_per_tick == 40.0


def test_what_was_measured_before_a_fault_is_there(bench: Bench) -> None:
    def dies() -> Iterator[int]:
        yield from repeat(5000, 7)
        raise DeviceFault("the cable is gone.")

    meter = bench(dies())
    with pytest.raises(DeviceFault):
        meter.run(20)
    measured = meter.record(incomplete="7 of 20 runs")
    assert (measured.runs, measured.ticks) == (7, (5000,) * 7)
    assert measured.incomplete == "7 of 20 runs"
    assert measured.layers == ()


def test_the_sample_is_loaded_again_after_the_layers_were_stepped(bench: Bench) -> None:
    meter = bench(noisy())
    meter.run(3)
    client: Any = meter._session._client
    assert client.loads == 1
    meter.finish(1)
    meter.run(1)
    assert client.loads == 3


def test_an_endless_watch_keeps_bounded_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = bench(count(1))
    meter._ticks = type(meter._ticks)(maxlen=100)
    assert KEPT_RUNS <= 1_000_000
    meter.run(250)
    measured = meter.record()
    assert measured.runs == 250
    assert measured.ticks == tuple(range(151, 251))
