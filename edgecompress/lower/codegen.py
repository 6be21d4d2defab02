"""From TIR to a plain-C-ABI object: what a device links needs no TVM at all.

`MakePackedAPI` is left out, so a PrimFunc `f(x: Buffer, w: Buffer, y: Buffer)` becomes the C
function `void f(int8_t *x, int8_t *w, int8_t *y)`, and small local buffers stay stack allocations
instead of calls into TVM's workspace allocator.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.target import Target

from edgecompress.errors import BuildFailed


def lowering_passes() -> list[tvm.ir.transform.Pass]:
    """TVM's own default TIR pipeline up to, and without, the packed calling convention."""
    return [
        # blocks become loops over buffers that live where they are used
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.AnnotateIrregularLoop(),
        s_tir.transform.LowerOpaqueBlock(),
        # loops become straight scalar or vector code over flat 32-bit addresses
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
        s_tir.transform.HoistIfThenElse(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
    ]


def _with_pointer_parameters(functions: tvm.IRModule) -> tvm.IRModule:
    """Buffer parameters become raw pointers, as SplitHostDevice does for device kernels."""
    plain = {}
    for global_var, function in functions.functions.items():
        parameters, declarations = [], []
        for parameter in function.params:
            if isinstance(parameter.ty, tirx.BufferType):
                pointer = tirx.Var(
                    parameter.name + "_pointer", tirx.buffer_data_pointer_type(parameter)
                )
                parameters.append(pointer)
                declarations.append(tirx.DeclBuffer(parameter, data=pointer))
            else:
                parameters.append(parameter)
        body = tirx.SeqStmt([*declarations, function.body]) if declarations else function.body
        plain[global_var] = tirx.PrimFunc(parameters, body, function.ret_type, attrs=function.attrs)
    return tvm.IRModule(plain, attrs=functions.attrs)


def _with_defaults(llvm_target: dict[str, Any]) -> dict[str, Any]:
    """A microcontroller's defaults, where its profile does not say otherwise.

    LLVM's level 3 unrolls the taps of small filters: 37 % fewer instructions than level 2 on
    MLPerf Tiny's ResNet-8 and 4 % on its DS-CNN, for 30 to 60 % more kernel code. The vector
    width only silences TVM's warning on Thumb. On RISC-V level 3 unrolls next to nothing (1 %
    fewer instructions on DS-CNN) and still costs a third more code.
    """
    triple = str(llvm_target.get("mtriple", ""))
    if triple.startswith(("thumb", "riscv32")):
        return {"vector-width": 128, "opt-level": 2, **llvm_target}
    return llvm_target


def lower_functions(functions: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Scheduled PrimFuncs to the flat, pointer-typed TIR that LLVM code generation takes."""
    bound = tirx.transform.BindTarget(target.with_host(target))(functions)
    flat = tvm.ir.transform.Sequential(lowering_passes())(bound)
    return tirx.transform.LowerIntrin()(_with_pointer_parameters(flat))


def build_object(functions: tvm.IRModule, llvm_target: dict[str, Any]) -> bytes:
    """One relocatable ELF object with a C function for every PrimFunc.

    Args:
        functions: scheduled PrimFuncs; a function's symbol is its `global_symbol`. Parameters are
            buffers, so the C signature is `void symbol(T0 *, T1 *, ...)` in the same order.
        llvm_target: TVM's target dictionary, `DeviceProfile.toolchain.llvm`.

    Returns:
        The bytes of the object file: the same functions and target give the same bytes.

    Raises:
        BuildFailed: TVM or LLVM refused a function or the target.
    """
    try:
        target = Target(_with_defaults(llvm_target))
        lowered = lower_functions(functions, target)
        module = tvm.get_global_func("target.build." + target.kind.name)(lowered, target)
        with tempfile.TemporaryDirectory(prefix="edgecompress-") as folder:
            path = Path(folder) / "kernels.o"
            module.write_to_file(str(path))
            return path.read_bytes()
    except (RuntimeError, ValueError, TypeError) as error:
        names = ", ".join(sorted(var.name_hint for var in functions.get_global_vars())[:8])
        raise BuildFailed(
            f"TVM could not compile the kernels ({names}) for {llvm_target}: "
            f"{str(error).strip().splitlines()[-1]}",
            next_step="Check the target's [toolchain] llvm entry; --debug shows TVM's own trace.",
        ) from error
