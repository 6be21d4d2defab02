"""The settings of each compression method on its own; a record's class names the method."""

from __future__ import annotations

from typing import Literal

from edgecompress.compress.criteria import Criterion
from edgecompress.compress.quantize.options import QuantizeOptions as PostTraining
from edgecompress.records import Record


class PruneOptions(Record):
    """Structured pruning.

    Attributes:
        ratio: share of the channels removed.
        scope: the same share of every group ("layer"), or the weakest of all ("global").
        multiple_of: what widths are rounded to.
        repair: least-squares repair of the layers behind, on calibration data.
    """

    ratio: float = 0.5
    criterion: Criterion = "l2"
    scope: Literal["layer", "global"] = "layer"
    multiple_of: int = 4
    repair: bool = False


class SparsifyOptions(Record):
    """Unstructured pruning.

    Attributes:
        sparsity: share of zeros, of every layer or over all (`scope`).
        gradual: zeros appear during fine-tuning, by Zhu and Gupta's cubic over its first 70 %.
    """

    sparsity: float = 0.5
    scope: Literal["layer", "global"] = "layer"
    gradual: bool = False


class LowRankOptions(Record):
    """Low-rank factorization.

    Attributes:
        factorization: "auto" takes what leaves the fewest weights (cp only when named).
        energy: share of each layer's outputs (its weights, without data) that the ranks keep.
        rank: for all ranks instead of `energy`; no more than a layer's full rank.
        layers: only these; all that get smaller where empty.
    """

    factorization: Literal["auto", "svd", "tucker2", "cp", "spatial"] = "auto"
    energy: float = 0.9
    rank: int | None = None
    layers: tuple[str, ...] = ()


class QuantizeOptions(PostTraining):
    """Post-training quantization, with the settings of `quantize.options`.

    Attributes:
        bits: of the weights.
        layers: only these layers' weights take 4 bits; all where empty.
    """

    bits: Literal[8, 4] = 8
    layers: tuple[str, ...] = ()


class ShareOptions(Record):
    """Weight sharing: how many different values a layer's weights may take."""

    values: Literal[16, 4] = 16
    layers: tuple[str, ...] = ()


class DistillOptions(Record):
    """Knowledge distillation into another model, by `finetune_steps` of training.

    Attributes:
        student: ".onnx", ".pt2" or "package.module:callable", trained or not, with the inputs and
            outputs of the model it learns from.
        temperature, label_share, feature_share: see `finetune.Recipe`.
    """

    student: str = ""
    temperature: float = 4.0
    label_share: float = 0.3
    feature_share: float = 0.0


MethodOptions = (
    PruneOptions | SparsifyOptions | LowRankOptions | QuantizeOptions | ShareOptions
    | DistillOptions
)  # fmt: skip
OPTIONS: dict[str, type[MethodOptions]] = {
    "prune": PruneOptions,
    "sparsify": SparsifyOptions,
    "lowrank": LowRankOptions,
    "quantize": QuantizeOptions,
    "share": ShareOptions,
    "distill": DistillOptions,
}
