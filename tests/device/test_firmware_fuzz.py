"""The runner under sanitizers, fed with whatever a line can bring."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_image as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecompress.link.toolchain import run_zig
from edgecompress.paths import shipped

FLAGS = ["-g", "-O1", "-Icore", "-I.", "-DSLIP=", '-DPORT_REGIONS={"FLASH",0x0u,0x0u,1}']
LONGEST = 160


def sources(folder: Path) -> list[str]:
    """The posix runner and the tiny model, its misbehaviour on request left out."""
    for part in ("core", "ports/posix"):
        shutil.copytree(shipped("runtimes") / part, folder / part)
    (folder / "model.h").write_text(tiny._HEADER.replace("PRESERVED 1", "PRESERVED 0"))
    (folder / "model.c").write_text(
        tiny._SOURCE.replace("if (in[0] < -120) misbehave(in[0]);", "(void)misbehave;")
    )
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.c"))


@pytest.fixture(scope="module", params=["undefined", "address"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """zig brings the undefined-behaviour sanitizer; the one for addresses needs the host's gcc."""
    folder = tmp_path_factory.mktemp("sanitized")
    files = sources(folder)
    if request.param == "undefined":
        arguments = ["cc", "-fsanitize=undefined", *FLAGS, *files, "-o", "runner"]
        run_zig(arguments, folder=folder, what="the sanitized runner")
        return folder / "runner"
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    command = ["gcc", "-fsanitize=address,undefined", *FLAGS, *files, "-o", "runner"]
    built = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if built.returncode != 0:
        pytest.skip("this gcc has no address sanitizer")
    return folder / "runner"


def converse(runner: Path, stream: bytes) -> bytes:
    """What the runner says to all of `stream`; it must end by itself and without complaint."""
    done = subprocess.run([str(runner)], input=stream, capture_output=True, timeout=20, check=False)
    assert done.stderr == b""
    assert done.returncode == 0
    assert done.stdout.count(b"m-ready\r\n") == stream.count(b"%") + 1
    assert done.stdout.endswith(b"m-ready\r\n")
    return done.stdout


def test_the_sanitizer_is_awake(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text(
        "int main(int count, char **words) { int most = 0x7fffffff; return most + count; }"
    )
    run_zig(
        ["cc", "-fsanitize=undefined", "bad.c", "-o", "bad"], folder=tmp_path, what="a bad program"
    )
    done = subprocess.run([str(tmp_path / "bad")], capture_output=True, check=False)
    assert b"signed integer overflow" in done.stderr


def test_a_whole_session(runner: Path) -> None:
    x = bytes(range(32))
    commands = ["name", "profile", "help", "db load 32", f"db {x.hex()}", "infer 3 1", "results",
                "edge info", "edge begin", "edge step 0", "edge step 1", "edge run", "edge out",
                "edge read 0 96 arena", "edge crc 0 32 in", "edge stack", "edge load 31 ff",
                "edge read 0 1 FLASH"]  # fmt: skip
    said = converse(runner, "".join(f"{command}%" for command in commands).encode())
    assert b"m-infer-done" in said
    assert said.count(b"\ne-[") == 1


def frame(text: str, sequence: int = 1) -> bytes:
    body = f"{sequence} {text}".encode()
    return b"edge #" + zlib.crc32(body).to_bytes(4, "little").hex().encode() + b" " + body


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST, LONGEST + 1, LONGEST * 7])
@pytest.mark.parametrize(
    "fill", [lambda n: b"a" * n, lambda n: b"edge load 0 ".ljust(n, b"0"), lambda n: b" " * n,
             lambda n: b"db ".ljust(n, b"f"), lambda n: b"edge #".ljust(n, b"0"),
             lambda n: b"edge # ".ljust(n, b"\xff"), lambda n: b"edge crc 0 1 ".ljust(n, b"x")],
)  # fmt: skip
def test_lines_at_and_past_the_buffers_end(
    runner: Path, fill: Callable[[int], bytes], length: int
) -> None:
    said = converse(runner, b"db load 32%" + fill(length) + b"%name%")
    assert said.count(b"m-name-dut-[edgecompress]") == 1
    assert (b"Command too long" in said) == (length > LONGEST)


WORDS = [
    b"edge", b"db", b"load", b"crc", b"read", b"begin", b"step", b"run", b"out", b"stack", b"info",
    b"sync", b"in", b"arena", b"FLASH", b"0", b"1", b"31", b"32", b"33", b"96", b"4294967295",
    b"99999999999999999999", b"-1", b"00ff", b"f", b"%", b"%", b"infer", b"results", b"profile",
    b"#00000000", b"#", b"\x00", b"\xff", frame("sync"), frame("run", 2), frame("load 0 00ff", 2),
]  # fmt: skip


@given(
    stream=st.one_of(
        st.lists(st.sampled_from(WORDS), max_size=60).map(b" ".join),
        st.lists(st.sampled_from(WORDS), max_size=60).map(b"".join),
        st.binary(max_size=600),
    )
)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nothing_a_line_brings_breaks_the_runner(runner: Path, stream: bytes) -> None:
    converse(runner, stream)
