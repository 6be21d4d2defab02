"""The typer application and its entry point."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, NoReturn

import typer

from edgecompress import __version__
from edgecompress.cli import boards, commands, measuring, targets
from edgecompress.cli.compress import compress
from edgecompress.cli.explaining import explain
from edgecompress.cli.failures import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    print_error_document,
    report,
    report_interrupt,
)
from edgecompress.cli.options import with_ray_address

app = typer.Typer(
    name="edgecompress",
    help="Give it a trained model, some data and a device; get a model that provably fits.",
    epilog="Exit codes: 0 fits, 1 does not fit, 2 bad input, 3 device trouble, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("fit")(commands.fit)
app.command("plan")(commands.plan)
app.command("compress")(compress)
app.command("compile")(commands.compile_models)
app.command("profile")(measuring.profile)
app.command("compare")(measuring.compare)
app.command("verify")(measuring.verify)
app.command("devices")(boards.devices)
app.command("flash")(boards.flash)
app.command("inspect")(commands.inspect)
app.command("explain")(explain)
app.add_typer(targets.app, name="targets")


def _print_version(wanted: bool) -> None:
    if wanted:
        as_json = "--json" in sys.argv[1:]
        print(json.dumps({"version": __version__}) if as_json else f"edgecompress {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: the command line without the program's name; default `sys.argv[1:]`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    arguments = with_ray_address(arguments)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    _print_any_text()
    with _terminate_like_interrupt() as received:
        try:
            code = app(args=arguments, prog_name="edgecompress", standalone_mode=False) or 0
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        except Exception as error:
            failure = report(error, debug=debug)
            if as_json:
                print_error_document(failure)
            return failure.exit_code
    if code != EXIT_INTERRUPTED:
        return code
    failure = report_interrupt(EXIT_TERMINATED if received else EXIT_INTERRUPTED)
    if as_json:
        print_error_document(failure)
    return failure.exit_code


def _print_any_text() -> None:
    """A terminal whose encoding lacks a character shows "?" for it instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


@contextlib.contextmanager
def _terminate_like_interrupt() -> Iterator[list[int]]:
    """SIGTERM raises KeyboardInterrupt, so what cleans up after Ctrl-C does after both.

    Yields the list of SIGTERMs received.
    """
    received: list[int] = []

    def on_terminate(number: int, _frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)
