"""nn.Module and ExportedProgram to ONNX, with every BatchNormalization kept."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnxscript.optimizer
import torch
from torch import nn

from edgecompress.errors import BadInput, UnreadableModel


def export_module(module: nn.Module, input_shape: tuple[int, ...], name: str) -> onnx.ModelProto:
    """A module in eval mode as ONNX, traced at `input_shape` (batch 1, float32).

    Raises:
        BadInput: its forward does not take this shape, or torch.export cannot trace it.
    """
    module = module.eval()
    example = torch.zeros(input_shape)
    shown = list(input_shape)
    with _quiet(), torch.no_grad():
        try:
            module(example)
        except Exception as error:
            raise BadInput(
                f"{name}: a forward pass on a {shown} float32 input fails: {first_line(error)}.",
                next_step="Give the shape it was trained on, e.g. --input-shape 1,3,32,32.",
            ) from error
        try:
            program = torch.export.export(module, (example,))
        except Exception as error:
            raise BadInput(
                f"{name}: torch.export cannot trace this module: {first_line(error)}.",
                next_step="Remove data-dependent control flow from forward, or bring ONNX.",
            ) from error
    return export_program(program, name)


def export_program(program: torch.export.ExportedProgram, name: str) -> onnx.ModelProto:
    """torch's own optimizer is off because it merges BatchNormalization into the convolutions;
    constant folding alone is then run, which removes what the exporter leaves of shapes and casts.
    """
    with _quiet():
        try:
            exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
            assert exported is not None
            onnxscript.optimizer.fold_constants(exported.model)
            return exported.model_proto
        except Exception as error:
            raise UnreadableModel(
                f"{name}: torch.onnx cannot express this model: {first_line(error)}.",
                next_step="Export it to ONNX yourself, then give the .onnx file.",
            ) from error


def first_line(error: Exception) -> str:
    """The exception's type and first line of text, without its final full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter talks about torchvision and opsets; none of it is for the user."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
