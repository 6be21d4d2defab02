"""compress: one method alone, with its own options; a before/after table or JSON out."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_FITS
from edgecompress.cli.session import choose, show, working
from edgecompress.errors import BadConfig

if TYPE_CHECKING:
    from edgecompress.compress.method_options import MethodOptions


class Method(StrEnum):
    """What is done to the model."""

    prune = "prune"
    sparsify = "sparsify"
    lowrank = "lowrank"
    quantize = "quantize"
    share = "share"
    distill = "distill"


class Criterion(StrEnum):
    """How channels are compared."""

    l1 = "l1"
    l2 = "l2"
    batchnorm = "batchnorm"
    taylor = "taylor"
    activation = "activation"
    apoz = "apoz"


class Scope(StrEnum):
    """Every layer by itself, or one threshold over all."""

    layer = "layer"
    network = "global"


class Factorization(StrEnum):
    """Which factors a layer becomes."""

    auto = "auto"
    svd = "svd"
    tucker2 = "tucker2"
    spatial = "spatial"
    cp = "cp"


class Observer(StrEnum):
    """How the range of an activation is chosen."""

    mse = "mse"
    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"


class Rounding(StrEnum):
    """Weights to the nearest step, or as the layer's output wants it."""

    nearest = "nearest"
    adaround = "adaround"


_PRUNE, _SPARSIFY, _LOWRANK = "Prune", "Sparsify", "Low rank"
_QUANTIZE, _DISTILL = "Quantize and share", "Distill"

MethodOption = Annotated[Method, typer.Option("--method", "-m", help="What to do to the model.")]
Ratio = Annotated[
    float | None,
    typer.Option("--ratio", help="Share of the channels to remove, below 1; default 0.5.",
                 rich_help_panel=_PRUNE),
]  # fmt: skip
CriterionOption = Annotated[
    Criterion | None,
    typer.Option("--criterion", help="Which channels matter; default l2.",
                 rich_help_panel=_PRUNE),
]  # fmt: skip
ScopeOption = Annotated[
    Scope | None,
    typer.Option("--scope", help="The same share of every layer, or the weakest anywhere.",
                 rich_help_panel=_PRUNE),
]  # fmt: skip
MultipleOf = Annotated[
    int | None,
    typer.Option("--multiple-of", min=1, rich_help_panel=_PRUNE,
                 help="Round widths to this; default 4, or what --target likes."),
]  # fmt: skip
Repair = Annotated[
    bool | None,
    typer.Option("--repair/--no-repair", help="Least-squares repair of the next layers.",
                 rich_help_panel=_PRUNE),
]  # fmt: skip
Sparsity = Annotated[
    float | None,
    typer.Option("--sparsity", help="Share of zeros, below 1; default 0.5. Takes --scope too.",
                 rich_help_panel=_SPARSIFY),
]  # fmt: skip
Gradual = Annotated[
    bool | None,
    typer.Option("--gradual/--at-once", help="Zeros appear during the fine-tuning.",
                 rich_help_panel=_SPARSIFY),
]  # fmt: skip
FactorizationOption = Annotated[
    Factorization | None,
    typer.Option("--factorization", help="Kind of factors; default auto, the smallest.",
                 rich_help_panel=_LOWRANK),
]  # fmt: skip
Energy = Annotated[
    float | None,
    typer.Option("--energy", help="Share of each layer's outputs to keep; default 0.9.",
                 rich_help_panel=_LOWRANK),
]  # fmt: skip
Rank = Annotated[
    int | None,
    typer.Option("--rank", min=1, help="This rank for every layer instead of an energy.",
                 rich_help_panel=_LOWRANK),
]  # fmt: skip
LayerNames = Annotated[
    str | None,
    typer.Option("--layers", help="Only these, by name, with commas; lowrank, quantize and share.",
                 rich_help_panel=_LOWRANK),
]  # fmt: skip
Bits = Annotated[
    int | None,
    typer.Option("--bits", help="8 or 4 bits a weight; default 8.", rich_help_panel=_QUANTIZE),
]  # fmt: skip
ObserverOption = Annotated[
    Observer | None,
    typer.Option("--observer", help="Range of activations; default mse.",
                 rich_help_panel=_QUANTIZE),
]  # fmt: skip
Percentile = Annotated[
    float | None,
    typer.Option("--percentile", help="Of the values that --observer percentile keeps; 99.99.",
                 rich_help_panel=_QUANTIZE),
]  # fmt: skip
ActivationBits = Annotated[
    int | None,
    typer.Option("--activation-bits", help="8 or 16; 16 runs under onnxruntime, in no image yet.",
                 rich_help_panel=_QUANTIZE),
]  # fmt: skip
SymmetricActivations = Annotated[
    bool | None,
    typer.Option("--symmetric-activations/--asymmetric-activations", rich_help_panel=_QUANTIZE,
                 help="Zero point 0 for every activation; default asymmetric."),
]  # fmt: skip
RoundingOption = Annotated[
    Rounding | None,
    typer.Option("--rounding", help="Of weights; default nearest.", rich_help_panel=_QUANTIZE),
]  # fmt: skip
Equalize = Annotated[
    bool | None,
    typer.Option("--equalize/--no-equalize", help="Cross-layer equalization before rounding.",
                 rich_help_panel=_QUANTIZE),
]  # fmt: skip
CorrectBias = Annotated[
    bool | None,
    typer.Option("--correct-bias/--no-correct-bias", rich_help_panel=_QUANTIZE,
                 help="Biases take up the mean error of rounding."),
]  # fmt: skip
PerChannel = Annotated[
    bool | None,
    typer.Option("--per-channel/--per-tensor", help="Weight scales; default per channel.",
                 rich_help_panel=_QUANTIZE),
]  # fmt: skip
Values = Annotated[
    int | None,
    typer.Option("--values", help="16 or 4 different weights a layer; default 16.",
                 rich_help_panel=_QUANTIZE),
]  # fmt: skip
Student = Annotated[
    str | None,
    typer.Option("--student", help="The model that learns: .onnx, .pt2 or pkg.mod:callable.",
                 rich_help_panel=_DISTILL),
]  # fmt: skip
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", help="Softens the answers; default 4.",
                 rich_help_panel=_DISTILL),
]  # fmt: skip
LabelShare = Annotated[
    float | None,
    typer.Option("--label-share", help="Weight of true labels, 0 to 1; default 0.3.",
                 rich_help_panel=_DISTILL),
]  # fmt: skip
FeatureShare = Annotated[
    float | None,
    typer.Option("--feature-share", help="Weight of feature distillation; default 0, none.",
                 rich_help_panel=_DISTILL),
]  # fmt: skip
FinetuneSteps = Annotated[
    int, typer.Option("--finetune-steps", min=0, help="Recovery training against the original.")
]


def compress(
    method: MethodOption,
    model: opt.DemoModel = None,
    data: opt.Data = None,
    target: opt.Target = None,
    ratio: Ratio = None,
    criterion: CriterionOption = None,
    scope: ScopeOption = None,
    multiple_of: MultipleOf = None,
    repair: Repair = None,
    sparsity: Sparsity = None,
    gradual: Gradual = None,
    factorization: FactorizationOption = None,
    energy: Energy = None,
    rank: Rank = None,
    layers: LayerNames = None,
    bits: Bits = None,
    observer: ObserverOption = None,
    percentile: Percentile = None,
    activation_bits: ActivationBits = None,
    symmetric_activations: SymmetricActivations = None,
    rounding: RoundingOption = None,
    equalize: Equalize = None,
    correct_bias: CorrectBias = None,
    per_channel: PerChannel = None,
    values: Values = None,
    student: Student = None,
    temperature: Temperature = None,
    label_share: LabelShare = None,
    feature_share: FeatureShare = None,
    finetune_steps: FinetuneSteps = 0,
    metric: opt.Metric = None,
    log_folder: opt.LogFolder = None,
    seed: opt.Seed = None,
    input_shape: opt.InputShape = None,
    trust: opt.Trust = False,
    output: opt.Output = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Carry out one compression method and write the model as ONNX, with what it cost."""
    chosen = choose(model=model, data=data, target=target, seed=seed, input_shape=input_shape,
                    output=output)  # fmt: skip
    given = {
        "ratio": ratio, "criterion": criterion, "scope": scope, "multiple_of": multiple_of,
        "repair": repair, "sparsity": sparsity, "gradual": gradual,
        "factorization": factorization, "energy": energy, "rank": rank,
        "layers": None if layers is None else tuple(layers.split(",")),
        "bits": bits, "observer": observer, "percentile": percentile,
        "activation_bits": activation_bits, "symmetric_activations": symmetric_activations,
        "rounding": rounding, "equalize": equalize, "correct_bias": correct_bias,
        "per_channel": per_channel, "values": values,
        "student": student, "temperature": temperature, "label_share": label_share,
        "feature_share": feature_share,
    }  # fmt: skip
    _refuse_file(chosen.output)
    with working(debug=debug) as progress:
        from edgecompress.compression import compress_model

        options = options_of(method, given, target=chosen.target)
        if chosen.model is None:
            progress.note("No model given: compressing the bundled demo, a ResNet.")
        result = compress_model(
            chosen.model or "demo", options, data=chosen.data, finetune_steps=finetune_steps,
            seed=chosen.seed, output=chosen.output, input_shape=chosen.input_shape, trust=trust,
            metric=metric, log_folder=log_folder, progress=progress,
        )  # fmt: skip
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        from edgecompress.report.compression import compression_table

        folder = chosen.output or Path("build") / f"{result.model}-{result.method}"
        show(compression_table(result, folder=folder))
    return EXIT_FITS


def options_of(
    method: Method, given: dict[str, Any], *, target: str | None = None
) -> MethodOptions:
    """The method's own options from those given on the command line (None: not given).

    Raises:
        BadConfig: an option of another method, or a value out of range.
    """
    from pydantic import ValidationError

    from edgecompress.compress.method_options import OPTIONS

    kind = OPTIONS[method.value]
    spoken = {name: getattr(value, "value", value) for name, value in given.items()
              if value is not None}  # fmt: skip
    for name in spoken:
        if name not in kind.model_fields:
            takers = [one for one, other in OPTIONS.items() if name in other.model_fields]
            raise BadConfig(
                f"{_flag(name)} belongs to --method {' and '.join(takers)}, not to {method.value}.",
                next_step=f"{method.value} takes {', '.join(map(_flag, kind.model_fields))}.",
            )
    if "multiple_of" in kind.model_fields and "multiple_of" not in spoken and target is not None:
        from edgecompress.compress.widths import kernel_multiple
        from edgecompress.target import load_target

        spoken["multiple_of"] = kernel_multiple(load_target(target))
    try:
        return kind(**spoken)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise BadConfig(f"{_flag(name)} {fault['input']}: {fault['msg']}.") from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _refuse_file(output: Path | None) -> None:
    if output is not None and output.suffix in (".onnx", ".tflite", ".pt2"):
        raise BadConfig(
            f"--output names a folder, and {output} looks like a file.",
            next_step=f"Give --output {output.with_suffix('')}; the model is model.onnx in it.",
        )
