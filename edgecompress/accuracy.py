"""Source, host and device on the same inputs: what compression cost, in the user's own measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.deploy import Deployed, device_inputs, device_outputs, real_inputs
from edgecompress.progress import Progress
from edgecompress.records import Accuracy, Measurement, SourceComparison

if TYPE_CHECKING:
    from edgecompress.model.data import Splits
    from edgecompress.model.load import Source
    from edgecompress.target import DeviceProfile

HOST_SAMPLES = 1000
DEVICE_SAMPLES, _FEWEST_DEVICE_SAMPLES = 32, 8
_EMULATED_INSTRUCTIONS = 400_000_000
"""What emulated samples may take in all, about four seconds."""


def compare_with_source(
    deployed: Deployed,
    source: Source,
    splits: Splits | None,
    folder: Path,
    profile: DeviceProfile,
    device: str,
    progress: Progress,
) -> tuple[Accuracy, SourceComparison]:
    """Runs the test split (seeded noise when there is no data) through all three.

    The measure is `model.answers`'s: without labels the agreement with the source's own top-1, for
    numbers and autoencoders the squared error. The device runs the first DEVICE_SAMPLES, of a
    heavy model under emulation fewer; its integer outputs must equal the host's.

    Raises:
        BadData: y has not as many numbers a sample as the model gives.
        VerificationFailed: an integer output differs between device and host.
    """
    from edgecompress.lower.program import dequantize_output
    from edgecompress.model.answers import SQUARED_ERROR, measure_of

    given = None if splits is None else splits.test.x
    inputs = device_inputs(deployed.program, given, HOST_SAMPLES)
    real = real_inputs(deployed.program, inputs) if given is None else given[: len(inputs)]
    expected = _source_outputs(source, real)
    stored = deployed.host.run_batch(inputs)

    def real_outputs(rows: np.ndarray) -> np.ndarray:
        each = [dequantize_output(deployed.program, row[None]) for row in rows]
        return np.concatenate(each).reshape(len(rows), *expected.shape[1:])

    made = real_outputs(stored)
    errors = np.abs(made - expected)
    measure = None if splits is None else measure_of(expected, splits.test)
    is_classifier = expected.ndim == 2 and expected.shape[1] > 1
    is_classifier = is_classifier and (measure is None or measure.metric != SQUARED_ERROR)
    comparison = SourceComparison(
        reference="LiteRT reference kernels" if source.tflite is not None else "onnxruntime",
        samples=len(inputs),
        max_abs_error=float(errors.max()),
        mean_abs_error=float(errors.mean()),
        top1_agreement_percent=_top1(made, expected.argmax(1)) if is_classifier else None,
    )
    few = inputs[: device_samples(deployed.measurement)]
    on_device = device_outputs(deployed, folder, profile, device, few, progress)
    if measure is None:
        return Accuracy(), comparison
    accuracy = Accuracy(
        source=measure.of(expected),
        deployed=measure.of(made),
        device=measure.of(real_outputs(on_device)),
        metric=measure.metric,
        samples={"source": len(made), "deployed": len(made), "device": len(on_device)},
    )
    return accuracy, comparison


def device_samples(measured: Measurement) -> int:
    """How many test samples the device runs: on hardware all, under emulation within seconds."""
    if measured.label != "emulated instructions" or not measured.instructions:
        return DEVICE_SAMPLES
    affordable = _EMULATED_INSTRUCTIONS // measured.instructions
    return max(_FEWEST_DEVICE_SAMPLES, min(DEVICE_SAMPLES, affordable))


def _source_outputs(source: Source, x: np.ndarray) -> np.ndarray:
    from edgecompress.model.reference import run_onnx, run_tflite

    if source.tflite is not None:
        return run_tflite(source.tflite, x)
    assert source.onnx is not None
    return run_onnx(source.onnx, x)


def _top1(outputs: np.ndarray, labels: np.ndarray) -> float:
    return 100.0 * float(np.mean(outputs.argmax(1) == labels))
