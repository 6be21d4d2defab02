"""A deployable model becomes a Program: one list of passes says what happens, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import tvm
from tvm import relax

from edgecompress.errors import BuildFailed, EdgeCompressError, UnsupportedOperators
from edgecompress.lower.importers import Imported, import_onnx, import_tflite
from edgecompress.lower.memory.arena import place
from edgecompress.lower.onnx_recurrent import unlowered
from edgecompress.lower.passes.float_functions import prepare_float_functions
from edgecompress.lower.passes.fold_pad import fold_pad
from edgecompress.lower.passes.fuse_add import fuse_add
from edgecompress.lower.passes.integerize import Integerized, integerize, keep_float
from edgecompress.lower.passes.linearize import linearize
from edgecompress.lower.passes.specification import (
    check_integer_only,
    check_placed,
    check_tir_calls_only,
)
from edgecompress.lower.program import Program
from edgecompress.target.schema import DeviceProfile


@dataclass(frozen=True)
class Pass:
    """A named rewrite of the whole module; `check` raises when its result breaks its form."""

    name: str
    run: Callable[[tvm.IRModule], tvm.IRModule]
    check: Callable[[tvm.IRModule], None] | None = None


def relax_passes() -> list[Pass]:
    """From integerized Relax to calls of PrimFuncs on allocated tensors."""
    transform = relax.transform
    return [
        # operators left in float become TIR; a reshape stays, it is only another name
        Pass("legalize", transform.LegalizeOps(skip_ops=["relax.reshape"])),
        # what each TIR function may be fused with; the integer kernels say "nothing"
        Pass("annotate", transform.AnnotateTIROpPattern()),
        # everything computed from constants alone is computed now
        Pass("fold", transform.FoldConstant()),
        # float neighbours are grouped: convolution with its bias and activation, chains of maps
        Pass("group", transform.FuseOps()),
        # and each group becomes one function
        Pass("fuse", transform.FuseTIR()),
        # what nobody reads any more is dropped
        Pass("prune", transform.DeadCodeElimination()),
        # from pure values to tensors that are allocated and written
        Pass("bufferize", _bufferize, check_tir_calls_only),
    ]


def _bufferize(module: tvm.IRModule) -> tvm.IRModule:
    return tvm.transform.Sequential(
        [
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
        ]
    )(module)


def lower(
    model: onnx.ModelProto | bytes,
    *,
    name: str,
    profile: DeviceProfile,
    requantize: Literal["smmla", "tflite"] = "smmla",
    precision: Literal["int8", "float32"] = "int8",
    allow_float: bool = False,
    fuse: bool = True,
    dump: Path | None = None,
) -> Program:
    """Compiles a deployable model as far as scheduled TIR and a placed arena.

    Args:
        model: a QDQ ONNX model or the bytes of an int8 .tflite; any float ONNX for "float32".
        name: of the model, for reports and the generated C.
        profile: the device; the Program itself is the same for every device so far.
        requantize: "smmla" rounds once; "tflite" is bit-identical to LiteRT's reference kernels.
        precision: "float32" keeps every operator in float and the source's own layout.
        allow_float: operators without an integer kernel stay float and are listed in
            `Program.float_layers`, instead of being refused.
        fuse: residual additions run inside the convolution before them, paddings inside the one
            behind; without it every operator of the model is a step of its own.
        dump: a folder that receives the module after every pass.

    Raises:
        UnsupportedOperators: see `allow_float`; every one is listed.
        UnreadableModel: the importer refused the model.
        BuildFailed: the model is outside what 32-bit arithmetic or TVM can do.
    """
    record = _Dump(dump)
    imported = import_tflite(model) if isinstance(model, bytes) else import_onnx(model)
    record("import", imported.module)
    try:
        integers = _integers(imported, requantize, precision, allow_float)
        record("integerize", integers.module)
        if precision == "int8" and not allow_float:
            check_integer_only(integers.module)
        module = integers.module
        with tvm.transform.PassContext(opt_level=3):
            for stage in relax_passes():
                module = stage.run(module)
                record(stage.name, module)
                if stage.check is not None:
                    stage.check(module)
        program = linearize(
            module, integers.kernels, name=name,
            inputs=integers.inputs, outputs=integers.outputs, requantize=requantize,
        )  # fmt: skip
        if fuse:
            # a layer that only pads becomes its readers' border
            program = fold_pad(program)
            # a residual sum is stored over what it adds to
            program = fuse_add(program)
        # float functions lose their large temporaries to arena buffers
        program = prepare_float_functions(program)
        record("linearize", program.functions)
        # every activation gets its bytes in the arena
        program = place(program)
        check_placed(program)
        return program
    except EdgeCompressError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BuildFailed(
            f"'{name}' could not be lowered for {profile.name}: {lines[-1]}",
            next_step="Run with --debug for the whole trace.",
        ) from error


def _integers(
    imported: Imported,
    requantize: Literal["smmla", "tflite"],
    precision: Literal["int8", "float32"],
    allow_float: bool,
) -> Integerized:
    if precision == "float32":
        made = keep_float(imported)
    else:
        made = integerize(imported, requantize=requantize, allow_float=allow_float)
    left = unlowered(made.module)
    if left:
        reason = "a recurrent layer has an integer kernel only"
        raise UnsupportedOperators(
            [(name, name, reason) for name in left],
            next_step="Quantize it: int8 weights, and quantized input and output.",
        )
    return made


class _Dump:
    """Writes numbered scripts into a folder, or nothing without one."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.count = folder, 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, stage: str, module: tvm.IRModule) -> None:
        if self.folder is None:
            return
        path = self.folder / f"{self.count:02d}-{stage}.py"
        path.write_text(module.script(show_meta=False))
        self.count += 1
