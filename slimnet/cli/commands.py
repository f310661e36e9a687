"""The sub-commands: options in, one library call, print what it returns.

Modules that take seconds to import are imported once the options are known to be good.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from slimnet.cli.options import (
    JsonOption,
    ModelArgument,
    chosen_options,
    chosen_values,
    require_model,
    takes,
)
from slimnet.cli.outputs import (
    print_parts,
    report_result,
    require_usable,
    show_progress,
)
from slimnet.errors import InputError, ProofError
from slimnet.options import (
    DataFileOptions,
    DataOptions,
    DatasetOptions,
    ExportOptions,
    LatencyOptions,
    LayerOptions,
    ModelFileOptions,
    ModelOptions,
    Options,
    PrintOptions,
    ProfileOptions,
    ResultOptions,
    SaliencyOptions,
    SampleOptions,
    SeedOptions,
)

MISSED = 3


def _status(text: str, chosen: dict[str, Any]) -> AbstractContextManager[Any]:
    """Show on stderr what is being done, unless the progress is not wanted."""
    return Console(stderr=True).status(text) if chosen.get("progress", True) else nullcontext()


@takes(Options, ResultOptions, DatasetOptions)
def compress(model: ModelArgument, **given: Any) -> None:
    """Slim MODEL within the accuracy budget, prove it, and write ONNX, weights, plan and report.

    An option that is not given comes from slimnet.toml in the working folder,
    or from the table tool.slimnet of pyproject.toml. The word "none" takes it back.
    Exit code: 0 done, 2 bad input, 3 a goal or the budget missed, 4 a proof failed.

    Example: slimnet compress model.pt --data val/ --max-drop 5
    """
    chosen = chosen_values({"model": model, **given})
    require_model("compress", chosen)
    options = Options().changed(chosen_options(chosen, Options))
    files = ResultOptions().changed(chosen_options(chosen, ResultOptions))
    require_usable(files)
    from slimnet import compress as compress_network
    from slimnet import report

    with show_progress(files, options.max_drop) as progress:
        result = compress_network(
            chosen["model"], chosen.get("data"), options.max_drop, out=files.out,
            options=options, progress=progress,
        )  # fmt: skip
    report_result(files, result)
    if report.anything_missed(result.report):
        raise typer.Exit(MISSED)


@takes(ModelOptions, DatasetOptions, DataOptions, SaliencyOptions, SampleOptions, PrintOptions)
def compare(
    model: ModelArgument,
    out: Annotated[
        str | None,
        typer.Option(help="Folder for compare.json and compare.svg. (default: none is written)"),
    ],
    metrics: Annotated[
        str | None, typer.Option(help="Saliency metrics to compare, with commas. (default: all)")
    ],
    repair: Annotated[
        bool | None,
        typer.Option("--repair/--no-repair", help="Repair every trial. (default: off)"),
    ],
    json: JsonOption,
    **given: Any,
) -> None:
    """Show how well each saliency metric orders the channels of MODEL.

    The change of the loss without each channel is measured, and compared with them.
    An option that is not given comes from slimnet.toml, as for compress.

    Example: slimnet compare model.pt --data val/ --sample 200
    """
    chosen = chosen_values({"model": model, "metrics": metrics, "repair": repair, **given})
    require_model("compare", chosen)
    options = chosen_options(chosen, ModelOptions, DataOptions, SaliencyOptions)
    from slimnet import compare as compare_metrics
    from slimnet import report

    shown = report.ComparisonProgress() if chosen.get("progress", True) else nullcontext()
    with shown as progress:
        found = compare_metrics(
            chosen["model"], chosen.get("data"), sample=chosen.get("sample"), out=out,
            options=options, progress=progress,
        )  # fmt: skip
    if json:
        print(report.record_json(found))
        return
    print_parts([*report.comparison_tables(found), *report.comparison_lines(found)])


@takes(ModelFileOptions, ModelOptions, LayerOptions, PrintOptions)
def inspect(model: ModelArgument, json: JsonOption, **given: Any) -> None:
    """Show which channels of MODEL could be removed, and why others not, without any data.

    Nothing is changed or written. An option that is not given comes from slimnet.toml.

    Example: slimnet inspect model.pt --input-shape 3,224,224
    """
    chosen = chosen_values({"model": model, **given})
    require_model("inspect", chosen)
    options = chosen_options(chosen, ModelOptions, LayerOptions)
    from slimnet import data, report
    from slimnet import inspect as inspect_network

    shape = data.parse_shape(chosen.get("input_shape"))
    with _status("inspecting ...", chosen):
        inspection = inspect_network(chosen["model"], input_shape=shape, options=options)
    if json:
        print(report.record_json(inspection))
        return
    print_parts(report.inspection_parts(inspection))


@takes(ModelFileOptions, ModelOptions, ExportOptions, SeedOptions, PrintOptions)
def apply(
    plan: Annotated[
        str | None,
        typer.Argument(
            help="Folder that compress wrote, or its plan.json. (default: none, must be given)"
        ),
    ],
    model: ModelArgument,
    out: Annotated[
        str | None, typer.Option(help="Folder for the result. (default: none, must be given)")
    ],
    **given: Any,
) -> None:
    """Remove the channels of a PLAN from MODEL, such as the original, retrained; without data.

    The result is proven and written as by compress, but not repaired:
    the weights are the model's own, and no accuracy is measured.
    An option that is not given comes from slimnet.toml, except for --out.

    Example: slimnet apply slim/plan.json retrained.pt --out slim-retrained
    """
    if plan is None or out is None:
        raise InputError(
            "a plan and an output folder must be given: "
            "slimnet apply slim/plan.json model.pt --out FOLDER"
        )
    chosen = chosen_values({"model": model, **given})
    require_model("apply PLAN", chosen)
    options = chosen_options(chosen, ModelOptions, ExportOptions, SeedOptions)
    from slimnet import apply as apply_to_model
    from slimnet import data, report

    shape = data.parse_shape(chosen.get("input_shape"))
    with _status("slimming, proving, exporting ...", chosen):
        applied = apply_to_model(plan, chosen["model"], out=out, input_shape=shape, options=options)
    table = report.changes_table([report.size_rows(applied.report)])
    lines = report.application_lines(applied.report)
    print_parts([table, *lines, f"Written to {applied.folder}/"])


@takes(ModelOptions, DataFileOptions, PrintOptions)
def verify(
    folder: Annotated[str | None, typer.Argument(help="What compress wrote. (default: slim)")],
    model: Annotated[
        str | None,
        typer.Option(
            help="The original: plan and weights must make the slim one. (default: not checked)"
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="The data of the run: the drop is measured again. (default: not measured)"
        ),
    ],
    **given: Any,
) -> None:
    """Check a finished FOLDER again, at another place and time; the exit code is 4 if it fails.

    Nothing in the folder is executed or changed.
    An option that is not given comes from slimnet.toml.

    Example: slimnet verify slim --model model.pt --data val/
    """
    chosen = chosen_values({"out": folder, "model": model, "data": data, **given})
    options = chosen_options(chosen, ModelOptions, DataFileOptions)
    from slimnet import report
    from slimnet import verify as verify_result

    with _status("verifying ...", chosen):
        found = verify_result(
            chosen.get("out", ResultOptions.out), model=chosen.get("model"),
            data=chosen.get("data"), options=options,
        )  # fmt: skip
    print_parts([report.checks_table(found)])
    if not found.holds:
        failed = ", ".join(check.name for check in found.checks if not check.holds)
        raise ProofError(f"{found.folder} is not what was measured and proven: {failed}")
    print(f"{found.folder}: every check holds.")


@takes(ModelFileOptions, ModelOptions, LatencyOptions, ProfileOptions, PrintOptions)
def bench(
    original: Annotated[
        str | None,
        typer.Argument(help="ONNX file, or folder that slimnet wrote. (default: slim)"),
    ],
    slim: Annotated[
        str | None,
        typer.Argument(help="Likewise. (default: the slim network of the folder ORIGINAL)"),
    ],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="ort-cpu, ort-cuda, openvino, torch-cpu, torch-cuda, torch-compile-cpu or "
            "torch-compile-cuda; repeatable. (default: ort-cpu)"
        ),
    ],
    latency_batch: Annotated[
        str | None, typer.Option("--batch", help="Batch sizes. (unit: images; default: 1,32)")
    ],
    latency_samples: Annotated[
        str | None,
        typer.Option(
            "--samples",
            help="Timings of each network at each batch size. (unit: timings; default: 40)",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The original's model file, for PyTorch's runtimes. (default: none)"),
    ],
    json: JsonOption,
    **given: Any,
) -> None:
    """Time two networks in turns: ORIGINAL and SLIM, or both networks of one folder; without data.

    An option that is not given comes from slimnet.toml, such as latency_batch.

    Example: slimnet bench slim --batch 1,8 --profile
    """
    own = {"out": original, "latency_batch": latency_batch, "latency_samples": latency_samples}
    chosen = chosen_values({**own, "model": model, **given})
    options = chosen_options(chosen, ModelOptions, LatencyOptions)
    from slimnet import bench as time_networks
    from slimnet import data, report

    with _status("timing ...", chosen):
        found = time_networks(
            chosen.get("out", ResultOptions.out),
            slim,
            runtimes=[name for names in runtime or () for name in names.split(",")],
            input_shape=data.parse_shape(chosen.get("input_shape")),
            profile=chosen.get("profile", False),
            model=chosen.get("model"),
            options=options,
        )
    if json:
        print(report.record_json(found))
        return
    print_parts(report.benchmark_parts(found))


def init(
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace one that is there. (default: off)"),
    ] = False,
) -> None:
    """Write a slimnet.toml with every option, commented out, into the working folder.

    Example: slimnet init
    """
    from slimnet.init import write_configuration

    print(f"Written to {write_configuration(force=force)}: every line is commented out.")


def demo(
    folder: Annotated[
        str,
        typer.Argument(help="Where to put the demo. (default: slimnet-demo)", show_default=False),
    ] = "slimnet-demo",
) -> None:
    """Train a small network on scanned digits, then slim it: about a minute, no download.

    Example: slimnet demo
    """
    from slimnet.demo import run_demo

    run_demo(Path(folder))
