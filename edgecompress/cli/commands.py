"""fit, plan, compile, inspect: options in, `edgecompress.api`, tables or JSON out."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecompress.cli import options as opt
from edgecompress.cli.failures import EXIT_FITS, report
from edgecompress.cli.session import (
    Chosen,
    choose,
    plan_exit_code,
    result_exit_code,
    say_defaults,
    show,
    show_result,
    working,
)
from edgecompress.errors import BadConfig

if TYPE_CHECKING:
    from edgecompress.progress import Progress
    from edgecompress.records import Result

# Commands import the api inside: `--help` must not wait for torch and TVM.


def fit(
    model: opt.DemoModel = None,
    data: opt.Data = None,
    target: opt.Target = None,
    flash: opt.Flash = None,
    ram: opt.Ram = None,
    latency_us: opt.LatencyUs = None,
    effort: opt.EffortOption = None,
    seed: opt.Seed = None,
    plan: opt.PlanFile = None,
    earlier: opt.From = None,
    max_accuracy_drop: opt.MaxAccuracyDrop = None,
    metric: opt.Metric = None,
    log_folder: opt.LogFolder = None,
    jobs: opt.Jobs = 1,
    ray: opt.Ray = None,
    requantize: opt.RequantizeOption = opt.Requantize.smmla,
    precision: opt.PrecisionOption = opt.Precision.int8,
    optimize: opt.OptimizeOption = None,
    device: opt.Device = None,
    input_shape: opt.InputShape = None,
    trust: opt.Trust = False,
    output: opt.Output = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Make a model fit a device, and prove it on the image that will ship."""
    given = {"model": model, "data": data, "target": target, "flash": flash, "ram": ram,
             "latency_us": latency_us, "effort": effort, "optimize": optimize, "seed": seed,
             "input_shape": input_shape, "output": output}  # fmt: skip
    if earlier is not None:
        given, metric = _continued(earlier, given, metric, trust=trust)
    chosen = choose(**given)
    with working(debug=debug) as progress:
        say_defaults(progress, chosen, "fitting")
        from edgecompress import api

        result = api.fit(
            **chosen.arguments(), effort=chosen.effort, seed=chosen.seed,
            plan=plan, earlier=earlier, max_accuracy_drop=max_accuracy_drop, metric=metric,
            log_folder=log_folder, jobs=jobs, ray=ray, requantize=requantize.value,
            precision=precision.value, optimize=chosen.optimize, trust=trust, device=device,
            progress=progress,
        )  # fmt: skip
    show_result(result, chosen.output, as_json=as_json)
    return result_exit_code(result)


def _continued(
    earlier: Path, given: dict[str, Any], metric: str | None, *, trust: bool
) -> tuple[dict[str, Any], str | None]:
    """The options of an earlier fit, under those given now; and the metric."""
    from edgecompress.reentry import read_asked

    asked = read_asked(earlier, given={**given, "metric": metric}, trust=trust)
    saved = asked.model_dump(exclude={"metric"})
    merged = {name: saved.get(name) if value is None else value for name, value in given.items()}
    return merged, metric or asked.metric


def plan(
    model: opt.DemoModel = None,
    data: opt.Data = None,
    target: opt.Target = None,
    flash: opt.Flash = None,
    ram: opt.Ram = None,
    latency_us: opt.LatencyUs = None,
    effort: opt.EffortOption = None,
    optimize: opt.OptimizeOption = None,
    seed: opt.Seed = None,
    input_shape: opt.InputShape = None,
    trust: opt.Trust = False,
    output: opt.Output = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Choose what fit would do and predict its cost; compile nothing."""
    chosen = choose(model=model, data=data, target=target, flash=flash, ram=ram,
                     latency_us=latency_us, effort=effort, optimize=optimize, seed=seed,
                     input_shape=input_shape, output=output)  # fmt: skip
    with working(debug=debug) as progress:
        say_defaults(progress, chosen, "planning")
        from edgecompress import api

        made = api.plan(
            **chosen.arguments(), effort=chosen.effort, optimize=chosen.optimize,
            seed=chosen.seed, trust=trust, progress=progress,
        )  # fmt: skip
    if as_json:
        sys.stdout.write(made.to_json())
    else:
        from edgecompress.report.tables import plan_table

        show(plan_table(made, folder=chosen.output))
    return plan_exit_code(made)


def compile_models(
    models: opt.Models,
    target: opt.Target = None,
    data: opt.Data = None,
    flash: opt.Flash = None,
    ram: opt.Ram = None,
    latency_us: opt.LatencyUs = None,
    requantize: opt.RequantizeOption = opt.Requantize.smmla,
    precision: opt.PrecisionOption = opt.Precision.int8,
    optimize: opt.OptimizeOption = None,
    allow_float: opt.AllowFloat = False,
    dump: opt.Dump = None,
    device: opt.Device = None,
    input_shape: opt.InputShape = None,
    trust: opt.Trust = False,
    output: opt.Output = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Compile int8 models (.tflite, QDQ .onnx) as they are: image, verification, measurement."""
    given = choose(target=target, data=data, flash=flash, ram=ram, latency_us=latency_us,
                    optimize=optimize, input_shape=input_shape, output=output)  # fmt: skip
    _refuse_same_names(models)

    def compile_one(model: str, folder: Path | None, progress: Progress) -> Result:
        from edgecompress import api

        chosen = dataclasses.replace(given, model=model, output=folder)
        say_defaults(progress, chosen, "compiling")
        return api.compile_model(
            **chosen.arguments(), requantize=requantize.value, precision=precision.value,
            optimize=chosen.optimize, allow_float=allow_float,
            dump=dump if dump is None or len(models) == 1 else dump / _stem(model),
            trust=trust, device=device, progress=progress,
        )  # fmt: skip

    if len(models) == 1:
        with working(debug=debug) as progress:
            result = compile_one(models[0], given.output, progress)
        show_result(result, given.output, as_json=as_json)
        return result_exit_code(result)
    return _compile_several(models, given, compile_one, as_json=as_json, debug=debug)


def _compile_several(
    models: list[str],
    given: Chosen,
    compile_one: Callable[[str, Path | None, Progress], Result],
    *,
    as_json: bool,
    debug: bool,
) -> int:
    """Compiles each; one that fails does not stop the others. Returns the gravest exit code."""
    results, errors, exit_code = [], [], EXIT_FITS
    for model in models:
        folder = given.output / _stem(model) if given.output else None
        try:
            with working(debug=debug) as progress:
                result = compile_one(model, folder, progress)
        except Exception as error:
            failure = report(error, debug=debug, about=model)
            errors.append({"model": model, **failure.document()})
            exit_code = max(exit_code, failure.exit_code)
            continue
        results.append(result.model_dump(mode="json"))
        exit_code = max(exit_code, result_exit_code(result))
        if not as_json:
            show_result(result, folder, as_json=False)
            print()
    if as_json:
        print(json.dumps({"results": results, "errors": errors}, indent=2))
    return exit_code


def _stem(model: str) -> str:
    """The name an output folder gets: "ic" for "models/ic.tflite", "net" for "pkg.mod:net"."""
    return model.rpartition(":")[2] if ":" in model else Path(model).stem


def _refuse_same_names(models: list[str]) -> None:
    by_name = defaultdict(list)
    for model in models:
        by_name[_stem(model)].append(model)
    for name, same in by_name.items():
        if len(same) > 1:
            raise BadConfig(
                f"{' and '.join(same)} would both be written to the folder of '{name}'.",
                next_step="Compile them one at a time with different --output folders.",
            )


def inspect(
    model: opt.DemoModel = None,
    input_shape: opt.InputShape = None,
    trust: opt.Trust = False,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> int:
    """Per-layer shapes, MACs and bytes of a model, and the step with the most live bytes."""
    chosen = choose(model=model, input_shape=input_shape)
    with working(debug=debug) as progress:
        if chosen.model is None:
            progress.note("No model given: inspecting the bundled demo.")
        from edgecompress import api

        seen = api.inspect(chosen.model or "demo", input_shape=chosen.input_shape, trust=trust)
    if as_json:
        sys.stdout.write(seen.to_json())
    else:
        from edgecompress.report.tables import inspection_table

        show(inspection_table(seen))
    return EXIT_FITS
