"""Readable, stable layer names for ONNX nodes: `stage2_0_conv1` rather than `node_Conv_208`."""

from __future__ import annotations

import ast
import re
from collections import Counter

import onnx

_PARAMETER_SUFFIX = re.compile(r"[._](weight|kernel|bias|gamma|scale)$")
_GENERIC = re.compile(r"^(node_.*|.*::.*|[A-Za-z]+_?\d*|\d*|val_\d+)$")
_WEIGHTED = {"Conv": 1, "Gemm": 1, "MatMul": 1, "BatchNormalization": 1}


def name_nodes(model: onnx.ModelProto, operators: frozenset[str]) -> None:
    """Renames, in place, the nodes of the given operator types; every name becomes unique.

    In order of preference a name comes from the name of a weight no other node shares, from the
    exporter's module path, or from the node's own name. Nodes of other types keep theirs where the
    exporter recorded nothing, so that an error about them can be looked up in the user's file.
    """
    constants = {initializer.name for initializer in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Constant":
            continue
        if node.op_type in operators:
            name = _weight_path(node, constants, uses) or _module_path(node) or _own_name(node)
            node.name = unique(identifier(name or node.op_type.lower()), taken)
        else:
            own = _module_path(node) or node.name or f"{node.op_type}_{index}"
            node.name = unique(own, taken)
        taken.add(node.name)


def identifier(text: str) -> str:
    """Letters, digits and single underscores, not starting with a digit."""
    cleaned = re.sub(r"_+", "_", re.sub(r"\W", "_", text)).strip("_")
    return f"layer_{cleaned}" if not cleaned or cleaned[0].isdigit() else cleaned


def unique(name: str, taken: set[str]) -> str:
    """`name`, or `name_2`, `name_3` ... where it is taken."""
    if name not in taken:
        return name
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _module_path(node: onnx.NodeProto) -> str:
    """What torch's exporter recorded: scopes ['', 'stem', 'stem.0', 'conv2d'] give 'stem.0'.

    An operator called inside a user's forward gets its own type appended: 'stage1.0_add'.
    """
    recorded = {entry.key: entry.value for entry in node.metadata_props}
    try:
        scopes = ast.literal_eval(recorded["pkg.torch.onnx.name_scopes"])
        classes = ast.literal_eval(recorded["pkg.torch.onnx.class_hierarchy"])
    except (KeyError, ValueError, SyntaxError):
        return ""
    if len(scopes) < 2 or len(classes) != len(scopes) or not scopes[-2]:
        return ""
    owner = classes[-2]
    is_leaf = owner.startswith("torch.nn.modules.") and ".container." not in owner
    return scopes[-2] if is_leaf else f"{scopes[-2]}_{node.op_type.lower()}"


def _weight_path(node: onnx.NodeProto, constants: set[str], uses: Counter[str]) -> str:
    position = _WEIGHTED.get(node.op_type)
    if position is None or len(node.input) <= position:
        return ""
    weight = node.input[position]
    if weight not in constants or uses[weight] > 1 or "::" in weight or weight.isdigit():
        return ""
    path = _PARAMETER_SUFFIX.sub("", weight)
    return "" if path == weight else path


def _own_name(node: onnx.NodeProto) -> str:
    """TorchScript's '/stage2/stage2.0/conv1/Conv' gives 'stage2.0.conv1'; generic names give ''."""
    if "/" not in node.name:
        return "" if _GENERIC.match(node.name) and node.name.startswith("node_") else node.name
    parts = [part for part in node.name.split("/") if part]
    operator = node.op_type.lower()
    if len(parts) == 1:
        return parts[0].lower() if parts[0].lower().startswith(operator) else parts[0]
    if re.sub(r"_\d+$", "", parts[-1]).lower() == operator:
        *parts, last = parts
        if node.op_type not in _WEIGHTED and "." not in parts[-1] and "_" in last:
            parts.append(last)
    kept = [
        part
        for part, following in zip(parts, [*parts[1:], ""], strict=True)
        if not following.startswith(part + ".")
    ]
    return ".".join(kept)
