"""Nothing of ours, tests included, listens on more than this machine's loopback."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("edgecompress", "tools", "tests", "runtimes")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
LISTENERS = {
    "bind", "create_server", "start_server", "create_unix_server", "HTTPServer",
    "ThreadingHTTPServer", "TCPServer", "ThreadingTCPServer", "UDPServer", "make_server",
    "Listener",
}  # fmt: skip
# Spelled so that this file does not hold them.
EVERYWHERE = (".".join("0000"), "INADDR" + "_ANY", "host=" + '""')


def strays(source: str) -> list[int]:
    """Lines that make something listen at an address that is not plainly the loopback's."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        texts = {
            leaf.value
            for argument in given
            for leaf in ast.walk(argument)
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
        }
        if name in LISTENERS and not texts & LOOPBACK:
            found.append(node.lineno)
    return found


def python_files() -> list[Path]:
    return [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]


def test_servers_name_the_loopback() -> None:
    files = python_files()
    assert len(files) > 100
    everywhere = {
        str(path.relative_to(REPOSITORY)): lines
        for path in files
        if (lines := strays(path.read_text(encoding="utf-8")))
    }
    assert everywhere == {}


def test_no_source_names_the_address_of_every_interface() -> None:
    for folder in FOLDERS:
        for path in (REPOSITORY / folder).rglob("*"):
            if path.suffix in {".py", ".c", ".h", ".toml", ".j2", ".sh"}:
                text = path.read_text(encoding="utf-8")
                assert not any(word in text for word in EVERYWHERE), path


def test_the_audit_sees_what_it_looks_for() -> None:
    assert strays("import socket\nsocket.create_server(('', 0))") == [2]
    assert strays("server.bind((host, 80))") == [1]
    assert strays("asyncio.start_server(serve, '127.0.0.1', 0)") == []
