"""Every option of the command line, once: its name, its help, its type."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Effort(StrEnum):
    """How much `fit` may compute: minutes, or as long as pays."""

    fast = "fast"
    balanced = "balanced"
    max = "max"


class Requantize(StrEnum):
    """Rounding of integer kernels: one rounding, or bit-identical to TFLite's two."""

    smmla = "smmla"
    tflite = "tflite"


class Optimize(StrEnum):
    """What the device's kernels are chosen for."""

    size = "size"
    speed = "speed"
    balanced = "balanced"


class Precision(StrEnum):
    int8 = "int8"
    float32 = "float32"


_BUDGET, _OUTPUT = "Budget", "Output"
_RAY_ADDRESS = re.compile(r"auto|local|(ray://)?[^/:]+:\d+|ray://.*|(ray://)?\[.*\]:\d+")


def with_ray_address(arguments: list[str]) -> list[str]:
    """`--ray` alone becomes `--ray=auto`: typer has no option whose value may be left out.

    The word after it is taken for its address only where it reads as one, so that
    `fit --ray model.onnx` and `fit --ray pkg.mod:callable` still name a model.
    """
    spelled = []
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        alone = word == "--ray" and _RAY_ADDRESS.fullmatch(following) is None
        spelled.append("--ray=auto" if alone else word)
    return spelled


_MODEL_HELP = ".onnx, .pt2, .tflite or pkg.mod:callable"
DemoModel = Annotated[
    str | None,
    typer.Argument(help=f"{_MODEL_HELP} returning an nn.Module; the bundled demo if left out."),
]
Models = Annotated[list[str], typer.Argument(help=f"One or more of {_MODEL_HELP}, or demo.")]
ImageDir = Annotated[Path, typer.Argument(help="A folder written by fit or compile.")]

Target = Annotated[
    str | None,
    typer.Option("--target", "-t", help="Target name or path of a TOML (see `targets list`)."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", "-d", help=".npz (x, optional y), image folder or pkg.mod:callable."),
]
InputShape = Annotated[
    str | None,
    typer.Option("--input-shape", help="Shape for dynamic inputs, such as 1,3,32,32."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Allow model files that can run code when loaded.")
]
Flash = Annotated[
    str | None,
    typer.Option("--flash", help="Flash budget (512K, 1M) instead of the target's.",
                 rich_help_panel=_BUDGET),
]  # fmt: skip
Ram = Annotated[
    str | None,
    typer.Option("--ram", help="RAM budget instead of the target's.", rich_help_panel=_BUDGET),
]
LatencyUs = Annotated[
    float | None,
    typer.Option("--latency-us", help="Cap on the estimated time of one inference.",
                 rich_help_panel=_BUDGET),
]  # fmt: skip
EffortOption = Annotated[
    Effort | None, typer.Option("--effort", help="Search and training: fast is minutes, max hours.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Same seed, same bytes.")]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", help="Replay a plan.json instead of searching.")
]
From = Annotated[
    Path | None,
    typer.Option("--from", help="Start from a result's search: same question, other budget.",
                 rich_help_panel=_BUDGET),
]  # fmt: skip
MaxAccuracyDrop = Annotated[
    float | None,
    typer.Option("--max-accuracy-drop", min=0, help="Points that may be lost on validation.",
                 rich_help_panel=_BUDGET),
]  # fmt: skip
Metric = Annotated[
    str | None,
    typer.Option("--metric", help="pkg.mod:callable to select by, instead of accuracy."),
]
LogFolder = Annotated[
    Path | None,
    typer.Option("--log-folder", help="Curves of the fine-tuning, for TensorBoard.",
                 rich_help_panel=_OUTPUT),
]  # fmt: skip
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Trials that run at once.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="[ADDRESS]",
                 help="Run trials on a running Ray cluster; alone: this machine's or RAY_ADDRESS."),
]  # fmt: skip
RequantizeOption = Annotated[
    Requantize, typer.Option("--requantize", help="Rounding; tflite is bit-identical to TFLite.")
]
OptimizeOption = Annotated[
    Optimize | None, typer.Option("--optimize", help="Choose kernels for size, speed or both.")
]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="float32 skips quantization.")
]
AllowFloat = Annotated[
    bool, typer.Option("--allow-float", help="Let operators without an integer kernel stay float.")
]
Dump = Annotated[
    Path | None, typer.Option("--dump", help="Write the module after each compiler pass here.")
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="virtual, process, qemu, serial:/dev/ttyACM0 or socket://..."),
]
Runs = Annotated[int, typer.Option("--runs", min=1, help="Measured inferences.")]
Warmup = Annotated[
    int, typer.Option("--warm-up", "--warmup", min=0, help="Inferences before measuring.")
]
Layers = Annotated[bool, typer.Option("--layers", help="Also measure each layer.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder to write; default build/<model>-<target>.",
                 rich_help_panel=_OUTPUT),
]  # fmt: skip
AsJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on stdout; progress stays on stderr.",
                 rich_help_panel=_OUTPUT),
]  # fmt: skip
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Traceback on errors, and every warning.",
                 rich_help_panel=_OUTPUT),
]  # fmt: skip
