"""Every dial of slimnet, with its unit and default: the options of the command and the call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from slimnet.errors import InputError
from slimnet.settings.dial import as_given, dial, nearest, require_fit

PAPER_METRICS = (
    "mean_square_weight",
    "mean_activation",
    "mean_gradient",
    "taylor_first_order",
    "taylor_second_order",
)
RUNTIMES = {
    "ort-cpu": "onnxruntime-cpu",
    "ort-cuda": "onnxruntime-cuda",
    "torch-cuda": "torch-cuda",
}


_COUNT = (1, math.inf)
# what is judged once all is measured: these change nothing of what is done
GOALS = (
    "min_speedup", "max_params", "max_macs", "max_bytes", "max_latency_ms", "baseline",
    "max_regression",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The dials. Each may stand in ``slimnet.toml`` under its own name.

    ``slimnet compress --help`` says what each is for, with its unit and default.

    Raises:
        InputError: a value is of the wrong type or outside its range; the message gives the rule.
    """

    max_drop: float = dial(
        5.0, float, "Accuracy that may be lost, in percentage points.",
        unit="percentage points", limits=(0, 100),
    )  # fmt: skip
    confidence: float = dial(
        0.95, float,
        "How sure the drop must be within the budget, one-sided; 0.5 takes the plain estimate.",
        unit="probability", limits=(0.5, 0.999),
    )  # fmt: skip
    arch: str | None = dial(
        None, str,
        "What builds the network for a state dict: torchvision:resnet18, pkg.mod:f, file.py:f.",
        optional=True,
    )  # fmt: skip
    arch_arg: tuple[str, ...] = dial(
        (), str, "NAME=VALUE for --arch, e.g. num_classes=10; repeatable.", repeat=True
    )
    allow: tuple[str, ...] = dial(
        (), str, "A class that the model file may hold, package.module.Class; repeatable.",
        repeat=True,
    )  # fmt: skip
    trust_pickle: bool = dial(
        False, bool, "Run whatever code the model file holds. Only for files you made yourself."
    )
    task: str | None = dial(
        None, str,
        "What the network is for, if not classification: a Python file that defines "
        "loss(model, batch) and score(model, batches), 0 to 100.",
        optional=True,
    )  # fmt: skip
    calibration_data: str | None = dial(
        None, str,
        "Images the network was trained on, for saliency, oracle, repair; forms as for --data.",
        optional=True,
    )  # fmt: skip
    calibration_images: int = dial(
        8192,
        int,
        "Images that fine-tuning learns from and, as many as fit in 512 MiB, the repair, at most.",
        unit="images",
        limits=_COUNT,
    )
    oracle_images: int = dial(
        1024,
        int,
        "Of these, images for saliency and oracle, at most.",
        unit="images",
        limits=_COUNT,
    )
    labels: str = dial(
        "given", str,
        "Labels of the images: given, or none, where the drop is how often slim and original "
        "answer differently.",
        choices=("given", "none"),
    )  # fmt: skip
    size: int | None = dial(
        None, int, "Resize the short side and crop to this many pixels.",
        unit="pixels", limits=_COUNT, optional=True,
    )  # fmt: skip
    mean: tuple[float, ...] | None = dial(
        None, float, "Subtract these per channel, after scaling: 0.5,0.5,0.5.",
        optional=True, many=True,
    )  # fmt: skip
    std: tuple[float, ...] | None = dial(
        None, float, "Divide by these per channel, after the mean: 0.2,0.2,0.2.",
        optional=True, many=True,
    )  # fmt: skip
    channels: str = dial(
        "rgb", str,
        "Colour channels that the network wants: rgb, bgr or grey; grey is also found by trying.",
        choices=("rgb", "bgr", "grey"),
    )  # fmt: skip
    scale: float | None = dial(
        None, float,
        "Multiply pixels by this; 1/255 for integer pixels, 1 for floats, if not given.",
        limits=(1e-12, 1e12), optional=True,
    )  # fmt: skip
    preprocess: str | None = dial(
        None, str, "imagenet, or file.py:callable from one image (C, H, W) to one input.",
        optional=True,
    )  # fmt: skip
    batch_size: int = dial(
        128, int, "Images that pass the network at once.", unit="images", limits=_COUNT
    )
    metrics: tuple[str, ...] | None = dial(
        None, str,
        "Saliency metrics that propose channels, in turn. Not given: the paper's five, and with "
        "the repair also those of reconstruction errors, and metrics per parameter saved.",
        optional=True, many=True,
    )  # fmt: skip
    objective: str | None = dial(
        None, str,
        "What a step should save for its loss: latency (if not given), params, macs, or channels "
        "as in the paper (if not given, with --step).",
        choices=("latency", "params", "macs", "channels"), optional=True,
    )  # fmt: skip
    runtime: str = dial(
        "ort-cpu", str, "Where latency counts: ort-cpu, ort-cuda, or torch-cuda (PyTorch, eager).",
        choices=tuple(RUNTIMES),
    )  # fmt: skip
    oracle_k: int = dial(
        16, int, "Candidates the oracle measures at each step; more where groups are new to it.",
        unit="candidates", limits=_COUNT,
    )  # fmt: skip
    step: int | None = dial(
        None, int, "Channels per step, at first; 1 is the paper's scheme. Not given: 4 % of all.",
        unit="channels", limits=_COUNT, optional=True,
    )  # fmt: skip
    repair: bool = dial(
        True, bool, "Repair the layers that read what was removed, in closed form, in every trial."
    )
    finetune_epochs: int = dial(
        0, int, "Passes over 7/8 of the calibration images in each round of fine-tuning; 0: none.",
        unit="epochs", limits=(0, math.inf),
    )  # fmt: skip
    finetune_every: int = dial(
        4, int, "Steps of removal between two rounds of fine-tuning.", unit="steps", limits=_COUNT,
    )  # fmt: skip
    distill: float = dial(
        0.5, float,
        "Share of the fine-tuning's loss that follows the original's scores; the rest the labels.",
        unit="share", limits=(0, 1),
    )  # fmt: skip
    optimizer: str = dial("sgd", str, "Of the fine-tuning.", choices=("sgd", "adamw"))
    learning_rate: float | None = dial(
        None, float, "Of the fine-tuning, at its highest. Not given: 0.01 (sgd), 0.0005 (adamw).",
        limits=(1e-12, 1e3), optional=True,
    )  # fmt: skip
    weight_decay: float = dial(
        1e-4, float, "L2 penalty of the fine-tuning on weights, not on biases and norms.",
        limits=(0, 1e3),
    )  # fmt: skip
    norm_scale_l1: float = dial(
        0.0, float, "L1 penalty of the fine-tuning on the scales of norms.", limits=(0, 1e3)
    )
    augment: bool = dial(
        True, bool, "Mirror and shift images in fine-tuning, where the original knows such images."
    )
    layers: str = dial(
        "auto", str,
        "What may lose channels: conv, all (linear layers too), auto (all if no conv can).",
        choices=("auto", "conv", "all"),
    )  # fmt: skip
    keep: tuple[str, ...] = dial(
        (), str, "A layer that keeps all its channels, or a pattern: layer1.*; repeatable.",
        repeat=True,
    )  # fmt: skip
    max_ratio: float | None = dial(
        None, float, "Share of each layer's channels that may go, at most, rounded down.",
        unit="share", limits=(0, 1), optional=True,
    )  # fmt: skip
    round_to: int | str | None = dial(
        None, int,
        "Slimmed layers keep a multiple of this many channels; auto: widths that --runtime likes.",
        unit="channels", limits=_COUNT, choices=("auto",), optional=True,
    )  # fmt: skip
    cache: bool = dial(
        True, bool,
        "Leave a finished result of the same model, data, dials, versions and machine as it is.",
    )  # fmt: skip
    seed: int = dial(0, int, "Seed of every random choice.", limits=(0, 2**62))
    opset: int = dial(20, int, "ONNX operator-set version to write.", limits=(18, 23))
    int8: bool = dial(
        False, bool, "Write slim.int8.onnx too, if it is within the budget and faster on the CPU."
    )
    threads: int = dial(
        1, int, "Threads that ONNX Runtime may use while latency is measured.",
        unit="threads", limits=_COUNT,
    )  # fmt: skip
    latency_batch: tuple[int, ...] = dial(
        (1, 32), int, "Batch sizes at which latency is measured.",
        unit="images", limits=_COUNT, many=True,
    )  # fmt: skip
    latency_samples: int = dial(
        40, int, "Timings of each network at each batch size.", unit="timings", limits=_COUNT
    )
    min_speedup: float | None = dial(
        None, float,
        "Goal: times as fast as the original, at the first of --latency-batch on --runtime; the "
        "lower end of the 95 % interval counts, so that it is met only if that is sure. Not "
        "given: no goal.",
        unit="times", limits=(0, math.inf), optional=True,
    )  # fmt: skip
    max_params: int | None = dial(
        None, int, "Goal: parameters of the slim network, at most. Not given: no goal.",
        unit="parameters", limits=_COUNT, optional=True,
    )  # fmt: skip
    max_macs: int | None = dial(
        None, int,
        "Goal: multiply-accumulates (MACs) for one image, at most. Not given: no goal.",
        unit="MACs", limits=_COUNT, optional=True,
    )  # fmt: skip
    max_bytes: int | None = dial(
        None, int, "Goal: size of slim.onnx in bytes, at most. Not given: no goal.",
        unit="bytes", limits=_COUNT, optional=True,
    )  # fmt: skip
    max_latency_ms: float | None = dial(
        None, float,
        "Goal: median milliseconds for one batch, the first of --latency-batch, on --runtime, at "
        "most. Not given: no goal.",
        unit="milliseconds", limits=(0, math.inf), optional=True,
    )  # fmt: skip
    baseline: str | None = dial(
        None, str,
        "Goal: no worse than this earlier report.json of the same network in test drop, "
        "parameters, MACs, bytes of slim.onnx and speed-up. Not given: no goal.",
        optional=True,
    )  # fmt: skip
    max_regression: float | None = dial(
        None, float,
        "How much worse than --baseline any of these may be, in percent, such as 2%; of the drop "
        "that many points. Not given: 2.",
        unit="percent", limits=(0, 100), optional=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for one in fields(self):
            require_fit(one, getattr(self, one.name))
        if self.objective == "latency" and self.step is not None:
            raise InputError(
                "step sizes sets of channels, but with the latency objective the widths that pay "
                f"decide; got step {self.step}: leave it out, or choose another objective"
            )
        if self.int8 and self.runtime != "ort-cpu":
            raise InputError(
                "int8 is for ONNX Runtime on a CPU, runtime ort-cpu; got runtime "
                f"{self.runtime}: leave one of them out"
            )
        if self.step is not None and self.round_to not in (None, 1):
            raise InputError(
                "step removes that many channels at a time (1 is the paper's scheme), but round_to "
                f"takes layers from one multiple to the next; got step {self.step} and round_to "
                f"{self.round_to}: leave one of them out"
            )
        if self.baseline is None and self.max_regression is not None:
            raise InputError(
                "max_regression says how much worse than a baseline the result may be; got "
                f"{self.max_regression:g} and no baseline: name an earlier report.json"
            )

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """Return a copy with some dials changed; a list may come as text with commas.

        Raises:
            InputError: a name is not a dial (the message gives the nearest one), or a value is
                of the wrong type or outside its range.
        """
        known = {one.name: one for one in fields(self)}
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in known:
                raise InputError(f"unknown setting {name!r}{nearest(name, list(known))}")
            values[name] = as_given(known[name], value)
        return replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """Return the dials as plain values, for the report."""
        return asdict(self)


def settings_from(
    given: Settings | Mapping[str, Any] | None,
    changes: Mapping[str, Any],
    defaults: Settings | None = None,
) -> Settings:
    """Return the settings that a caller gave, or the defaults, with some dials changed.

    Raises:
        InputError: they are something else, or see ``Settings.changed``.
    """
    if given is None or isinstance(given, Mapping):
        given = (defaults or Settings()).changed(given or {})
    if not isinstance(given, Settings):
        raise InputError(
            f"settings are a Settings or a dict of dials by name; got a {type(given).__name__}"
        )
    return given.changed(changes)
