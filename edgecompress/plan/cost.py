"""What an image will weigh, before there is one: the same accounts the linker and arena planner keep.

Constants and the arena are exact (same rules, same placement routine as the compiler's); code,
runtime and stack come from `code_size` and are corrected by images already linked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgecompress.lower.memory.arena import plan_offsets
from edgecompress.lower.memory.lifetimes import Lifetime, peak_live
from edgecompress.model.trainable import Trainable
from edgecompress.plan.code_size import code_table
from edgecompress.plan.network import LINEAR_OPS, Network, Part, PlannedStep, Tensor, read_network
from edgecompress.records import LowRank, Prediction, SizeReport
from edgecompress.target.schema import DeviceProfile

CHANNEL_CONSTANT_BYTES = 8
"""int32 bias and int32 multiplier of each output channel."""

TABLE_BYTES = {"softmax": 1024}
ARENA_ALIGNMENT = 16
NO_WIDTHS: dict[str, int] = {}
Corrections = Mapping[str, float]
"""Part ("flash.kernels", "ram.stack") -> measured bytes over predicted bytes."""


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
) -> Prediction:
    """The same for a network at other widths (by coupled group) and ranks (by layer)."""
    network = expand(network, low_rank or {})
    table = code_table(profile)
    steps = network.steps
    flash = {
        "weights": sum(constant_bytes(network, step, widths) for step in steps),
        "kernels": sum(table.kernel(step.op) for step in steps),
        "model": table.model_bytes + table.model_step_bytes * len(steps),
        "runtime": table.runtime_bytes,
        "vectors": table.vectors_bytes,
        "data": table.data_bytes,
    }
    lifetimes = list(arena_lifetimes(network, widths).values())
    _, arena_bytes = plan_offsets(lifetimes, ARENA_ALIGNMENT)
    ends = (network.tensors[network.input], network.tensors[network.output])
    ram = {
        "arena": arena_bytes,
        "scratch": 0,
        "static": table.static_bytes,
        "io": sum(tensor.size_bytes(widths) for tensor in ends),
        "stack": table.stack_bytes,
    }
    flash = _corrected("flash", flash, corrections or {})
    ram = _corrected("ram", ram, corrections or {})
    peak = peak_live(lifetimes)[0]
    return Prediction(
        flash_bytes=sum(flash.values()),
        ram_bytes=sum(ram.values()),
        flash_parts=flash,
        ram_parts=ram,
        peak_step=steps[peak].name if steps else "",
        macs=sum(step_macs(network, step, widths) for step in steps),
    )


def corrections_from(predicted: Prediction, measured: SizeReport) -> dict[str, float]:
    """Factors that would have made `predicted` right, for the next prediction."""
    pairs = [("flash", predicted.flash_parts, measured.flash_sections)]
    pairs.append(("ram", predicted.ram_parts, measured.ram_parts))
    return {
        f"{kind}.{part}": real[part] / guess
        for kind, guesses, real in pairs
        for part, guess in guesses.items()
        if guess > 0 and part in real
    }


def _corrected(kind: str, parts: dict[str, int], corrections: Corrections) -> dict[str, int]:
    return {
        part: round(size * corrections.get(f"{kind}.{part}", 1.0)) for part, size in parts.items()
    }


def weight_count(network: Network, step: PlannedStep, widths: Mapping[str, int]) -> int:
    """int8 weights of a convolution or dense step; 0 for the rest."""
    if step.op not in LINEAR_OPS:
        return 0
    channels_out = network.tensors[step.output].channels(widths)
    if step.op == "depthwise_conv2d":
        return step.taps * channels_out
    channels_in = network.tensors[step.inputs[0]].channels(widths)
    return step.taps * channels_out * channels_in // step.channel_groups


def constant_bytes(network: Network, step: PlannedStep, widths: Mapping[str, int]) -> int:
    """Weights, bias, multipliers and tables of one step."""
    if step.op not in LINEAR_OPS:
        return TABLE_BYTES.get(step.op, 0)
    channels_out = network.tensors[step.output].channels(widths)
    return weight_count(network, step, widths) + CHANNEL_CONSTANT_BYTES * channels_out


def step_macs(network: Network, step: PlannedStep, widths: Mapping[str, int]) -> int:
    """Multiply-accumulates of one step: each weight is used once an output position."""
    return weight_count(network, step, widths) * network.tensors[step.output].positions


def arena_lifetimes(network: Network, widths: Mapping[str, int]) -> dict[str, Lifetime]:
    """Tensor name -> (bytes, first step, last step) of everything the arena holds.

    The model's input and output are the caller's memory; a reshape is its source's memory.
    """
    callers = {network.tensors[name].storage for name in (network.input, network.output)}
    last = network.last_uses()
    return {
        step.output: (
            network.tensors[step.output].size_bytes(widths),
            index,
            last.get(step.output, index),
        )
        for index, step in enumerate(network.steps)
        if step.output not in callers
    }


def expand(network: Network, low_rank: Mapping[str, LowRank]) -> Network:
    """The network with each named layer replaced by its factors.

    "svd" (r,): dense in -> r -> out. "tucker2" (a, b): 1x1 in -> a, the filter a -> b, 1x1 b -> out.
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
        for index, (source, target) in enumerate(zip(names, names[1:], strict=False)):
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
                )
            )
    return replace(network, steps=tuple(steps), tensors=tensors)
