"""The small frozen records that pass between rooms: JSON both ways, hashable by content.

What an image occupies is described in `memory_records`, what was measured of it in
`measurement_records`, how its executions compare in `verification_records`; all can be had from
here too.
"""

from __future__ import annotations

from typing import Literal

from edgecompress.measurement_records import Build as Build
from edgecompress.measurement_records import Comparison as Comparison
from edgecompress.measurement_records import CycleEstimate as CycleEstimate
from edgecompress.measurement_records import Fleet as Fleet
from edgecompress.measurement_records import FleetMember as FleetMember
from edgecompress.measurement_records import HostMachine as HostMachine
from edgecompress.measurement_records import Interval as Interval
from edgecompress.measurement_records import LayerMeasurement as LayerMeasurement
from edgecompress.measurement_records import LayerRatio as LayerRatio
from edgecompress.measurement_records import Measurement as Measurement
from edgecompress.measurement_records import MeasurementLabel as MeasurementLabel
from edgecompress.measurement_records import Provenance as Provenance
from edgecompress.measurement_records import TimeStatistics as TimeStatistics
from edgecompress.memory_records import ArenaPlacement as ArenaPlacement
from edgecompress.memory_records import MemoryMap as MemoryMap
from edgecompress.memory_records import RegionUse as RegionUse
from edgecompress.memory_records import SizeReport as SizeReport
from edgecompress.memory_records import TensorPlacement as TensorPlacement
from edgecompress.record_base import SCHEMA_VERSION as SCHEMA_VERSION
from edgecompress.record_base import Record as Record
from edgecompress.record_base import sha256_file as sha256_file
from edgecompress.verification_records import DeviceVerification as DeviceVerification
from edgecompress.verification_records import Difference as Difference
from edgecompress.verification_records import Verification as Verification


class Budget(Record):
    """What the image may use; None means unlimited (phones and hosts without a stated limit).

    `latency_us` caps the estimated time of one inference.
    """

    flash_bytes: int | None = None
    ram_bytes: int | None = None
    latency_us: float | None = None


class LowRank(Record):
    """A factorization of one layer.

    `ranks` is (rank,) for "svd", "cp" and "spatial", (rank_in, rank_out) for "tucker2".
    """

    method: Literal["svd", "tucker2", "cp", "spatial"]
    ranks: tuple[int, ...]


class WeightStorage(Record):
    """How one layer's int8 weights are made small in flash.

    All of them stay int8 values in the deployable: "int4" lies within [-7, 7], "shared16" and
    "shared4" take at most 16 or 4 distinct values, "sparse" holds at least `sparsity` zeros (a
    fraction). The codec of the image follows from the values.
    """

    format: Literal["int4", "shared16", "shared4", "sparse"]
    sparsity: float = 0.0


class StudentChoice(Record):
    """A network of `model.compact`: its family, first width, depth and division of the input."""

    family: str
    width: int
    depth: int
    shrink: int = 1

    @property
    def name(self) -> str:
        """For people: "ds_cnn_w16_d2"."""
        lower = f"_shrink{self.shrink}" if self.shrink > 1 else ""
        return f"{self.family}_w{self.width}_d{self.depth}{lower}"


class Prediction(Record):
    """What the planner expects of the linked image, in bytes, before it exists.

    `unplaced_bytes`: of the arena, above what the device's RAM regions can take, each buffer in
    one of them. `decoding_instructions` are what encoded weights add to an inference.
    """

    flash_bytes: int
    ram_bytes: int
    flash_parts: dict[str, int] = {}
    ram_parts: dict[str, int] = {}
    peak_step: str = ""
    macs: int = 0
    unplaced_bytes: int = 0
    decoding_instructions: int = 0


class Plan(Record):
    """Everything needed to make the same bytes again from the same model and data.

    `widths` maps a coupled group (named by its first layer) to the number of channels kept;
    `low_rank` maps a layer to its factorization, `weights` one to its storage (dense int8 where
    it is not named; a factorized layer's storage is that of all its factors). `student` replaces
    the model by a smaller one that learns from it; `weights` are then the student's layers. An
    empty plan is plain int8 quantization.
    """

    schema_version: int = SCHEMA_VERSION
    model_hash: str
    data_hash: str
    target: str
    budget: Budget
    seed: int
    effort: Literal["fast", "balanced", "max"]
    widths: dict[str, int] = {}
    low_rank: dict[str, LowRank] = {}
    weights: dict[str, WeightStorage] = {}
    student: StudentChoice | None = None
    finetune_steps: int = 0
    calibration_samples: int = 0
    predicted: Prediction


class TensorSpec(Record):
    """A model input or output as the image sees it (batch 1, 4-D tensors are NHWC).

    Real value = scale * (stored - zero_point); scale is None for float tensors.
    `source_layout` says how the source model orders the same tensor ("NCHW" or "" for as is).
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["int8", "uint8", "int16", "int32", "float32", "int64", "bool"]
    scale: float | None = None
    zero_point: int = 0
    source_layout: Literal["NCHW", ""] = ""


class LayerReport(Record):
    """One step of the image, its output `offset_bytes` into the memory `location` names.

    `implementation` describes the instruction set's own code; empty where the kernel's portable
    TIR runs, as it does for shapes no generator takes. `constant_bytes` are its weights, biases and
    tables in flash. `codec` names how the weights are stored where that is not plain int8, with the
    bytes it saves and the instructions it adds to an inference, predicted against the fastest code
    for plain weights.
    """

    index: int
    name: str
    kernel: str
    output_shape: tuple[int, ...]
    output_dtype: str
    location: Literal["arena", "input", "output"]
    offset_bytes: int
    size_bytes: int
    macs: int
    is_float: bool
    implementation: str = ""
    constant_bytes: int = 0
    codec: str = ""
    codec_saved_bytes: int = 0
    codec_instructions: int = 0


class ImageManifest(Record):
    """`image.json`: what is in an image folder, enough for the harness to drive it."""

    schema_version: int = SCHEMA_VERSION
    model_name: str
    target: str
    model_hash: str
    firmware_hash: str
    firmware: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[LayerReport, ...]
    memory: MemoryMap
    size: SizeReport
    requantize: Literal["smmla", "tflite"]
    build: Build | None = None


class Accuracy(Record):
    """By `metric`: top-1 or agreement in percent (more is better), or "mean squared error" (less
    is) of numbers and autoencoders. None where there is nothing to compare with; `samples` counts
    each side's."""

    source: float | None = None
    deployed: float | None = None
    device: float | None = None
    metric: str = "top-1 %"
    samples: dict[str, int] = {}


class FlashUse(Record):
    """`predicted_bytes` is None where nothing was predicted (GPU packages)."""

    used_bytes: int
    budget_bytes: int | None
    predicted_bytes: int | None
    sections: dict[str, int]


class RamUse(Record):
    used_bytes: int
    budget_bytes: int | None
    predicted_bytes: int | None
    parts: dict[str, int]


class LatencyUse(Record):
    """Time of one inference against its budget. An estimate is a range; `used_us` is its upper end.

    `predicted_us` is the planner's, before any image taught it better.
    """

    used_us: float
    budget_us: float
    predicted_us: float | None
    label: Literal["measured", "estimate"]


class SourceComparison(Record):
    """The image's outputs beside the source model's own, on the same inputs.

    `reference` names what ran the source; errors are in the output's real units.
    """

    reference: str
    samples: int
    max_abs_error: float
    mean_abs_error: float
    top1_agreement_percent: float | None = None


Optimize = Literal["size", "speed", "balanced"]


class OptimizeTrade(Record):
    """What one optimization goal chooses, predicted: instructions of an inference against bytes.

    `code_bytes` counts the code and packed constants of the layers that have a choice.
    """

    optimize: Optimize
    instructions: int
    code_bytes: int
    arena_bytes: int


class PatchReport(Record):
    """Consecutive layers computed in horizontal stripes, because the arena was too large whole.

    Steps of the stripes are named after their layer: "conv2d_0.patch1". `extra_macs_percent` is of
    the whole model's multiply-accumulates: what the stripes compute twice.
    """

    first_layer: str
    last_layer: str
    layers: int
    stripes: int
    arena_before_bytes: int
    arena_after_bytes: int
    extra_macs_percent: float


class TimeEstimate(Record):
    """A range in microseconds from exact instructions and the core's cycles-per-instruction."""

    low_us: float
    high_us: float
    clock_hz: int
    source: str


class ParetoPoint(Record):
    """A candidate the search judged on validation data after `steps` of recovery.

    `value` by `metric`, larger is better; None without labels, where `divergence` from the
    source's outputs judges. Sizes are the compiler's account, in bytes. `on_front`: no other
    candidate is as good in all of them and better in one. `plan` names a file in `search/`.
    """

    name: str
    metric: str
    value: float | None
    divergence: float
    flash_bytes: int
    ram_bytes: int
    macs: int
    steps: int
    plan: str
    on_front: bool
    chosen: bool


class StageScore(Record):
    """The model on validation data after one stage; what a stage cost is the change to the last.

    `value` as in `ParetoPoint`; `divergence` from the source's outputs.
    """

    stage: Literal["source", "prune", "factor", "round", "fine-tune", "student", "quantize"]
    value: float | None
    divergence: float


class Sensitivity(Record):
    """What one change alone does to the outputs, as KL divergence or relative squared error."""

    layer: str
    change: str
    damage: float


class Result(Record):
    """`result.json`: what a command made and what was measured of it."""

    schema_version: int = SCHEMA_VERSION
    command: Literal["fit", "compile"]
    model: str
    target: str
    fits: bool
    accuracy: Accuracy
    flash: FlashUse
    ram: RamUse
    latency: LatencyUse | None = None
    instructions: int | None = None
    macs: int = 0
    device: str = ""
    label: MeasurementLabel | Literal["compiled, not run"] = "compiled, not run"
    latency_us: float | None = None
    time_estimate: TimeEstimate | None = None
    verified: Verification
    against_source: SourceComparison | None = None
    float_layers: tuple[str, ...] = ()
    layers: tuple[LayerReport, ...] = ()
    memory: MemoryMap | None = None
    regions: tuple[RegionUse, ...] = ()
    optimize: Optimize = "balanced"
    trades: tuple[OptimizeTrade, ...] = ()
    patches: tuple[PatchReport, ...] = ()
    nearest_patch: PatchReport | None = None
    plan: Plan | None = None
    objective: str = ""
    front: tuple[ParetoPoint, ...] = ()
    ledger: tuple[StageScore, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    hashes: dict[str, str] = {}
    seeds: dict[str, int] = {}
    versions: dict[str, str] = {}
    seconds: dict[str, float] = {}
    notes: tuple[str, ...] = ()
