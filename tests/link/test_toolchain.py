from __future__ import annotations

import pytest

from edgecompress.errors import BuildFailed
from edgecompress.link import toolchain
from edgecompress.target import load_target


@pytest.fixture
def m7():
    return load_target("cortex-m7")


def test_the_first_compiler_error_is_the_message(m7, tmp_path):
    (tmp_path / "bad.c").write_text("int main(void) { return missing; }\nint oops(;\n")
    with pytest.raises(BuildFailed) as caught:
        toolchain.compile_c(["bad.c"], [], m7, folder=tmp_path)
    message = str(caught.value)
    assert message.startswith("compiling bad.c for cortex-m7 failed: bad.c:1:")
    assert "undeclared identifier 'missing'" in message
    assert "\n" not in message


def test_objects_are_the_same_wherever_they_are_compiled(m7, tmp_path):
    made = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.c").write_text("const char *file = __FILE__; int f(int x) { return x + 1; }")
        assert toolchain.compile_c(["a.c"], [], m7, folder=folder) == ["a.o"]
        toolchain.archive(["a.o"], "liba.a", folder=folder)
        made.append((folder / "liba.a").read_bytes())
    assert made[0] == made[1]


def test_a_home_that_cannot_be_written_gets_another_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setattr(toolchain.tempfile, "gettempdir", lambda: str(tmp_path))
    chosen = toolchain._environment()["ZIG_GLOBAL_CACHE_DIR"]
    assert chosen.startswith(str(tmp_path))
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", "/mine")
    assert toolchain._environment()["ZIG_GLOBAL_CACHE_DIR"] == "/mine"


def test_a_missing_compiler_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain, "_zig", lambda: ("/usr/bin/false-zig",))
    with pytest.raises(BuildFailed, match="could not start"):
        toolchain.run_zig(["version"], folder=tmp_path, what="asking zig")


def test_without_the_package_python_says_so(monkeypatch):
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    assert toolchain._zig.__wrapped__() == (toolchain.sys.executable, "-m", "ziglang")
