"""From whatever the user names to one static, batch-1 model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx
from google.protobuf.message import DecodeError

from edgecompress.errors import BadInput, EdgeCompressError, UnreadableModel
from edgecompress.model.export import export_module, export_program, first_line
from edgecompress.model.normalize import fix_shapes, normalize, real_inputs, strip_descriptions
from edgecompress.model.symbols import call_symbol, is_symbol
from edgecompress.model.tflite_file import read_graph, require_int8

_FORMS = "demo, a .onnx, .pt2 or .tflite file, or pkg.mod:callable returning an nn.Module"


@dataclass(frozen=True)
class Source:
    """A model as it came, in one of three kinds.

    Attributes:
        kind: "float" (ONNX to be compressed), "deployable" (int8 QDQ ONNX) or "tflite" (int8).
        onnx: the model for the first two kinds: one input, one output, static shapes, batch 1.
        tflite: the file's bytes for the third.
        hash: sha256 in hex of the file, or of the exported ONNX of a module.
    """

    name: str
    kind: Literal["float", "deployable", "tflite"]
    onnx: onnx.ModelProto | None = field(repr=False)
    tflite: bytes | None = field(repr=False)
    hash: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the one input, batch 1 included, in the source's own layout."""
        if self.tflite is not None:
            graph = read_graph(self.tflite, self.name)
            return graph.tensors[graph.inputs[0]].shape
        assert self.onnx is not None
        dimensions = real_inputs(self.onnx)[0].type.tensor_type.shape.dim
        return tuple(dimension.dim_value for dimension in dimensions)


def load_source(
    spec: str, *, input_shape: tuple[int, ...] | None = None, trust: bool = False
) -> Source:
    """Reads a model.

    Args:
        spec: "demo", a `.onnx`, `.pt2` or `.tflite` file, or "pkg.mod:callable".
        input_shape: with its batch of 1; needed by a callable whose module has no `input_shape`
            attribute, and by ONNX files with free dimensions other than the batch.
        trust: allow a pickled `.pt`/`.pth` module, which runs code from the file.

    Raises:
        UnreadableModel: no such file, not a model, damaged, or a pickle without trust.
        BadInput: the callable fails, or the shape is missing or disagrees.
    """
    if input_shape is not None and (not input_shape or min(input_shape) < 1 or input_shape[0] != 1):
        raise BadInput(
            f"Input shape {list(input_shape)} must start with a batch of 1 and be positive.",
            next_step="Write it as 1,3,32,32.",
        )
    if spec == "demo":
        from edgecompress.model.demo import demo_model

        return _from_module(demo_model(), "demo", input_shape)
    if is_symbol(spec) and not Path(spec).exists():
        return _from_module(call_symbol(spec), spec.partition(":")[2], input_shape)
    path = Path(spec)
    reader = {".onnx": _read_onnx, ".pt2": _read_pt2, ".tflite": _read_tflite}.get(path.suffix)
    if reader is None and path.suffix not in (".pt", ".pth"):
        raise UnreadableModel(f"'{spec}' is not a model I can read.", next_step=f"Give {_FORMS}.")
    if not path.is_file():
        raise UnreadableModel(f"There is no file '{spec}'.", next_step=f"Give {_FORMS}.")
    if reader is None:
        return _read_pickle(path, input_shape, trust)
    return reader(path, input_shape)


def _from_module(module: Any, name: str, input_shape: tuple[int, ...] | None) -> Source:
    from torch import nn

    if not isinstance(module, nn.Module):
        raise BadInput(
            f"'{name}' returned a {type(module).__name__}, not a torch.nn.Module.",
            next_step="Return the module with its trained weights loaded.",
        )
    shape = input_shape or getattr(module, "input_shape", None)
    if shape is None:
        raise BadInput(
            f"The input shape of '{name}' is not known.",
            next_step="Give it with --input-shape, e.g. --input-shape 1,3,32,32 "
            "(or set input_shape on the module).",
        )
    return _float_source(export_module(module, tuple(shape), name), name, None)


def _float_source(
    model: onnx.ModelProto,
    name: str,
    input_shape: tuple[int, ...] | None,
    file_hash: str | None = None,
) -> Source:
    normalized = normalize(model, name, input_shape)
    content = normalized.SerializeToString(deterministic=True)
    return Source(
        name=name,
        kind="float",
        onnx=normalized,
        tflite=None,
        hash=file_hash or hashlib.sha256(content).hexdigest(),
    )


def _read_onnx(path: Path, input_shape: tuple[int, ...] | None) -> Source:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        model = onnx.load_model(path)
        if not model.graph.node:
            raise ValueError("it holds no graph")
        # The checker wants the output's shape written down, which exporters may leave out.
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    except (
        DecodeError,
        OSError,
        ValueError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise UnreadableModel(
            f"'{path}' is not a valid ONNX model: {first_line(error)}.",
            next_step="Check that the file is complete and ends where its exporter ended it.",
        ) from error
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return _float_source(model, path.stem, input_shape, digest)
    if not real_inputs(model):
        raise UnreadableModel(f"'{path}' has no input.")
    fix_shapes(model, path.stem, input_shape)
    strip_descriptions(model)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return Source(name=path.stem, kind="deployable", onnx=inferred, tflite=None, hash=digest)


def _read_pt2(path: Path, input_shape: tuple[int, ...] | None) -> Source:
    import torch

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise UnreadableModel(
            f"'{path}' is not a torch.export program: {first_line(error)}.",
            next_step="Write it with torch.export.save(torch.export.export(model, (x,)), path).",
        ) from error
    model = export_program(program, path.stem)
    return _float_source(model, path.stem, input_shape, digest)


def _read_pickle(path: Path, input_shape: tuple[int, ...] | None, trust: bool) -> Source:
    if not trust:
        raise UnreadableModel(
            f"'{path}' is a pickle, and loading one runs whatever code is in it.",
            next_step="Save it with torch.export.save as .pt2, or name a function that builds it "
            "(pkg.mod:callable); if you made the file yourself, pass --trust.",
        )
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=False)
    except EdgeCompressError:
        raise
    except Exception as error:
        raise UnreadableModel(f"'{path}' cannot be loaded: {first_line(error)}.") from error
    if not isinstance(found, torch.nn.Module):
        raise UnreadableModel(
            f"'{path}' holds a {type(found).__name__} (weights alone), not a whole module.",
            next_step="Write a function that builds the module and loads these weights, and name "
            "it as pkg.mod:callable.",
        )
    return _from_module(found, path.stem, input_shape)


def _read_tflite(path: Path, input_shape: tuple[int, ...] | None) -> Source:
    content = path.read_bytes()
    require_int8(content, str(path))
    if input_shape is not None:
        raise BadInput(
            f"'{path}' has its shapes fixed; an input shape cannot be given for .tflite.",
            next_step="Leave --input-shape out.",
        )
    digest = hashlib.sha256(content).hexdigest()
    return Source(name=path.stem, kind="tflite", onnx=None, tflite=content, hash=digest)
