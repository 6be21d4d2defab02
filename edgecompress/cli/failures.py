"""How a command ends: the exit code, the one line on stderr, the JSON error document."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import typer

from edgecompress.errors import DoesNotFit, EdgeCompressError, UnlikeRuns, UnsupportedOperators

EXIT_FITS = 0
EXIT_DOES_NOT_FIT = 1
EXIT_BAD_INPUT = 2
EXIT_DEVICE_TROUBLE = 3
EXIT_BUG = 70
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM

UsageError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
"""typer keeps the base of its usage errors in a private module; its public subclass leads there."""


@dataclass(frozen=True)
class Failure:
    """Why a command ended early, ready to be printed."""

    kind: str
    message: str
    next_step: str | None
    exit_code: int
    details: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """What `--json` says about it."""
        return {
            "kind": self.kind,
            "message": self.message,
            "next_step": self.next_step,
            "exit_code": self.exit_code,
            **self.details,
        }


def explain(error: Exception) -> Failure:
    """Any exception as a `Failure`; what is not in the error tree is a bug in this tool."""
    if isinstance(error, EdgeCompressError):
        return Failure(
            type(error).__name__, error.message, error.next_step, error.exit_code, _details(error)
        )
    if isinstance(error, UsageError):
        return _explain_usage(error)
    return Failure(
        "Bug",
        f"unexpected {type(error).__name__}: {error}.",
        "This is a bug in edgecompress; run again with --debug for the traceback.",
        EXIT_BUG,
        {},
    )


def _explain_usage(error: Exception) -> Failure:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgecompress"
    # pydantic's own prefix, where typer checked the value through it
    message = error.format_message().replace("Value error, ", "")  # type: ignore[attr-defined]
    return Failure("UsageError", message, f"See '{command} --help'.", EXIT_BAD_INPUT, {})


def _details(error: EdgeCompressError) -> dict[str, Any]:
    if isinstance(error, DoesNotFit):
        names = ("resource", "needed", "limit", "unit")
        return {name: getattr(error, name) for name in names}
    if isinstance(error, UnsupportedOperators):
        names = ("operator", "node", "reason")
        return {"operators": [dict(zip(names, item, strict=True)) for item in error.operators]}
    if isinstance(error, UnlikeRuns):
        names = ("what", "first", "second")
        return {"differences": [dict(zip(names, item, strict=True)) for item in error.differences]}
    return {}


def report(error: Exception, *, debug: bool, about: str = "") -> Failure:
    """Prints one line on stderr, after the traceback if `debug`, and returns what it said.

    Args:
        about: the model the error belongs to, where a command takes several.
    """
    failure = explain(error)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    where = f"{about}: " if about else ""
    words = " ".join(f"{where}{failure.message} {failure.next_step or ''}".split())
    label = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    print(f"{label} {words}", file=sys.stderr, flush=True)
    return failure


def print_error_document(failure: Failure) -> None:
    """`{"error": {...}}` on stdout."""
    print(json.dumps({"error": failure.document()}, indent=2), flush=True)


def report_interrupt(exit_code: int) -> Failure:
    """One line on stderr for Ctrl-C or SIGTERM, and the `Failure` it stands for."""
    how = "terminated" if exit_code == EXIT_TERMINATED else "interrupted"
    message = f"{how}; no unfinished file was left under its final name."
    print(message, file=sys.stderr, flush=True)
    next_step = "Run the same command again; fit continues after its last finished stage."
    return Failure("Interrupted", message, next_step, exit_code, {})
