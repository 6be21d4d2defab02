"""Which operators of a model cannot be compiled, all of them at once."""

from __future__ import annotations

from edgecompress.errors import UnsupportedOperators
from edgecompress.model.importer.operators import SUPPORTED, import_graph
from edgecompress.model.load import Source


def check_operators(source: Source) -> None:
    """Returns where every operator of a float source is supported.

    Deployable and TFLite sources pass: their operators are judged where they are lowered, which
    is the only place that knows the integer kernels.

    Raises:
        UnsupportedOperators: (type, node name, reason) of every node that is not.
    """
    if source.kind != "float" or source.onnx is None:
        return
    _, _, refused = import_graph(source.onnx)
    if refused:
        raise UnsupportedOperators(refused, next_step=f"Supported: {', '.join(sorted(SUPPORTED))}.")
