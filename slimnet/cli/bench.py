"""``slimnet bench``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from slimnet import load, measure, report
from slimnet.bench import bench as time_networks
from slimnet.cli.options import JsonOption, chosen_values, with_settings
from slimnet.settings import Settings

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
        typer.Option("--profile", help="Time every layer, too, in ONNX Runtime. (default: off)"),
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
    shape = None if input_shape is None else load.parse_shape(input_shape)
    own = {"latency_batch": batch, "latency_samples": samples, "model": model, "out": original}
    chosen = {"out": "slim"} | chosen_values({**own, **dials})
    settings = Settings().changed({n: v for n, v in chosen.items() if n in READ})
    with Console(stderr=True).status("timing ..."):
        found = time_networks(
            chosen["out"],
            slim,
            runtimes=[name for names in runtime or () for name in names.split(",")],
            input_shape=shape,
            profile=bool(profile),
            model=chosen.get("model"),
            settings=settings,
        )
    if json:
        print(report.benchmark_json(found))
        return
    console = Console()
    for part in report.benchmark_parts(found):
        console.print(part)
