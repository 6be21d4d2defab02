"""The MLPerf Tiny runner's own sequence, in performance and accuracy mode.

What mlcommons/tiny's benchmark/runner does with a device (serial_device.py, device_under_test.py,
script.py, main.py), written anew: a thread that takes the line byte by byte, answers collected up
to a line that holds `m-ready`, five seconds for each line, regular expressions over the answers,
`db` lines of 31 bytes, five rounds of download and inference.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from dataclasses import dataclass

import serial

LINE_SECONDS = 5.0
DB_BYTES = 31


@dataclass(frozen=True)
class Round:
    """One download and `infer N W`."""

    results: list[float]
    elapsed_us: int
    throughput: float


class RunnerDevice:
    """The runner's device under test, over a real serial port."""

    def __init__(self, path: str, baud: int = 115200) -> None:
        self._port = serial.Serial(path, baud, timeout=0.1)
        self._lines: queue.Queue[str] = queue.Queue()
        self._running = True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.name: str | None = None
        self.model: str | None = None
        self.profile: str | None = None

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._port.close()

    def _read(self) -> None:
        line = ""
        while self._running:
            character = self._port.read(1).decode()
            if character == "\n":
                self._lines.put(line)
                line = ""
            elif character and character not in "\r\0":
                line += character

    def send(self, command: str) -> list[str]:
        assert len(command) + 1 <= 80, "the protocol's longest command"
        self._port.write(command.encode())
        self._port.write(b"%")
        lines = []
        while True:
            line = self._lines.get(timeout=LINE_SECONDS)
            if line:
                lines.append(line)
            if "m-ready" in line:
                return lines

    def identify(self) -> None:
        """name, profile and model, each asked up to three times until its line comes."""
        for _ in range(3):
            for line in self.send("name") if self.name is None else ():
                if match := re.match(r"^m-name-dut-\[([^]]+)]$", line):
                    self.name = match[1]
        for _ in range(3):
            for line in self.send("profile") if self.model is None else ():
                if match := re.match(r"^m-(model|profile)-\[([^]]+)]$", line):
                    setattr(self, match[1], match[2])

    def load(self, data: bytes) -> list[str]:
        self.send(f"db load {len(data)}")
        answer: list[str] = []
        for start in range(0, len(data), DB_BYTES):
            answer = self.send("db " + "".join(f"{d:02x}" for d in data[start : start + DB_BYTES]))
        return answer

    def infer(self, iterations: int, warmups: int) -> Round:
        results: list[float] = []
        stamps: list[int] = []
        for line in self.send(f"infer {iterations} {warmups}"):
            if match := re.match(r"^m-results-\[([^]]+)\]$", line):
                results = [float(part) for part in match[1].split(",") if part.strip()]
            elif match := re.match(r"^m-lap-us-([0-9]+)$", line):
                stamps.append(int(match[1]))
        start_us, end_us = stamps
        elapsed_us = end_us - start_us
        throughput = iterations / (elapsed_us / 1_000_000) if elapsed_us > 0 else 0.0
        return Round(results, elapsed_us, throughput)


def run_script(
    device: RunnerDevice, files: list[bytes], iterations: int, warmups: int
) -> list[Round]:
    """`loop N: download, infer ITERATIONS WARMUPS`, and what main.py waits for before it."""
    time.sleep(0.1)
    device.identify()
    rounds = []
    for data in files:
        assert "m-load-done" in device.load(data)
        rounds.append(device.infer(iterations, warmups))
    return rounds
