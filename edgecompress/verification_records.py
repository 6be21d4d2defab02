"""How executions of one model compare."""

from __future__ import annotations

from edgecompress.measurement_records import Provenance
from edgecompress.record_base import SCHEMA_VERSION, Record


class Difference(Record):
    """The first element on which two of the three executions disagree."""

    layer: str
    element: tuple[int, ...]
    sides: tuple[str, str]
    values: tuple[float, float]


class Verification(Record):
    """How the executions in `sides` compare.

    `exact`: every compared layer is bitwise equal. Otherwise `first_difference` is set, unless
    float layers differed by no more than `tolerance`, a fraction of a layer's largest magnitude.
    """

    exact: bool
    layers: int
    samples: int
    sides: tuple[str, ...]
    first_difference: Difference | None = None
    tolerance: float | None = None

    @property
    def agrees(self) -> bool:
        """No difference beyond what float rounding allows."""
        return self.first_difference is None


class DeviceVerification(Record):
    """Samples run on a device, each layer compared with the host build.

    `verification` is of the samples finished out of `samples_asked`; `stopped` says why there are
    fewer, `broken` that it was the device or an interrupt and not the time limit. `first_sample`
    is the number, from 0, of the sample that first disagreed, and `disagreements` counts samples
    by the layer that disagreed first. Accuracies are top-1 percent on the same samples; None
    without labels.
    """

    schema_version: int = SCHEMA_VERSION
    device: str
    verification: Verification
    samples_asked: int
    stopped: str = ""
    broken: bool = False
    first_sample: int | None = None
    disagreements: dict[str, int] = {}
    device_accuracy: float | None = None
    host_accuracy: float | None = None
    data: str = ""
    provenance: Provenance

    @property
    def agrees(self) -> bool:
        """Every finished sample did."""
        return self.verification.agrees
