"""Which output may lie over which dying input, and how far apart the two must start.

A step's output and an input that nobody reads later need not be apart when the kernel never reads
an input byte after writing over it. Worked example: `y = x + r`, element by element. `y` may lie
exactly on `r`: element i of `r` is read before element i of `y` is written. A 3x3 convolution reads
one row back, so its output must start more than a row and a pixel before its input ("diagonal
memory optimization"): the arena then holds one of them and a little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgecompress.lower.memory.views import owner
from edgecompress.lower.program import Buffer, Kernel, Overlap, Program, Step

Allowance = Mapping[tuple[int, int], int]
"""(input's index, output's index) -> `Overlap.distance_bytes`."""


def kernel_overlaps(kernel: Kernel | None) -> tuple[Overlap, ...]:
    """What a kernel's own TIR permits: its `overlaps`; nothing for a float operator."""
    return tuple(getattr(kernel, "overlaps", ()))


def is_apart_or_allowed(source: Buffer, output: Buffer, distance: int | None) -> bool:
    """True when the two share no byte, or start as `distance` permits (None: never)."""
    begin, output_begin = source.offset_bytes, output.offset_bytes
    if output_begin + output.size_bytes <= begin or begin + source.size_bytes <= output_begin:
        return True
    if distance is None:
        return False
    return output_begin == begin if distance == 0 else output_begin <= begin + distance


def step_allowances(program: Program, step: Step) -> dict[str, int]:
    """Name of each input the step's output may lie over -> distance; inputs read later are not."""
    index = program.buffers[step.output].first_step
    distances: dict[str, list[int | None]] = {}
    by_position = {overlap.argument: overlap.distance_bytes for overlap in step.overlaps}
    for position, argument in enumerate(step.arguments[:-1]):
        if argument.kind == "buffer":
            distances.setdefault(argument.name, []).append(by_position.get(position))
    allowed = {}
    for name, (first, *others) in distances.items():
        # an input read through two arguments needs the same rule for both
        same = all(other == first for other in others)
        if first is not None and same and program.buffers[name].last_step == index:
            allowed[name] = first
    return allowed


def allowances(program: Program, buffers: Sequence[Buffer]) -> dict[tuple[int, int], int]:
    """Every permitted sharing between two of `buffers`, by their indices."""
    index = {buffer.name: position for position, buffer in enumerate(buffers)}
    allowed = {
        (index[name], index[step.output]): distance
        for step in program.steps
        if step.output in index
        for name, distance in step_allowances(program, step).items()
        if name in index
    }
    for (source, output), distance in stripe_allowances(program).items():
        if source in index and output in index:
            allowed[index[source], index[output]] = distance
    return allowed


def stripe_allowances(program: Program) -> dict[tuple[str, str], int]:
    """(source, output) -> distance for outputs written a view at a time.

    Each stripe of the output may take the place of source bytes that no later step reads: with d
    the distance, a view that ends e bytes into the output must end before the first source byte
    still to be read, so d is the least of those positions less e. Example: a map of 8 rows of 100
    bytes becomes one of 4 rows of 60 in 4 stripes; after stripe i rows 2 i + 1 and below are still
    read: d = min of 100 (2 i + 1) - 60 (i + 1) = 40, the output may even start 40 bytes later.
    """
    written: dict[str, list[tuple[int, int]]] = {}
    reads: dict[str, list[tuple[int, int]]] = {}
    for index, step in enumerate(program.steps):
        output = program.buffers[step.output]
        if output.view_of:
            end = output.view_offset_bytes + output.size_bytes
            written.setdefault(output.view_of, []).append((index, end))
        for argument in step.arguments[:-1]:
            if argument.kind == "buffer":
                read = program.buffers[argument.name]
                place = reads.setdefault(owner(program.buffers, read.name), [])
                place.append((index, read.view_offset_bytes))
    found = {}
    for output, ends in written.items():
        begins = program.buffers[output].first_step
        for source, places in reads.items():
            alive = program.buffers[source]
            if not alive.first_step < begins <= alive.last_step < len(program.steps):
                continue
            # a step that reads the source while it writes must write below what it reads
            distances = [
                min((offset for at, offset in places if at >= index), default=alive.size_bytes)
                - end
                for index, end in ends
            ]
            # exactly in place is what 0 would mean
            if min(distances) > -program.buffers[output].size_bytes:
                found[source, output] = min(*distances, -1)
    return found


def shared_bytes(sizes: Sequence[int], pairs: Iterable[tuple[tuple[int, int], int]]) -> int:
    """At least as many bytes as these sharings can save at one step.

    Exactly in place an output lies over one input only. One that starts d bytes earlier leaves d
    bytes of itself outside.
    """
    in_place: dict[int, int] = {}
    diagonal = 0
    for (source, target), distance in pairs:
        if distance == 0:
            in_place[target] = max(in_place.get(target, 0), min(sizes[source], sizes[target]))
        else:
            diagonal += max(0, min(sizes[source], sizes[target] + distance))
    return sum(in_place.values()) + diagonal
