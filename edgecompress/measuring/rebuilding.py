"""The host's build of a finished artifact, from the model that lies in its folder."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from edgecompress.errors import BadInput, EdgeCompressError
from edgecompress.measuring.artifact import Artifact

if TYPE_CHECKING:
    import onnx

    from edgecompress.lower.program import Program
    from edgecompress.verify.host import HostModel


def rebuild(artifact: Artifact) -> tuple[Program, HostModel]:
    """The portable program the image was made from, and its build for this machine.

    Raises:
        BadInput: the folder lacks the model, holds another one, or this version of edgecompress
            compiles it to other layers.
        BuildFailed: see `HostModel`.
    """
    from edgecompress.lower.pipeline import lower
    from edgecompress.verify.host import HostModel

    manifest = artifact.manifest
    floats = [layer.is_float for layer in manifest.layers]
    whole_float = manifest.inputs[0].dtype == "float32" and all(floats)
    program = lower(
        _read_model(artifact),
        name=manifest.model_name,
        profile=artifact.profile,
        requantize=manifest.requantize,
        precision="float32" if whole_float else "int8",
        allow_float=any(floats),
    )
    if not _same_layers(program, artifact):
        program = _in_stripes(program, artifact)
    if not _same_layers(program, artifact):
        raise BadInput(
            f"This edgecompress compiles the model of {artifact.folder} to {len(program.steps)} "
            f"layers, the image has {len(manifest.layers)} and they are not the same.",
            next_step="Compile the image again, and flash it.",
        )
    return program, HostModel(program)


def _read_model(artifact: Artifact) -> onnx.ModelProto | bytes:
    for name in ("model.tflite", "model.onnx"):
        path = artifact.folder / name
        if path.is_file():
            break
    else:
        raise BadInput(
            f"{artifact.folder} holds neither model.onnx nor model.tflite, so there is nothing to "
            "compare the device with.",
            next_step="Give the whole folder that fit or compile wrote.",
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != artifact.manifest.model_hash:
        raise BadInput(
            f"{path} has sha256 {found[:12]}..., the image was made from "
            f"{artifact.manifest.model_hash[:12]}...",
            next_step="Compile the image again.",
        )
    if name == "model.tflite":
        return content
    import onnx

    return onnx.load_model_from_string(content)


def _same_layers(program: Program, artifact: Artifact) -> bool:
    return [step.name for step in program.steps] == [
        layer.name for layer in artifact.manifest.layers
    ]


def _in_stripes(program: Program, artifact: Artifact) -> Program:
    """The program with the stripes its RAM limit asked for; as it is where nothing is known."""
    from edgecompress.lower.passes.patch import patch_to_fit

    result = artifact.result()
    if result is None:
        return program
    try:
        fitted = patch_to_fit(program, artifact.profile, result.ram.budget_bytes, result.optimize)
    except EdgeCompressError:
        return program
    return fitted.program
