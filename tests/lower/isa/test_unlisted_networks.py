"""Networks nobody tuned for, in small: exact, on the DSP set's own kernels, cheap for each kind.

The shapes are those of `tools/bench/networks.py` with smaller images. All figures are executed
instructions on the virtual board: the same on every machine.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torch import fx, nn, zeros

from edgecompress.compress.quantize import QuantizeOptions, quantize
from edgecompress.deploy import Deployed, DeployOptions, deploy
from edgecompress.lower.program import Step
from edgecompress.model.trainable import Trainable
from edgecompress.progress import SILENT
from edgecompress.target import load_target

TOOL = Path(__file__).resolve().parents[3] / "tools" / "bench" / "networks.py"
# Instructions a MAC over all layers of a kind. CMSIS-NN on far larger maps: 3x3 convolutions 1.8 to
# 2.4, first layers 3.6 to 6.3, pointwise 1.8 to 6.7, depthwise 6.9 to 8.9, dense 2.0.
CEILINGS = {"conv2d": 1.8, "conv2d_add": 1.8, "depthwise_conv2d": 3.5, "dense": 2.0}
_LEAST_MACS = 500  # below, a layer's fixed costs are most of it


@cache
def networks() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bench_networks", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


SMALL: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": lambda: networks().mobilenet_v1(24, (8, 16, 32, 64), 1),
    "mobilenet_v2": lambda: networks().mobilenet_v2(
        24, ((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 2, 2)), 56
    ),
    "resnet_odd": lambda: networks().resnet_odd(16, (13, 27), 0),
    "ds_cnn": lambda: networks().ds_cnn(25, 9, 44, 2),
    "mcunet": lambda: networks().mcunet(24, ((1, 8, 3, 1), (4, 12, 7, 2), (3, 12, 5, 1))),
    "resnext": lambda: networks().resnext(24),
    "mixed": lambda: networks().mixed(16, 12),
}


def deployed(name: str, folder: Path) -> Deployed:
    module = SMALL[name]()
    shape = module.input_shape
    assert isinstance(shape, tuple)
    trainable = Trainable(fx.symbolic_trace(module), zeros(shape), "input", "output")
    calibration = np.random.default_rng(0).standard_normal((4, *shape[1:])).astype(np.float32)
    options = QuantizeOptions(observer="minmax")
    model = quantize(trainable, calibration, name=name, options=options)
    return deploy(
        model, load_target("cortex-m7"), folder, name=name, model_hash="0" * 64, samples=None,
        options=DeployOptions("virtual"), progress=SILENT,
    )  # fmt: skip


def may_be_generic(step: Step) -> bool:
    """A softmax is a few dozen elements once an inference."""
    return step.op == "softmax"


@pytest.mark.parametrize("name", SMALL)
def test_exact_without_fallback_and_cheap(name: str, tmp_path: Path) -> None:
    found = deployed(name, tmp_path)
    assert found.verification.exact
    steps = {step.name: step for step in found.program.steps}
    work: Counter[str] = Counter()
    macs: Counter[str] = Counter()
    for layer in found.measurement.layers:
        step = steps[layer.name]
        if may_be_generic(step):
            continue
        assert layer.implementation, f"{layer.name} fell back"
        work[step.op] += layer.ticks
        macs[step.op] += step.macs
    ratios = {op: work[op] / macs[op] for op in CEILINGS if macs[op] >= _LEAST_MACS}
    assert ratios
    over = {op: ratio for op, ratio in ratios.items() if ratio > CEILINGS[op]}
    assert not over, f"instructions a MAC: {ratios}"
