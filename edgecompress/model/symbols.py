"""`pkg.mod:callable`: the user's own code, imported because they named it."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecompress.errors import BadInput

_SYMBOL = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")


def is_symbol(spec: str) -> bool:
    """Whether `spec` reads as `pkg.mod:callable`."""
    return _SYMBOL.match(spec) is not None


def call_symbol(spec: str) -> Any:
    """Finds the object and calls it without arguments.

    Raises:
        BadInput: as `find_symbol`, or the call fails; the line names where in the user's file.
    """
    return _call(find_symbol(spec), spec)


def find_symbol(spec: str) -> Callable[..., Any]:
    """The callable `spec` names, the working folder on the path.

    Raises:
        BadInput: the module does not import, or the attribute is not there or not callable; the
            line names which, and where in the user's file.
    """
    if not is_symbol(spec):
        raise BadInput(f"'{spec}' does not name a callable.", next_step="Write pkg.mod:callable.")
    module_name, _, attribute = spec.partition(":")
    found = _import(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BadInput(
                f"Module '{module_name}' has no attribute '{attribute}'.",
                next_step=f"Define it, or name one of: {_public_callables(found)}.",
            )
        found = getattr(found, part)
    if not callable(found):
        raise BadInput(
            f"'{spec}' is a {type(found).__name__}, not a callable.",
            next_step="Name a function.",
        )
    return found


def _import(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise BadInput(
                f"There is no Python module '{error.name}' (looked in {here} and sys.path).",
                next_step="Run from the folder that holds it, or install it.",
            ) from error
        raise BadInput(f"Importing '{name}' failed: {_one_line(error)}.") from error
    except Exception as error:
        raise BadInput(f"Importing '{name}' failed: {_one_line(error)}.") from error


def _call(function: Callable[[], Any], spec: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise BadInput(f"Calling '{spec}' failed: {_one_line(error)}.") from error


def _one_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    where = f" at {Path(last.filename).name}:{last.lineno}" if last else ""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}{where}: {text[0] if text else 'no message'}"


def _public_callables(module: Any) -> str:
    names = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
    return ", ".join(names[:8]) or "(it defines none)"
