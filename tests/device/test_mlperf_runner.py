"""The genuine runner's sequence drives our images: throughput and results."""

from __future__ import annotations

import os
import queue
import statistics
import subprocess
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import serial
import tiny_image as tiny
from mlperf_runner import RunnerDevice, run_script

from edgecompress.device.ports.virtual import VirtualPort
from edgecompress.target.registry import load_target

Images = Callable[[str], Path]
# The first byte stays positive when the output of one run is the input of the next: the tiny model
# misbehaves on purpose otherwise.
FILES = [
    b"\x32" + np.random.default_rng(seed).integers(-100, 100, 31).astype(np.int8).tobytes()
    for seed in range(5)
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """A model of the benchmark's name that computes in place: a run destroys its input."""
    header = tiny._HEADER.replace('"tiny01"', '"kws01"')
    header = header.replace("INPUT_PRESERVED 1", "INPUT_PRESERVED 0")
    source = tiny._SOURCE.replace("hidden = (int8_t *)model_arena + 16", "hidden = in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "_HEADER", header)
        patch.setattr(tiny, "_SOURCE", source)

        def build(target: str) -> Path:
            folder = tmp_path_factory.mktemp(f"runner-{target}")
            tiny.build_tiny_image(load_target(target), folder)
            return folder

        yield build


@pytest.fixture(scope="module", params=["virtual", "process"])
def device(request: pytest.FixtureRequest, images: Images) -> Iterator[RunnerDevice]:
    with ExitStack() as stack:
        if request.param == "virtual":
            profile = load_target("cortex-m4")
            board = VirtualPort(images("cortex-m4") / "firmware.elf", profile)
            stack.callback(board.close)
            path = board._console.path
        else:
            path = stack.enter_context(_Terminal(images("x86-64") / "firmware")).path
        with serial.Serial(path, timeout=5) as line:
            line.write(b"%")
            assert b"m-ready" in line.read_until(b"m-ready\r\n")
        runner = RunnerDevice(path)
        stack.callback(runner.close)
        _settle(runner)
        yield runner


class _Terminal:
    """The posix runner on a terminal of its own."""

    def __init__(self, firmware: Path) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._program = subprocess.Popen([firmware], stdin=self._master, stdout=self._master)

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._master)
        os.close(self._slave)


def _settle(runner: RunnerDevice) -> None:
    """What the lone % was answered with may still be on its way."""
    try:
        while True:
            runner._lines.get(timeout=0.3)
    except queue.Empty:
        return


def expected(data: bytes) -> list[float]:
    output = tiny.output_reference(np.frombuffer(data, np.int8).reshape(1, 32))
    return [(int(value) + 128) / 256 for value in output.reshape(-1)]


@pytest.mark.parametrize(("iterations", "warmups"), [(1, 0), (10, 1), (3, 0)])
def test_rounds_of_download_and_inference(
    device: RunnerDevice, iterations: int, warmups: int
) -> None:
    rounds = run_script(device, FILES, iterations, warmups)
    assert device.name == "edgecompress"
    assert device.model == "kws01", "the key of the runner's tests.yaml"
    assert device.profile == "ULPMark for tinyML Firmware V0.0.1"
    assert len(rounds) == 5
    for data, done in zip(FILES, rounds, strict=True):
        assert done.results == pytest.approx(expected(data), abs=0.0011)
        assert done.elapsed_us >= 0
    assert statistics.median(done.throughput for done in rounds) >= 0


def test_time_grows_with_the_iterations(device: RunnerDevice) -> None:
    few, many = (
        min(done.elapsed_us for done in run_script(device, FILES, count, 0))
        for count in (200, 2000)
    )
    assert many > 3 * few > 0


def test_the_runners_other_commands(device: RunnerDevice) -> None:
    (stamp, ready) = device.send("timestamp")
    assert stamp.startswith("m-lap-us-")
    assert ready == "m-ready"
    assert device.send("help")[-1] == "m-ready"
    device.load(FILES[0])
    device.infer(1, 0)
    assert device.send("results")[0].startswith("m-results-[")
    # The interface board's own, and the streaming benchmark's: refused, and the line goes on.
    for unknown in ("dut name", "start", "print_detections", "db print", "db getptr"):
        answer = device.send(unknown)
        assert answer[0].startswith("e-[")
        assert answer[-1] == "m-ready"
