"""Every error a user can meet, as one tree.

EdgeCompressError                      exit code
 ├── BadInput                          2   something the user gave cannot be used
 │    ├── UnknownTarget                    no such target; the nearest names are listed
 │    ├── InvalidTarget                    a target TOML breaks the schema
 │    ├── UnreadableModel                  missing, foreign or damaged model file
 │    ├── UnsupportedOperators             every operator no kernel takes, with node names
 │    ├── BadData                          shape, dtype, NaN, empty, labels
 │    ├── BadConfig                        edgecompress.toml or an option
 │    ├── UnlikeRuns                       two measurements that cannot be compared, and why
 │    └── UnwritableOutput                 the output folder cannot be written
 ├── DoesNotFit                        1   which budget, by how much, at which layer
 ├── BuildFailed                       2   TVM or the C toolchain refused
 └── DeviceTrouble                     3   the harness could not get an answer
      ├── DeviceNotFound                   no such port, emulator or board
      ├── DeviceTimeout                    silence past the limit
      ├── ProtocolError                    an answer outside the grammar
      ├── DeviceFault                      the firmware crashed, or left its memory map
      │    └── DeviceReset                 it started again in the middle
      └── VerificationFailed               device, host and numpy twin disagree

A message says what, where, the number against its limit with the unit; `next_step` is the cheapest
thing to try. Anything else that escapes is a bug in this tool and keeps its traceback.
"""

from __future__ import annotations


class EdgeCompressError(Exception):
    """Base of the tree.

    Args:
        message: what went wrong, where, and the number against its limit with its unit.
        next_step: the cheapest thing the user can do about it.
    """

    exit_code = 2

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}" if self.next_step else self.message


class BadInput(EdgeCompressError):
    pass


class UnknownTarget(BadInput):
    pass


class InvalidTarget(BadInput):
    pass


class UnreadableModel(BadInput):
    pass


class UnsupportedOperators(BadInput):
    """Raised once for a whole model.

    Attributes:
        operators: (operator type, node name, reason) for each node refused.
    """

    def __init__(self, operators: list[tuple[str, str, str]], *, next_step: str | None = None):
        self.operators = operators
        listed = "; ".join(f"{op} '{node}': {reason}" for op, node, reason in operators)
        count = len(operators)
        noun = "operator" if count == 1 else "operators"
        super().__init__(f"{count} unsupported {noun}: {listed}.", next_step=next_step)


class BadData(BadInput):
    pass


class BadConfig(BadInput):
    pass


class UnlikeRuns(BadInput):
    """Raised once for all that differs.

    Attributes:
        differences: (what, in the first, in the second) for each difference that forbids it.
    """

    def __init__(self, message: str, differences: list[tuple[str, str, str]], *, next_step: str):
        self.differences = differences
        super().__init__(message, next_step=next_step)


class UnwritableOutput(BadInput):
    pass


class DoesNotFit(EdgeCompressError):
    """No plan meets the budget.

    Attributes:
        resource: "flash", "ram" or "latency".
        needed: the least found, in `unit`.
        limit: the budget, in `unit`.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        resource: str,
        needed: int,
        limit: int,
        unit: str = "bytes",
        next_step: str | None = None,
    ):
        super().__init__(message, next_step=next_step)
        self.resource, self.needed, self.limit, self.unit = resource, needed, limit, unit


class BuildFailed(EdgeCompressError):
    pass


class DeviceTrouble(EdgeCompressError):
    exit_code = 3


class DeviceNotFound(DeviceTrouble):
    pass


class DeviceTimeout(DeviceTrouble):
    pass


class ProtocolError(DeviceTrouble):
    pass


class DeviceFault(DeviceTrouble):
    pass


class DeviceReset(DeviceFault):
    pass


class VerificationFailed(DeviceTrouble):
    pass
