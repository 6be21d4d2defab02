"""What an image will weigh before there is one: the accounts the linker and arena planner keep.

Constants and the arena are exact (same rules, same placement routine as the compiler's); code,
runtime and stack come from `code_size` and are corrected by images already linked.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from edgecompress.lower.memory.lifetimes import Lifetime, peak_live
from edgecompress.lower.memory.regions import spread
from edgecompress.model.trainable import Trainable
from edgecompress.plan.code_size import kernel_key
from edgecompress.plan.latency import DECODING
from edgecompress.plan.network import LINEAR_OPS, Network, Part, PlannedStep, Tensor, read_network
from edgecompress.plan.program_cost import (
    ALIGNMENT_BYTES,
    Corrections,
    aligned,
    assemble,
    corrections_from,
)
from edgecompress.plan.storage import decoding_instructions, stored_bytes
from edgecompress.records import LowRank, Prediction, WeightStorage
from edgecompress.target.schema import DeviceProfile

CHANNEL_CONSTANT_BYTES = 8
"""int32 bias and int32 multiplier of each output channel."""

GATE_CONSTANT_BYTES = 16
"""int32 biases and multipliers of each gate of a recurrent unit, for its inputs and its state."""

TABLE_BYTES: Mapping[str, int] = {"softmax": 1024, "lookup": 256}
SUMMING_OPS = ("mean", "average_pool2d")
NO_WIDTHS: dict[str, int] = {}

__all__ = ["Corrections", "corrections_from", "evaluate", "expand", "predict"]


def predict(
    trainable: Trainable, profile: DeviceProfile, corrections: Corrections | None = None
) -> Prediction:
    """What the image of this very model, quantized to int8, will use. Sizes in bytes."""
    return evaluate(read_network(trainable), profile, corrections=corrections)


def evaluate(
    network: Network,
    profile: DeviceProfile,
    widths: Mapping[str, int] = NO_WIDTHS,
    low_rank: Mapping[str, LowRank] | None = None,
    corrections: Corrections | None = None,
    weights: Mapping[str, WeightStorage] | None = None,
) -> Prediction:
    """The same at other widths (by coupled group), ranks and weight storages (by layer)."""
    network = expand(network, low_rank or {})
    steps = network.steps
    lifetimes = list(arena_lifetimes(network, widths).values())
    arena_bytes, unplaced_bytes = spread(lifetimes, profile, ALIGNMENT_BYTES)
    return assemble(
        profile,
        kernels=[kernel_row(network, step, widths) for step in steps],
        names=[step.name for step in steps],
        constant_bytes=sum(constant_bytes(network, step, widths, weights) for step in steps),
        arena_bytes=arena_bytes,
        peak=max(peak_live(lifetimes)[0], 0),
        macs=sum(step_macs(network, step, widths) for step in steps),
        corrections=corrections,
        unplaced_bytes=unplaced_bytes,
        decoding_instructions=round(
            sum(_decoding(network, step, widths, weights) for step in steps)
            * (corrections or {}).get(DECODING, 1.0)
        ),
    )


def kernel_row(network: Network, step: PlannedStep, widths: Mapping[str, int]) -> str:
    """The code table's row for a step."""
    inputs = network.tensors[step.inputs[0]].channels(widths) // step.channel_groups
    return kernel_key(step.op, step.taps, inputs)


def weight_count(network: Network, step: PlannedStep, widths: Mapping[str, int]) -> int:
    """int8 weights of a convolution, dense or recurrent step; 0 for the rest."""
    if step.gates:
        hidden = network.tensors[step.output].channels(widths)
        inputs = network.tensors[step.inputs[0]].channels(widths)
        return step.gates * hidden * (inputs + hidden)
    if step.op not in LINEAR_OPS:
        return 0
    channels_out = network.tensors[step.output].channels(widths)
    if step.op == "depthwise_conv2d":
        return step.taps * channels_out
    channels_in = network.tensors[step.inputs[0]].channels(widths)
    return step.taps * channels_out * channels_in // step.channel_groups


def constant_bytes(
    network: Network,
    step: PlannedStep,
    widths: Mapping[str, int],
    weights: Mapping[str, WeightStorage] | None = None,
) -> int:
    """Weights, bias, multipliers and tables of one step, each on the image's alignment."""
    if step.gates:
        rows = step.gates * network.tensors[step.output].channels(widths)
        return weight_count(network, step, widths) + GATE_CONSTANT_BYTES * rows
    if step.op not in LINEAR_OPS:
        return TABLE_BYTES.get(step.op, 0) + step.fixed_bytes
    channels_out = network.tensors[step.output].channels(widths)
    storage = (weights or {}).get(step.factor_of or step.layer)
    stored = stored_bytes(storage, weight_count(network, step, widths))
    arrays = [stored, 4 * channels_out, 4 * channels_out]
    return sum(aligned(size) for size in arrays)


def _decoding(
    network: Network,
    step: PlannedStep,
    widths: Mapping[str, int],
    weights: Mapping[str, WeightStorage] | None,
) -> float:
    """Instructions that a step's encoded weights add to an inference."""
    storage = (weights or {}).get(step.factor_of or step.layer)
    if storage is None:
        return 0.0
    count = weight_count(network, step, widths)
    return decoding_instructions(storage, count, network.tensors[step.output].positions)


def step_macs(network: Network, step: PlannedStep, widths: Mapping[str, int]) -> int:
    """Multiply-accumulates of one step: each weight is used once an output position, a recurrent
    one once a step of time; a pooled mean is a sum over its window."""
    if step.gates:
        return weight_count(network, step, widths) * step.times
    output = network.tensors[step.output]
    if step.op in SUMMING_OPS:
        return step.taps * output.channels(widths) * output.positions
    return weight_count(network, step, widths) * output.positions


def arena_lifetimes(network: Network, widths: Mapping[str, int]) -> dict[str, Lifetime]:
    """Tensor name -> (bytes, first step, last step) of everything the arena holds.

    That is the model's input and output too; a reshape is its source's memory. The output of a
    convolution that only an addition reads is never stored (`lower/passes/fuse_add.py`), and a sum
    or a table's result takes the place of what dies at it: one entry, named after the first.
    Convolutions over their own input are not counted on: that depends on code chosen later.
    """
    fused = fused_convolutions(network)
    last, unstored = network.last_uses(), set(fused.values())
    first, ends, owner = {network.input: -1}, {network.input: last.get(network.input, -1)}, {}
    for index, step in enumerate(network.steps):
        if index in unstored:
            continue
        dying = [
            name
            for name in (network.tensors[source].storage for source in step.inputs)
            if step.op in ("add", "lookup") and last[name] == index
        ]
        stored = [root for name in dying if (root := owner.get(name, name)) in first]
        name = stored[0] if stored else step.output
        owner[step.output] = name
        # a sum is written while its convolution runs
        first.setdefault(name, fused.get(index, index))
        ends[name] = last.get(step.output, index)
    return {
        name: (network.tensors[name].size_bytes(widths), begins, ends[name])
        for name, begins in first.items()
    }


def fused_convolutions(network: Network) -> dict[int, int]:
    """Step of each addition -> step of the convolution that computes it, by the compiler's rule."""
    made = {step.output: index for index, step in enumerate(network.steps)}
    reads = Counter(network.tensors[name].storage for s in network.steps for name in s.inputs)
    reads[network.tensors[network.output].storage] += 1
    found = {}
    for index, step in enumerate(network.steps):
        if step.op != "add" or len(step.inputs) != 2:
            continue
        sources = [network.tensors[name].storage for name in step.inputs]
        latest = max(sources, key=lambda name: made.get(name, -1))
        producer = made.get(latest, -1)
        if producer < 0 or reads[latest] != 1:
            continue
        convolution = network.steps[producer]
        if convolution.op == "conv2d" and convolution.channel_groups == 1:
            found[index] = producer
    return found


def expand(network: Network, low_rank: Mapping[str, LowRank]) -> Network:
    """The network with each named layer replaced by its factors.

    "svd" (r,): dense in -> r -> out.
    "tucker2" (a, b): 1x1 in -> a, the filter a -> b, 1x1 b -> out.
    """
    if not low_rank:
        return network
    tensors, steps = dict(network.tensors), []
    for step in network.steps:
        choice = low_rank.get(step.layer) if step.layer else None
        if choice is None:
            steps.append(step)
            continue
        where = [network.tensors[name].positions for name in (step.inputs[0], step.output)]
        inner = [
            Tensor(name := f"{step.name}.{index}", (Part(None, rank),), positions, name)
            for index, (rank, positions) in enumerate(zip(choice.ranks, where, strict=False))
        ]
        tensors |= {tensor.name: tensor for tensor in inner}
        names = [step.inputs[0], *(tensor.name for tensor in inner), step.output]
        for index, (source, target) in enumerate(itertools.pairwise(names)):
            is_core = len(inner) == 2 and index == 1
            is_last = target == step.output
            steps.append(
                replace(
                    step,
                    name=step.name if is_last else f"{step.name}.{index}",
                    inputs=(source,),
                    output=target,
                    layer=f"{step.layer}.{index}",
                    taps=step.taps if is_core else 1,
                    factor_of=step.layer,
                )
            )
    return replace(network, steps=tuple(steps), tensors=tensors)
