"""One model, three executions, every layer: numpy twin = host build = device, bit for bit.

The device is stepped layer by layer and answers with a checksum of what each layer wrote; only
where that differs from the host's are the bytes fetched and the first differing element named.

Layers TVM computes in float have no numpy twin, and two compilers may round a float sum
differently. A float layer, and every layer fed by one, is therefore compared between host and
device only, bitwise first and else within a stated tolerance; `Verification.sides` and
`Verification.tolerance` say so, and such a result is not called exact.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgecompress.device.harness import Session
from edgecompress.errors import ProtocolError, VerificationFailed
from edgecompress.lower import twin
from edgecompress.lower.program import Program
from edgecompress.records import Difference, ImageManifest, Verification

TWIN, HOST, DEVICE = "numpy twin", "host", "device"

# Largest difference accepted after a float layer, as a fraction of the layer's largest magnitude:
# a thousand float32 roundings. Integers behind a float layer may differ by this many steps.
FLOAT_TOLERANCE = 1e-4
INTEGER_STEPS_TOLERANCE = 2


class Layered(Protocol):
    """What is asked of the host build (`verify.host.HostModel`)."""

    def layers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Step name -> output, in the step's shape and type."""
        ...


@dataclass
class _Findings:
    exact: bool = True
    tolerated: bool = False
    difference: Difference | None = None


def verify(
    program: Program,
    host: Layered,
    session: Session | None,
    manifest: ImageManifest,
    samples: np.ndarray,
    *,
    with_twin: bool = True,
) -> Verification:
    """Runs every sample on every side and compares each layer's output.

    Args:
        program: what was compiled.
        host: the host build of the same PrimFuncs.
        session: the device; None compares twin and host only.
        manifest: where each layer's output lies in the device's memory.
        samples: [n, ...] inputs in the device's layout and type.
        with_twin: False leaves the numpy twin out, which takes far longer than the others.

    Returns:
        `exact` when every comparison was bitwise equal; else `first_difference` names the first
        layer, element and both values, unless all differences were within `tolerance`.

    Raises:
        ProtocolError: the manifest is of another program.
        VerificationFailed: the device gives different bytes for the same layer twice.
    """
    _check_same_model(program, manifest)
    # A float anywhere leaves the twin without that layer's output, and so without the rest.
    with_twin = with_twin and not layers_behind_float(program)
    findings = _Findings()
    for row in samples:
        sample = np.asarray(row).reshape(program.inputs[0].shape)
        twin_layers = twin.run(program, sample) if with_twin else None
        _compare_sample(program, host, session, manifest, sample, twin_layers, findings)
        if findings.difference is not None:
            break
    sides = tuple(
        side
        for side, present in ((TWIN, with_twin), (HOST, True), (DEVICE, session is not None))
        if present
    )
    return Verification(
        exact=findings.exact,
        layers=len(program.steps),
        samples=len(samples),
        sides=sides,
        first_difference=findings.difference,
        tolerance=FLOAT_TOLERANCE if findings.tolerated else None,
    )


def layers_behind_float(program: Program) -> set[str]:
    """Names of the steps that compute in float or read, directly or not, what such a step wrote."""
    tainted_buffers: set[str] = set()
    tainted_steps: set[str] = set()
    for step in program.steps:
        reads = {argument.name for argument in step.arguments[:-1] if argument.kind == "buffer"}
        if step.is_float or reads & tainted_buffers:
            tainted_buffers.add(step.output)
            tainted_steps.add(step.name)
        else:
            tainted_buffers.discard(step.output)
    return tainted_steps


def _check_same_model(program: Program, manifest: ImageManifest) -> None:
    ours = [step.name for step in program.steps]
    theirs = [layer.name for layer in manifest.layers]
    if ours != theirs:
        raise ProtocolError(
            f"The image has {len(theirs)} layers, the program {len(ours)}, and they are not the "
            "same: the image was built from another program.",
            next_step="Compile the image again.",
        )


def _compare_sample(
    program: Program,
    host: Layered,
    session: Session | None,
    manifest: ImageManifest,
    sample: np.ndarray,
    twin_layers: dict[str, np.ndarray] | None,
    findings: _Findings,
) -> None:
    host_layers = host.layers(sample)
    behind_float = layers_behind_float(program)
    traces = session.layers(sample, manifest) if session is not None else None
    for index, step in enumerate(program.steps):
        expected = np.ascontiguousarray(host_layers[step.name])
        if twin_layers is not None:
            _note(findings, step.name, (TWIN, HOST), twin_layers[step.name], expected, exact=True)
        if findings.difference is None and session is not None and traces is not None:
            crc = zlib.crc32(expected.tobytes())
            if traces[index].crc != crc:
                found = session.read_layer(index)
                _check_stable(session, step.name, found, traces[index].crc)
                exact = step.name not in behind_float
                _note(findings, step.name, (HOST, DEVICE), expected, found, exact=exact)
        if findings.difference is not None:
            return


def _check_stable(session: Session, layer: str, found: np.ndarray, crc: int) -> None:
    if zlib.crc32(found.tobytes()) != crc:
        raise VerificationFailed(
            f"Layer '{layer}' gave different bytes on two runs of the same input on "
            f"{session.port.name}.",
            next_step="Something else writes to the arena, or a kernel reads memory not its own.",
        )


def _note(
    findings: _Findings,
    layer: str,
    sides: tuple[str, str],
    one: np.ndarray,
    other: np.ndarray,
    *,
    exact: bool,
) -> None:
    """Records how two outputs of one layer compare; the first element beyond the limit is kept."""
    one = np.asarray(one).reshape(other.shape)
    if one.tobytes() == other.tobytes() and one.dtype == other.dtype:
        return
    findings.exact = False
    beyond = _bits_differ(one, other) if exact else _beyond_tolerance(one, other)
    if not beyond.any():
        findings.tolerated = True
        return
    element = tuple(int(i) for i in np.unravel_index(int(np.argmax(beyond)), beyond.shape))
    findings.difference = Difference(
        layer=layer,
        element=element,
        sides=sides,
        values=(float(one[element]), float(other[element])),
    )


def _bits_differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if one.dtype != other.dtype:
        return np.ones(other.shape, bool)
    width = one.dtype.itemsize
    bits = np.ascontiguousarray(one).view(np.uint8) != np.ascontiguousarray(other).view(np.uint8)
    return bits.reshape(*other.shape, width).any(axis=-1)


def _beyond_tolerance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if one.dtype != other.dtype:
        return np.ones(other.shape, bool)
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    if np.issubdtype(one.dtype, np.integer):
        return apart > INTEGER_STEPS_TOLERANCE
    limit = FLOAT_TOLERANCE * max(float(np.abs(one).max(initial=0.0)), np.finfo(np.float32).tiny)
    # A NaN is never within a tolerance.
    return ~(apart <= limit)
