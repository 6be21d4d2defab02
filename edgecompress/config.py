"""`edgecompress.toml` in the working folder: the options a project does not want to retype.

    model = "model.onnx"
    data = "calib.npz"
    target = "cortex-m7"
    flash = "512K"

An option on the command line beats the file, the file beats the built-in default.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from edgecompress.errors import BadConfig
from edgecompress.records import Record
from edgecompress.target.schema import Bytes

CONFIG_NAME = "edgecompress.toml"


def parse_shape(value: Any) -> tuple[int, ...]:
    """A static shape from "1,3,32,32" or [1, 3, 32, 32].

    Raises:
        ValueError: not whole numbers of at least 1.
    """
    wanted = "write whole numbers of at least 1, such as 1,3,32,32"
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not parts:
        raise ValueError(wanted)
    shape = []
    for part in parts:
        text = part.strip() if isinstance(part, str) else part
        if isinstance(text, str) and text.isdecimal():
            text = int(text)
        if isinstance(text, bool) or not isinstance(text, int) or text < 1:
            raise ValueError(f"{wanted}; '{part}' is not")
        shape.append(text)
    return tuple(shape)


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; leave the key out instead")
    return text


_Text = Annotated[str, Field(strict=True), AfterValidator(_not_empty)]


class Config(Record):
    """What the file may say; None where it says nothing. Sizes are in bytes."""

    model: _Text | None = None
    data: _Text | None = None
    target: _Text | None = None
    flash: Bytes | None = None
    ram: Bytes | None = None
    latency_us: Annotated[float, Field(gt=0)] | None = None
    effort: Literal["fast", "balanced", "max"] | None = None
    optimize: Literal["size", "speed", "balanced"] | None = None
    seed: Annotated[int, Field(ge=0, strict=True)] | None = None
    output: _Text | None = None
    input_shape: Annotated[tuple[int, ...], BeforeValidator(parse_shape)] | None = None


def load_config(folder: Path) -> Config:
    """The file's content, or an empty `Config` where `folder` has no such file.

    Raises:
        BadConfig: not TOML, an unknown key, or a value of the wrong kind.
    """
    path = folder / CONFIG_NAME
    if not path.exists():
        return Config()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(
            f"{CONFIG_NAME} is not TOML: {error}.",
            next_step='Write lines like target = "cortex-m7".',
        ) from None
    except OSError as error:
        raise BadConfig(f"{CONFIG_NAME} cannot be read: {error.strerror}.") from None
    return check_options(content, origin=CONFIG_NAME)


def check_options(options: dict[str, Any], *, origin: str) -> Config:
    """Checks option values whatever they come from.

    Args:
        options: option name (as in `Config`) to value.
        origin: what the message should blame, such as "edgecompress.toml".

    Raises:
        BadConfig: naming every key at fault, and the allowed ones for an unknown key.
    """
    try:
        return Config.model_validate(options)
    except ValidationError as error:
        raise _explained(origin, error) from None


def _explained(origin: str, error: ValidationError) -> BadConfig:
    faults, unknown = [], False
    for fault in error.errors():
        key = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            unknown = True
            faults.append(f"'{key}' is not an option")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            faults.append(f"'{key}' = {fault['input']!r}: {message.rstrip('.')}")
    allowed = f"Allowed: {', '.join(Config.model_fields)}." if unknown else None
    return BadConfig(f"{origin}: {'; '.join(faults)}.", next_step=allowed)
