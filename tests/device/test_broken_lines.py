"""The client over a line that breaks: every fault ends in success or in a named error, in time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_image as tiny
from faulty_port import Fault, FaultyPort
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecompress.device.exchange import ATTEMPTS
from edgecompress.device.ports.base import Port
from edgecompress.device.ports.process import open_process
from edgecompress.device.protocol import Client
from edgecompress.errors import DeviceNotFound, DeviceReset, DeviceTrouble, ProtocolError
from edgecompress.target.schema import DeviceProfile

TinyImage = Callable[..., Path]
X = np.random.default_rng(5).integers(-100, 100, (1, 32)).astype(np.int8)
# Commands of one `inference`: load, run, read.
COMMANDS = 3


@pytest.fixture
def port(tiny_image: TinyImage, x86: DeviceProfile) -> Iterator[FaultyPort]:
    def start() -> Port:
        return open_process(tiny_image("x86-64") / "firmware", x86)

    try:
        faulty = FaultyPort(start(), start)
    except DeviceNotFound as error:
        pytest.skip(str(error))
    yield faulty
    faulty.close()


def synchronized(port: FaultyPort, timeout_s: float = 2.4) -> Client:
    client = Client(port, timeout_s=timeout_s, run_timeout_s=timeout_s)
    client.synchronize()
    return client


def inference(client: Client) -> np.ndarray:
    client.load_input(X.tobytes())
    client.run()
    return np.frombuffer(client.output(10), np.int8).reshape(1, 10)


@pytest.mark.parametrize("kind", ["drop", "double", "flip", "cut", "split", "garbage", "delay"])
@pytest.mark.parametrize("direction", ["to device", "from device"])
@pytest.mark.parametrize("line", [0, 2])
def test_one_fault_costs_a_repetition_and_no_more(
    port: FaultyPort, kind: str, direction: str, line: int
) -> None:
    client = synchronized(port)
    port.arm([Fault(direction, line, kind)])
    assert np.array_equal(inference(client), tiny.output_reference(X))
    assert len(port.happened) == 1
    assert client.retransmissions <= 2
    if kind in ("flip", "cut", "drop") and direction == "to device":
        assert client.retransmissions >= 1


def test_a_clean_line_repeats_nothing(port: FaultyPort) -> None:
    client = synchronized(port)
    assert np.array_equal(inference(client), tiny.output_reference(X))
    assert client.retransmissions == 0


def test_only_the_damaged_piece_is_sent_again(port: FaultyPort) -> None:
    client = synchronized(port)
    port.arm([Fault("from device", 0, "flip"), Fault("to device", 1 + COMMANDS, "flip")])
    inference(client)
    sent = port._counts["to device"]
    assert client.retransmissions == 1
    assert sent == COMMANDS + 1


def test_a_line_that_damages_everything_ends(port: FaultyPort) -> None:
    client = synchronized(port)
    port.arm([Fault("to device", line, "flip") for line in range(2 * ATTEMPTS)])
    with pytest.raises(ProtocolError, match=f"damaged or lost {ATTEMPTS} times in a row"):
        client.run()
    port.arm([])
    # The next command agrees on the sequence anew.
    assert np.array_equal(inference(client), tiny.output_reference(X))


def test_a_reset_while_loading_begins_the_load_anew(port: FaultyPort) -> None:
    for kind in ("reset", "quiet reset"):
        client = synchronized(port)
        port.arm([Fault("to device", 0, kind)])
        client.load_input(X.tobytes())
        assert client.resets == 1
        port.arm([])
        client.run()
        assert client.output(10) == tiny.output_reference(X).tobytes()


@pytest.mark.parametrize("kind", ["reset", "quiet reset"])
def test_a_reset_after_the_load_is_said_and_never_computed_upon(
    port: FaultyPort, kind: str
) -> None:
    client = synchronized(port)
    client.load_input(X.tobytes())
    port.arm([Fault("to device", 0, kind)])
    with pytest.raises(DeviceReset, match=r"reset in the middle of 'edge run'.*memory is lost"):
        client.run()
    port.arm([])
    client.synchronize()
    assert np.array_equal(inference(client), tiny.output_reference(X))


def test_endless_resets_end(port: FaultyPort) -> None:
    # Each new start takes the name, the sequence and the load again.
    client = synchronized(port)
    port.arm([Fault("to device", 3 * line, "reset") for line in range(40)])
    with pytest.raises(DeviceReset):
        client.load_input(X.tobytes())


def test_a_flood_ends(port: FaultyPort) -> None:
    client = synchronized(port)
    port.arm([Fault("from device", 0, "flood")])
    with pytest.raises(ProtocolError, match="longer than"):
        client.run()


def test_a_cable_pulled_in_the_middle_is_a_fault(port: FaultyPort) -> None:
    client = synchronized(port)
    client.load_input(X.tobytes())
    port.inner._process.kill()
    with pytest.raises(DeviceTrouble, match=r"SIGKILL|is gone|closed its output"):
        client.run()


FAULTS = st.builds(
    Fault,
    direction=st.sampled_from(["to device", "from device"]),
    line=st.integers(0, 14),
    kind=st.sampled_from(["drop", "double", "flip", "cut", "split", "garbage", "quiet reset"]),
    place=st.floats(0, 0.999),
)


@given(faults=st.lists(FAULTS, max_size=4))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_faults_end_in_time_and_never_in_a_wrong_byte(
    port: FaultyPort, faults: list[Fault]
) -> None:
    port.arm([])
    client = synchronized(port, timeout_s=0.6)
    port.arm(faults)
    started = time.monotonic()
    with contextlib.suppress(DeviceTrouble):
        assert np.array_equal(inference(client), tiny.output_reference(X))
    # Three commands of 0.6 s, the transfers' allowances, and three new starts.
    assert time.monotonic() - started < 30
