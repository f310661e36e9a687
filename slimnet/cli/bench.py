"""``slimnet bench``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from slimnet import load, measure, report
from slimnet.bench import bench as time_networks
from slimnet.cli.chosen import chosen_settings, chosen_values
from slimnet.cli.options import JsonOption, with_settings
from slimnet.cli.printing import print_parts

DIALS = ("threads", "seed", "arch", "arch_arg", "allow", "trust_pickle")
READ = (*DIALS, "runtime", "latency_batch", "latency_samples")


@partial(with_settings, names=DIALS)
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
        typer.Option(help=f"{', '.join(measure.TIMED_RUNTIMES)}; repeatable. (default: ort-cpu)"),
    ],
    batch: Annotated[str | None, typer.Option(help="Batch sizes. (unit: images; default: 1,32)")],
    samples: Annotated[
        int | None,
        typer.Option(
            help="Timings of each network at each batch size. (unit: timings; default: 40)"
        ),
    ],
    input_shape: Annotated[
        str | None,
        typer.Option(help="Shape of one input, such as 3,224,224. (default: as the files say)"),
    ],
    profile: Annotated[
        bool | None,
        typer.Option(
            "--profile/--no-profile", help="Time every layer, too, in ONNX Runtime. (default: off)"
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The original's model file, for PyTorch's runtimes. (default: none)"),
    ],
    json: JsonOption,
    **dials: Any,
) -> None:
    """Time two networks in turns: ORIGINAL and SLIM, or both networks of one folder; without data.

    What is not given comes from slimnet.toml, as for compress (out, latency_batch, ...).

    Example: slimnet bench slim --batch 1,8 --profile
    """
    own = {
        "latency_batch": batch, "latency_samples": samples, "model": model, "out": original,
        "input_shape": input_shape, "profile": profile,
    }  # fmt: skip
    chosen = {"out": "slim"} | chosen_values({**own, **dials})
    settings = chosen_settings(chosen, READ)
    with Console(stderr=True).status("timing ..."):
        found = time_networks(
            chosen["out"],
            slim,
            runtimes=[name for names in runtime or () for name in names.split(",")],
            input_shape=load.parse_shape(chosen.get("input_shape")),
            profile=chosen.get("profile", False),
            model=chosen.get("model"),
            settings=settings,
        )
    if json:
        print(report.benchmark_json(found))
        return
    print_parts(report.benchmark_parts(found))
