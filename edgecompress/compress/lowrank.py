"""Low-rank factorization: one layer becomes two or three thinner ones.

    dense  [O, I]         svd r          dense [r, I]  -> dense [O, r]
    conv   [O, I, 1, 1]   svd r          1x1 [r, I]    -> 1x1 [O, r]
    conv   [O, I, k, k]   tucker2 (p, q) 1x1 [p, I]    -> k x k [q, p] -> 1x1 [O, q]

With calibration data the bases are those of least squared error on the layer's outputs and inputs
instead of on its weights. For y = W x: the outputs' best q-dimensional basis U are the leading
eigenvectors of the covariance of y (W = U U^T W loses least of y; principal components of the
response, as in Zhang et al., "Accelerating Very Deep Convolutional Networks", 2015, section 3.1).
Inputs of a Tucker core are whitened likewise by the covariance of the channels they carry.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from edgecompress.compress.layers import layer_name, module_of
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable
from edgecompress.records import LowRank

Layer = nn.Conv2d | nn.Linear


def factorize(
    trainable: Trainable, low_rank: Mapping[str, LowRank], calibration: torch.Tensor | None = None
) -> Trainable:
    """Replaces each named layer by its factors `<layer>_first`, `_core` (Tucker only), `_last`.

    No activation stands between the factors; the last one carries the bias. At full rank the
    network computes what it did, up to float rounding.

    Args:
        low_rank: layer name -> method and ranks.
        calibration: [N, ...] float32 inputs, or None for plain SVD and HOSVD.

    Raises:
        BadInput: no such layer, a method the layer cannot take, or a rank out of range.
    """
    layers = {name: _checked_layer(trainable, name, low_rank[name]) for name in low_rank}
    moments: dict[str, _Moments] = {}
    if calibration is not None and layers:
        moments = _observe(trainable.graph, layers, calibration)
    graph = copy.deepcopy(trainable.graph)
    for name, layer in layers.items():
        _replace(graph, name, factors_of(layer, low_rank[name], moments.get(name)))
    graph.delete_all_unused_submodules()
    graph.recompile()
    return replace(trainable, graph=graph.train(trainable.graph.training))


def largest_ranks(layer: nn.Module) -> tuple[str, tuple[int, ...]] | None:
    """The method for a layer and its full ranks, or None where no factorization applies.

    Dense and 1x1 conv: ("svd", (min(I, O),)). Larger conv: ("tucker2", (I, O)), each at most what
    the other sides of the weight allow. Grouped and depthwise convolutions: None.
    """
    if isinstance(layer, nn.Linear):
        return "svd", (min(layer.in_features, layer.out_features),)
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.padding_mode != "zeros":
        return None
    area = layer.kernel_size[0] * layer.kernel_size[1]
    rows, columns = layer.in_channels, layer.out_channels
    if area == 1:
        return ("svd", (min(rows, columns),)) if layer.padding == (0, 0) else None
    return "tucker2", (min(rows, columns * area), min(columns, rows * area))


def _checked_layer(trainable: Trainable, name: str, choice: LowRank) -> Layer:
    try:
        layer = trainable.graph.get_submodule(name)
    except AttributeError as error:
        raise BadInput(f"The model has no layer '{name}' to factorize.") from error
    largest = largest_ranks(layer)
    if largest is None or largest[0] != choice.method or len(largest[1]) != len(choice.ranks):
        takes = "no factorization" if largest is None else f"{largest[0]} with ranks {largest[1]}"
        raise BadInput(
            f"Layer '{name}' ({type(layer).__name__}) cannot take {choice.method} with ranks "
            f"{choice.ranks}; it takes {takes}."
        )
    for rank, limit in zip(choice.ranks, largest[1], strict=True):
        if not 1 <= rank <= limit:
            raise BadInput(f"Layer '{name}': rank {rank} is not in 1..{limit}.")
    assert isinstance(layer, Layer)
    return layer


class _Moments:
    """Second moments of a layer's input channels and centred outputs, float64."""

    def __init__(self, layer: Layer) -> None:
        rows, columns = layer.weight.shape[1], layer.weight.shape[0]
        self.input = torch.zeros(rows, rows, dtype=torch.float64)
        self.output = torch.zeros(columns, columns, dtype=torch.float64)

    def add(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None) -> None:
        """x [N, I, ...], y [N, O, ...]; the bias is kept by the last factor, so it is not in y."""
        flat = [tensor.detach().double().transpose(0, 1).flatten(1) for tensor in (x, y)]
        if bias is not None:
            flat[1] = flat[1] - bias.detach().double().unsqueeze(1)
        self.input += flat[0] @ flat[0].T / flat[0].shape[1]
        self.output += flat[1] @ flat[1].T / flat[1].shape[1]


def _observe(
    graph: torch.fx.GraphModule, layers: dict[str, Layer], calibration: torch.Tensor
) -> dict[str, _Moments]:
    moments = {name: _Moments(layer) for name, layer in layers.items()}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_module" and layer_name(n) in moments:
                source = self.env[n.all_input_nodes[0]]
                moments[layer_name(n)].add(source, value, module_of(n).bias)  # type: ignore
            return value

    training = graph.training
    recorder = Recorder(graph.eval(), garbage_collect_values=False)
    with torch.no_grad():
        for batch in calibration.split(64):
            recorder.run(batch)
    graph.train(training)
    return moments


def factors_of(layer: Layer, choice: LowRank, moments: _Moments | None) -> list[tuple[str, Layer]]:
    """The layers that replace `layer`, with their name endings, in order."""
    if choice.method == "svd":
        return _svd(layer, choice.ranks[0], moments)
    assert isinstance(layer, nn.Conv2d)
    return _tucker(layer, choice.ranks[0], choice.ranks[1], moments)


def _svd(layer: Layer, rank: int, moments: _Moments | None) -> list[tuple[str, Layer]]:
    weight = layer.weight.detach().double().flatten(1)
    basis = _output_basis(weight, rank, moments)
    first, last = basis.T @ weight, basis
    if isinstance(layer, nn.Linear):
        made: list[Layer] = [
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features),
        ]
    else:
        made = [
            nn.Conv2d(layer.in_channels, rank, bias=False, **_window(layer)),
            nn.Conv2d(rank, layer.out_channels, 1),
        ]
    _fill(made[0], first, None)
    _fill(made[1], last, layer.bias)
    return [("first", made[0]), ("last", made[1])]


def _tucker(
    layer: nn.Conv2d, rank_in: int, rank_out: int, moments: _Moments | None
) -> list[tuple[str, Layer]]:
    weight = layer.weight.detach().double()
    down, up = _input_basis(weight, rank_in, moments)
    basis = _output_basis(weight.flatten(1), rank_out, moments)
    core = torch.einsum("oikl,oq,ip->qpkl", weight, basis, up)
    first = nn.Conv2d(layer.in_channels, rank_in, 1, bias=False)
    middle = nn.Conv2d(rank_in, rank_out, bias=False, **_window(layer))
    last = nn.Conv2d(rank_out, layer.out_channels, 1)
    _fill(first, down, None)
    _fill(middle, core, None)
    _fill(last, basis, layer.bias)
    return [("first", first), ("core", middle), ("last", last)]


def _window(layer: nn.Conv2d) -> dict[str, Any]:
    """How a convolution moves over the map."""
    names = ("kernel_size", "stride", "padding", "dilation")
    return {name: getattr(layer, name) for name in names}


def _output_basis(weight: torch.Tensor, rank: int, moments: _Moments | None) -> torch.Tensor:
    """[O, rank] orthonormal: leading eigenvectors of E[y y^T], or left singular vectors of W."""
    square = weight @ weight.T if moments is None else moments.output
    return _leading(square, rank)


def _input_basis(
    weight: torch.Tensor, rank: int, moments: _Moments | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """D [rank, I] and U [I, rank] with x ~ U D x for the inputs the weight looks at.

    Without data U = D^T are the leading singular vectors of the weight unfolded along I. With
    S = E[x x^T], the error of W x summed over kernel positions is tr(W S W^T): the leading
    eigenvectors V of S^1/2 W^T W S^1/2 give D = V^T S^-1/2 and U = S^1/2 V.
    """
    unfolded = weight.transpose(0, 1).flatten(1)
    square = unfolded @ unfolded.T
    if moments is None:
        basis = _leading(square, rank)
        return basis.T, basis
    values, vectors = torch.linalg.eigh(moments.input)
    # A direction the data never shows keeps a little weight, so that the root can be inverted.
    values = values.clamp_min(max(float(values[-1]), 1e-12) * 1e-6)
    root = vectors * values.sqrt() @ vectors.T
    inverse = vectors * values.rsqrt() @ vectors.T
    leading = _leading(root @ square @ root, rank)
    return leading.T @ inverse, root @ leading


def _leading(symmetric: torch.Tensor, rank: int) -> torch.Tensor:
    """Eigenvectors of the `rank` largest eigenvalues as columns; each with a positive largest
    entry, so that a rerun gives the same signs."""
    vectors = torch.linalg.eigh(symmetric).eigenvectors.flip(1)[:, :rank]
    largest = vectors.abs().argmax(dim=0)
    signs = vectors[largest, torch.arange(vectors.shape[1])].sign()
    return vectors * torch.where(signs == 0, 1.0, signs)


def _fill(layer: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    layer.weight = nn.Parameter(weight.reshape(layer.weight.shape).float())
    if layer.bias is not None:
        values = torch.zeros_like(layer.bias) if bias is None else bias.detach().clone()
        layer.bias = nn.Parameter(values)


def _replace(graph: torch.fx.GraphModule, name: str, factors: list[tuple[str, Layer]]) -> None:
    for ending, layer in factors:
        graph.add_submodule(f"{name}_{ending}", layer)
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or layer_name(node) != name:
            continue
        value = node.args[0]
        with graph.graph.inserting_before(node):
            for ending, _ in factors:
                value = graph.graph.call_module(f"{name}_{ending}", (value,))
        node.replace_all_uses_with(value)
        graph.graph.erase_node(node)
