"""Measurements on disk: every one kept beside the image it is of, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from pydantic import ValidationError

from edgecompress.errors import BadInput, UnwritableOutput
from edgecompress.record_base import Record
from edgecompress.records import Measurement
from edgecompress.workspace import MEASUREMENTS as FOLDER

_VERIFICATION = ".verification.json"
_NAME_CHARACTERS = 60
_SIZE_LIMIT_BYTES = 64 << 20


def save(record: Record, folder: Path, *, time_utc: str, device: str, kind: str = "") -> Path:
    """Writes `measurements/<time>-<device>.json` of an artifact; an existing file is never touched.

    Args:
        folder: the artifact's.
        time_utc: ISO 8601.
        device: what it was measured on, in any characters.
        kind: "verification" for what is not a measurement.

    Raises:
        UnwritableOutput: the folder takes no file.
    """
    place = folder / FOLDER
    stamp = re.sub(r"[^0-9T]", "", time_utc.partition("+")[0])
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", device).strip("-.")[:_NAME_CHARACTERS] or "device"
    suffix = f".{kind}.json" if kind else ".json"
    try:
        place.mkdir(exist_ok=True)
        return _write_new(place, f"{stamp}-{safe}", suffix, record.to_json())
    except OSError as error:
        raise UnwritableOutput(
            f"{place} cannot take the measurement: {error.strerror or error}.",
            next_step="Copy the artifact to a folder you can write to, or keep what --json prints.",
        ) from None


def _write_new(place: Path, stem: str, suffix: str, text: str) -> Path:
    """A linked name appears complete, and only if nobody has it: two boards may finish at once."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=place, prefix=".partial-", delete=False
    ) as file:
        partial = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(0o644)
            for number in range(1, 10_000):
                final = place / (stem + (f"-{number}" if number > 1 else "") + suffix)
                with contextlib.suppress(FileExistsError):
                    os.link(partial, final)
                    return final
            raise OSError(f"{place} has too many files named {stem}")
        finally:
            partial.unlink(missing_ok=True)


def read_measurement(path: Path) -> tuple[Path, Measurement]:
    """A measurement file, or of an artifact's folder the latest one.

    Returns:
        The file it was read from, and what it holds.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    file = _latest(path) if path.is_dir() else path
    try:
        if file.stat().st_size > _SIZE_LIMIT_BYTES:
            raise BadInput(f"{file} is larger than 64 MiB: not a measurement.")
        measured = Measurement.from_json(file.read_bytes())
    except OSError as error:
        raise BadInput(
            f"{file} cannot be read: {error.strerror}.",
            next_step="Measure with `edgecompress profile ARTIFACT`.",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise BadInput(f"{file} is not a measurement: {where}: {first['msg']}.") from None
    if not _harmless(measured.model_dump()):
        raise BadInput(f"{file} holds control characters, which no measurement does.")
    return file, measured


def _harmless(value: object) -> bool:
    """Whether no text in it would do more to a terminal than be shown; files come from others."""
    if isinstance(value, str):
        return all(char.isprintable() or char in "\n\t" for char in value)
    if isinstance(value, dict):
        return all(_harmless(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return all(_harmless(part) for part in value)
    return True


def _latest(folder: Path) -> Path:
    """Names begin with the time, so the last in order is the latest."""
    place = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    files = sorted(
        path for path in place.glob("[0-9]*.json") if not path.name.endswith(_VERIFICATION)
    )
    if not files:
        raise BadInput(
            f"{folder} holds no measurement.",
            next_step=f"Measure it first: edgecompress profile {folder}",
        )
    return files[-1]
