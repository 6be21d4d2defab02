"""One compression method alone: model in, compressed ONNX and a before/after comparison out.

`edgecompress compress` is a thin layer over `compress_model`; `fit` combines the same methods under
a device's budgets.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from edgecompress.errors import BadInput
from edgecompress.progress import SILENT, Progress
from edgecompress.records import SCHEMA_VERSION, Record
from edgecompress.workspace import OutputFolder

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

    from edgecompress.compress.method_options import MethodOptions
    from edgecompress.compress.methods import Compressed
    from edgecompress.model.data import Dataset, Splits
    from edgecompress.model.load import Source
    from edgecompress.model.trainable import Trainable

Method = Literal["prune", "sparsify", "lowrank", "quantize", "share", "distill"]

_PACKAGES = ("edgecompress", "torch", "onnx", "numpy")


class ModelSize(Record):
    """What a model weighs.

    Attributes:
        parameters: trained numbers, BatchNorm's included.
        nonzero_weights: of convolutions, dense and recurrent layers, biases left out.
        macs: multiply-accumulates of one inference.
        file_weight_bytes: of convolutions and dense layers with their biases, as the file has
            them: float32, or int8 with int32 biases.
        image_weight_bytes: the same and learned offsets, as an int8 image stores them at the
            least: zeros as a bitmap and few values as indexes where that is smaller.
    """

    parameters: int
    nonzero_weights: int
    macs: int
    file_weight_bytes: int
    image_weight_bytes: int


class LayerChange(Record):
    """What became of one layer, or of the layers of one group."""

    layer: str
    before: str
    after: str


class Compression(Record):
    """`result.json` of `compress`.

    Attributes:
        accuracy: split name -> (before, after) in `metric`; empty where nothing can be said.
        metric: "top-1 %" with labels, else "same top-1 as before %" for classifiers; "mean squared
            error" with numbers to predict and for autoencoders, else "squared error / variance of
            the outputs".
    """

    schema_version: int = SCHEMA_VERSION
    command: Literal["compress"] = "compress"
    model: str
    method: Method
    options: dict[str, Any]
    file: str = "model.onnx"
    form: Literal["float32", "int8 QDQ"]
    before: ModelSize
    after: ModelSize
    accuracy: dict[str, tuple[float, float]]
    metric: str
    samples: dict[str, int]
    changes: tuple[LayerChange, ...]
    hashes: dict[str, str]
    versions: dict[str, str]
    finetune_steps: int = 0
    seeds: dict[str, int] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)


def compress_model(
    model: str,
    options: MethodOptions,
    *,
    data: str | None = None,
    finetune_steps: int = 0,
    seed: int = 0,
    output: Path | None = None,
    metric: str | None = None,
    log_folder: Path | None = None,
    input_shape: tuple[int, ...] | None = None,
    trust: bool = False,
    progress: Progress = SILENT,
) -> Compression:
    """Carries out one method and writes model.onnx and result.json, both or neither.

    Args:
        model: "demo", a .onnx/.pt2 path, or "package.module:callable" returning an nn.Module.
        options: `PruneOptions` or a sibling of it in `edgecompress.compress.method_options`; the
            class is the method.
        data: .npz, image folder or "package.module:callable"; the demo brings its own.
        finetune_steps: recovery training against the original model.
        output: folder; default build/<model>-<method>.
        metric: "package.module:callable" that fine-tuning selects by and the result shows.
        log_folder: curves of the fine-tuning for TensorBoard.

    Raises:
        EdgeCompressError: see `edgecompress.errors` for the tree.
    """
    from edgecompress.compress.finetune import user_metric
    from edgecompress.compress.methods import compress
    from edgecompress.flow import Stopwatch
    from edgecompress.model.data import load_data
    from edgecompress.model.load import load_source
    from edgecompress.model.opcheck import check_operators
    from edgecompress.model.trainable import to_trainable

    clock = Stopwatch(progress)
    measure = None if metric is None else user_metric(metric)
    clock.stage("Load the model")
    source = load_source(model, input_shape=input_shape, trust=trust)
    _require_float(source)
    check_operators(source)
    before = to_trainable(source)
    splits = None
    if data is not None or source.name == "demo":
        clock.stage("Load the data")
        splits = load_data(data, input_shape=source.input_shape, seed=seed)
    method = method_of(options)
    with OutputFolder(output or Path("build") / f"{source.name}-{method}") as folder:
        clock.stage(method.capitalize())
        done = compress(
            before, options, splits, name=source.name, finetune_steps=finetune_steps,
            seed=seed, metric=measure, log_folder=log_folder, progress=clock,
        )  # fmt: skip
        clock.stage("Write the model")
        written = _written(done, source.name, folder.path)
        clock.stage("Compare")
        result = _compared(source, before, options, splits, done, written)
        if metric is not None and splits is not None:
            result = result.model_copy(update=_by_user(metric, source, written, splits))
        result = result.model_copy(
            update={
                "finetune_steps": finetune_steps,
                "seeds": {"seed": seed},
                "seconds": clock.finish(),
            }
        )
        (folder.path / "result.json").write_text(result.to_json())
    return result


def _compared(
    source: Source,
    before: Trainable,
    options: MethodOptions,
    splits: Splits | None,
    done: Compressed,
    written: onnx.ModelProto,
) -> Compression:
    """Sizes, accuracy and provenance of both sides."""
    assert source.onnx is not None
    metric, accuracy, samples = _accuracy(source.onnx, written, splits)
    content = written.SerializeToString(deterministic=True)
    return Compression(
        model=source.name,
        method=method_of(options),
        options=options.model_dump(mode="json"),
        form="float32" if done.deployable is None else "int8 QDQ",
        before=_size(before, None),
        after=_size(done.trainable, done.deployable),
        accuracy=accuracy,
        metric=metric,
        samples=samples,
        changes=tuple(LayerChange(**vars(change)) for change in done.changes),
        hashes={
            "source": source.hash,
            "data": "" if splits is None else splits.hash,
            "model": hashlib.sha256(content).hexdigest(),
        },
        versions={package: metadata.version(package) for package in _PACKAGES},
    )


def method_of(options: MethodOptions) -> Method:
    """ "prune" for PruneOptions, and so on."""
    return type(options).__name__.removesuffix("Options").lower()  # type: ignore[return-value]


def _require_float(source: Source) -> None:
    if source.kind != "float":
        raise BadInput(
            f"{source.name} is already quantized, so there is nothing to compress.",
            next_step="Use `edgecompress compile`, or bring the float model.",
        )


def _written(done: Compressed, name: str, folder: Path) -> onnx.ModelProto:
    from edgecompress.model.float_onnx import to_float_onnx

    model = done.deployable or to_float_onnx(done.trainable, name)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return model


def _accuracy(
    before: onnx.ModelProto, after: onnx.ModelProto, splits: Splits | None
) -> tuple[str, dict[str, tuple[float, float]], dict[str, int]]:
    """Metric, (before, after) and number of samples, for validation and test.

    Both files are run as written, by onnxruntime.
    """
    from edgecompress.model.reference import run_onnx

    metric, values, samples = "", {}, {}
    parts = {} if splits is None else {"validation": splits.validation, "test": splits.test}
    for name, part in parts.items():
        if len(part):
            expected, made = run_onnx(before, part.x), run_onnx(after, part.x)
            metric, values[name] = _scored(expected, made, part)
            samples[name] = len(part)
    return metric, values, samples


def _by_user(
    metric: str, source: Source, written: onnx.ModelProto, splits: Splits
) -> dict[str, Any]:
    """The result's metric and accuracy by the user's own function."""
    from edgecompress.compress.finetune import user_metric
    from edgecompress.model.reference import run_onnx

    assert source.onnx is not None
    function = user_metric(metric)
    values = {}
    for name, part in (("validation", splits.validation), ("test", splits.test)):
        if len(part):
            before, after = (
                function(run_onnx(model, part.x), part.y) for model in (source.onnx, written)
            )
            values[name] = (before, after)
    return {"metric": metric, "accuracy": values}


def _scored(
    expected: np.ndarray, made: np.ndarray, part: Dataset
) -> tuple[str, tuple[float, float]]:
    from edgecompress.model.answers import AGREEMENT, measure_of

    measure = measure_of(expected, part)
    if measure is not None and measure.metric == AGREEMENT:
        return "same top-1 as before %", (100.0, measure.of(made))
    if measure is not None:
        return measure.metric, (measure.of(expected), measure.of(made))
    error = float(((made - expected) ** 2).mean()) / max(float(expected.var()), 1e-30)
    return "squared error / variance of the outputs", (0.0, error)


def _size(trainable: Trainable, deployable: onnx.ModelProto | None) -> ModelSize:
    from edgecompress.lower.codec import CODECS
    from edgecompress.model.inspect_fx import step_table

    steps = step_table(trainable).steps
    weights = _int8_weights(trainable) if deployable is None else _stored_weights(deployable)
    smallest = (
        min(
            [values.size, *(codec.encoded_bytes(values) for codec in CODECS if codec.takes(values))]
        )
        for values in weights
    )
    layers = {step.name: step for step in steps if step.weight_bytes_int8}.values()
    int8 = sum(step.weight_bytes_int8 for step in layers)
    float32 = sum(step.weight_bytes_float for step in layers)
    return ModelSize(
        parameters=sum(value.numel() for value in trainable.graph.parameters()),
        nonzero_weights=_nonzero(trainable, weights if deployable is not None else None),
        macs=sum(step.macs for step in steps),
        file_weight_bytes=float32 if deployable is None else int8,
        image_weight_bytes=sum(smallest) + int8 - _layer_weights(trainable),
    )


def _nonzero(trainable: Trainable, stored: list[np.ndarray] | None) -> int:
    if stored is not None:
        return sum(int((values != 0).sum()) for values in stored)
    return sum(int((weight != 0).sum()) for weight in _float_weights(trainable))


def _float_weights(trainable: Trainable) -> list[torch.Tensor]:
    """Of convolutions, dense and recurrent layers, and learned offsets; no biases, no BatchNorm."""
    return [value.detach() for value in trainable.graph.parameters() if value.dim() > 1]


def _layer_weights(trainable: Trainable) -> int:
    """How many of `_float_weights` belong to layers that multiply."""
    from edgecompress.model.offset import Offset

    modules = [module for module in trainable.graph.modules() if isinstance(module, Offset)]
    offsets = sum(module.value.numel() for module in modules if module.value.dim() > 1)
    return sum(weight.numel() for weight in _float_weights(trainable)) - offsets


def _int8_weights(trainable: Trainable) -> list[np.ndarray]:
    """Flat int8 weights of every layer, one scale an output channel: what quantization will make
    of them (folding BatchNorm multiplies whole channels)."""
    import numpy as np

    from edgecompress.compress.quantize.weights import make_grid

    made = []
    for weight in _float_weights(trainable):
        values = weight.numpy()
        bias = np.zeros(len(values), np.float32)
        grid = make_grid(values, bias, np.float32(1), None)
        made.append(grid.round(values).reshape(-1))
    return made


def _stored_weights(deployable: onnx.ModelProto) -> list[np.ndarray]:
    """Flat int8 weights of the file's own."""
    from onnx import TensorProto, numpy_helper

    return [
        numpy_helper.to_array(tensor).reshape(-1)
        for tensor in deployable.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
    ]
