"""Every option of slimnet, declared once, in the section that it belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimnet.errors import InputError
from slimnet.options.option import Section, option

PAPER_METRICS = (
    "mean_square_weight",
    "mean_activation",
    "mean_gradient",
    "taylor_first_order",
    "taylor_second_order",
)
RUNTIMES = ("ort-cpu", "ort-cuda", "torch-cuda", "openvino")
"""The runtimes that ``compress`` can save time on; ``slimnet.timing`` has a class for each."""


ESTIMATE = 0.5
"""The confidence of a plain estimate, without bounds. The search decides by estimates: a bound on
images that are looked at again and again would promise more than it holds."""


@dataclass(frozen=True)
class SeedOptions(Section):
    """The seed, which several sections share."""

    title = "Search"

    seed: int = option(0, "Seed of every random choice.", limits=(0, 2**62))


@dataclass(frozen=True)
class MemoryOptions(Section):
    """How much may be kept in memory, instead of being read or computed again."""

    title = "Search"

    memory_mib: int = option(
        1024, "Memory for images and layer outputs that are used again.", unit="MiB"
    )

    @property
    def memory_bytes(self) -> int:
        """The same in bytes."""
        return self.memory_mib * 2**20


@dataclass(frozen=True)
class ModelOptions(Section):
    """How a model file is loaded."""

    title = "Model"

    arch: str | None = option(
        None,
        "Function that builds the network, if the file holds only weights: "
        "torchvision:resnet18, package.module:function or file.py:function.",
        example="torchvision:resnet18",
        first=6,
    )
    arch_arg: tuple[str, ...] = option(
        (),
        "Argument for --arch as NAME=VALUE, such as num_classes=10; repeatable.",
        example="num_classes=10",
    )
    allow: tuple[str, ...] = option(
        (),
        "Class that the model file may hold, as package.module.Class; repeatable.",
        example="package.module.Class",
    )
    trust_pickle: bool = option(
        False,
        "Run any code that the model file holds. Only for files that you made yourself.",
        one_way=True,
    )


@dataclass(frozen=True)
class DataFileOptions(Section):
    """Files and code for the data. ``verify`` takes them from its caller, never from a report."""

    title = "Data"

    calibration_data: str | None = option(
        None,
        "Images that the network was trained on, in a form that --data takes; they guide the "
        "search and the repair.",
        example="train/",
        first=4,
    )
    test_data: str | None = option(
        None,
        "Images for one more figure of the report, in a form that --data takes; they decide and "
        "confirm nothing.",
        example="test/",
    )
    preprocess: str | None = option(
        None,
        "How images become inputs: imagenet, or file.py:function from one image (C, H, W) to one "
        "input.",
        example="imagenet",
        first=5,
    )


@dataclass(frozen=True)
class TaskOptions(Section):
    """The task of the network."""

    title = "Data"

    task: str | None = option(
        None,
        "Python file for a network that does not classify; it defines loss(model, batch) and "
        "score(model, batches), 0 to 100.",
        example="task.py",
    )
    labels: str = option(
        "given",
        "Labels of the images: given, or none. Without labels, the drop is how often the slim "
        "network and the original answer differently.",
        choices=("given", "none"),
    )
    score: str = option(
        "accuracy",
        "The score of a classifier that --max-drop counts: accuracy, or balanced-accuracy, the "
        "mean recall over classes, where a rare class counts like a frequent one.",
        choices=("accuracy", "balanced-accuracy"),
    )


@dataclass(frozen=True)
class DataOptions(DataFileOptions, SeedOptions, MemoryOptions, TaskOptions):
    """How data are read, preprocessed and divided."""

    calibration_images: int = option(
        8192,
        "Most images for fine-tuning and, as far as they fit in --memory-mib, for the repair.",
        unit="images",
    )
    size: int | None = option(
        None,
        "Resize the short side and crop to a square of this many pixels.",
        unit="pixels",
        example=224,
    )
    mean: tuple[float, ...] | None = option(
        None,
        "Subtract these values per channel, after scaling, such as 0.5,0.5,0.5.",
        example=(0.5, 0.5, 0.5),
    )
    std: tuple[float, ...] | None = option(
        None,
        "Divide by these values per channel, after the mean, such as 0.2,0.2,0.2.",
        example=(0.2, 0.2, 0.2),
    )
    channels: str = option(
        "rgb",
        "Colour channels that the network takes: rgb, bgr or grey. Grey is also detected.",
        choices=("rgb", "bgr", "grey"),
    )
    scale: float | None = option(
        None,
        "Multiply pixels by this number. Not given: 1/255 for integer pixels, 1 for decimal ones.",
        limits=(1e-12, 1e12),
        example=0.00390625,
    )
    batch_size: int = option(128, "Images that pass the network at once.", unit="images")


@dataclass(frozen=True)
class BudgetOptions(Section):
    """The accuracy that may be lost."""

    title = "Budget"

    max_drop: float = option(
        5.0, "Accuracy that may be lost.", unit="percentage points", limits=(0, 100), first=2
    )
    confidence: float = option(
        0.95,
        "How sure it must be that the drop is within --max-drop: it is tested on images that "
        "decided nothing. 0.5 tests nothing, and takes the estimate on the selection images.",
        unit="probability",
        limits=(0.5, 0.999),
    )

    @property
    def confirms(self) -> bool:
        """Whether the drop is confirmed on images that decided nothing, not estimated."""
        return self.confidence > ESTIMATE

    def confidence_on(self, split: str) -> float:
        """Return the confidence of bounds on the drop on a split of this name.

        The search looks at the selection images again and again: they give plain estimates.
        """
        return ESTIMATE if split == "selection" else self.confidence


@dataclass(frozen=True)
class LayerOptions(SeedOptions):
    """Where channels may be removed."""

    layers: str = option(
        "auto",
        "Layers that may lose channels: conv, all (linear layers too), or auto (all if linear "
        "layers do most of the work, in MACs, or no convolution can; else conv).",
        choices=("auto", "conv", "all"),
    )
    keep: tuple[str, ...] = option(
        (),
        "Layer that keeps all its channels, or a pattern such as layer1.*; repeatable.",
        example="layer1.*",
    )


@dataclass(frozen=True)
class SaliencyOptions(LayerOptions, MemoryOptions):
    """How channels are scored and measured, by the search and by ``compare``."""

    metrics: tuple[str, ...] | None = option(
        None,
        "Saliency metrics that propose channels, with commas. Not given: the paper's five and, "
        "with --repair, those of the reconstruction error.",
        example=("taylor_first_order", "taylor_second_order"),
    )
    oracle_images: int = option(
        1024, "Most calibration images on which channels are scored and measured.", unit="images"
    )
    repair: bool = option(
        True, "Update the weights of the layers that read removed channels, in closed form."
    )


@dataclass(frozen=True)
class FinetuneOptions(SeedOptions):
    """How the slim network is trained during the search."""

    title = "Fine-tuning"

    finetune_epochs: int = option(
        0,
        "Passes over the calibration images in each round of fine-tuning. 0 trains nothing.",
        unit="epochs",
        limits=(0, math.inf),
        first=7,
    )
    finetune_every: int = option(4, "Search steps between two rounds of fine-tuning.", unit="steps")
    distill: float = option(
        0.5,
        "Share of the loss that compares with the original's outputs. The rest compares with the "
        "labels.",
        unit="share",
        limits=(0, 1),
    )
    optimizer: str = option("sgd", "Optimizer: sgd or adamw.", choices=("sgd", "adamw"))
    learning_rate: float | None = option(
        None,
        "Highest learning rate. Not given: 0.01 for sgd, 0.0005 for adamw.",
        limits=(1e-12, 1e3),
        example=0.01,
    )
    weight_decay: float = option(
        1e-4, "L2 penalty on weights, but not on biases and norms.", limits=(0, 1e3)
    )
    norm_scale_l1: float = option(
        0.0, "L1 penalty on the scales of normalisation layers.", limits=(0, 1e3)
    )
    augment: bool = option(
        True, "Mirror and shift images, if the original classifies such images well."
    )


@dataclass(frozen=True)
class LatencyOptions(SeedOptions):
    """How latency is measured."""

    title = "Latency"

    runtime: str = option(
        "ort-cpu",
        "Runtime to be fast on: ort-cpu, ort-cuda (ONNX Runtime), torch-cuda (PyTorch), or "
        "openvino (on the CPU).",
        choices=RUNTIMES,
    )
    threads: int = option(1, "Threads of the runtime on the CPU.", unit="threads")
    latency_batch: tuple[int, ...] = option(
        (1, 32), "Batch sizes to measure, with commas.", unit="images"
    )
    latency_samples: int = option(40, "Timings of each network at each batch size.", unit="timings")


@dataclass(frozen=True)
class LatencyTableOptions(LatencyOptions):
    """The layer times that the search goes by."""

    latency_table: str | None = option(
        None,
        "Earlier report.json of this network: the search goes by its layer times, measures none, "
        "and finds the same plan on any machine.",
        example="slim/report.json",
    )


@dataclass(frozen=True)
class ObjectiveOptions(LatencyTableOptions):
    """The size of a step of the search, and the quantity that it should save."""

    title = "Search"

    objective: str | None = option(
        None,
        "Cost to save: latency, params, macs, or channels (the paper's). Not given: latency, or "
        "channels with --step.",
        choices=("latency", "params", "macs", "channels"),
    )
    depth: str | None = option(
        None,
        "Whether whole branches may go, such as the body of a residual block: on or off. Not "
        "given: on with latency and macs.",
        choices=("on", "off"),
    )
    oracle_k: int = option(
        16,
        "Candidates that are measured for each width of a group, or at each step with --step.",
        unit="candidates",
    )
    step: int | None = option(
        None,
        "Channels that the first steps remove, from all layers together; 1 is the paper's scheme. "
        "Not given: every layer is measured at several widths in each round.",
        unit="channels",
    )
    max_ratio: float | None = option(
        None,
        "Largest share of each layer's channels that may be removed.",
        unit="share",
        limits=(0, 1),
        example=0.5,
    )
    round_to: int | str | None = option(
        None,
        "Slimmed layers keep a multiple of this many channels. auto takes widths that are fast on "
        "--runtime.",
        unit="channels",
        choices=("auto",),
        example=8,
    )

    @property
    def branches_may_go(self) -> bool:
        """Whether whole branches may go."""
        if self.depth is not None:
            return self.depth == "on"
        return self.step is None and self.objective in (None, "latency", "macs")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth == "on" and self.step is not None:
            raise InputError(
                "--step removes a number of channels at a time (1 is the paper's scheme), and no "
                f"branches; got step {self.step} and depth on: leave one of them out"
            )
        if self.objective == "latency" and self.step is not None:
            raise InputError(
                "--step cannot be combined with the latency objective, which removes as many "
                f"channels as make a layer faster; got step {self.step}: leave it out, or choose "
                "another objective"
            )
        saved = self.objective or ("channels" if self.step else "latency")
        if self.latency_table is not None and saved != "latency":
            raise InputError(
                "latency_table has the times of layers, for the latency objective; got objective "
                f"{saved}: leave one of them out"
            )
        if self.step is not None and self.round_to not in (None, 1):
            raise InputError(
                "--step removes a number of channels at a time (1 is the paper's scheme), and "
                f"cannot be combined with --round-to; got step {self.step} and round_to "
                f"{self.round_to}: leave one of them out"
            )


@dataclass(frozen=True)
class RecoveryOptions(FinetuneOptions, SaliencyOptions, BudgetOptions):
    """All options that the recovery of accuracy reads."""


@dataclass(frozen=True)
class SearchOptions(ObjectiveOptions, RecoveryOptions, TaskOptions):
    """All options that the search reads."""


@dataclass(frozen=True)
class GoalOptions(LatencyOptions):
    """Goals for the finished network; they change nothing of what is done."""

    title = "Goals"

    min_speedup: float | None = option(
        None,
        "Least speed-up over the original, at the first of --latency-batch. The lower end of its "
        "95 % interval must reach it. Not given: no goal.",
        unit="times",
        limits=(0, math.inf),
        example=1.5,
        first=8,
    )
    max_params: int | None = option(
        None,
        "Most parameters of the slim network. Not given: no goal.",
        unit="parameters",
        example=1_000_000,
    )
    max_macs: int | None = option(
        None,
        "Most multiply-accumulates (MACs) for one image. Not given: no goal.",
        unit="MACs",
        example=100_000_000,
    )
    max_bytes: int | None = option(
        None, "Largest slim.onnx. Not given: no goal.", unit="bytes", example=4_000_000
    )
    max_latency_ms: float | None = option(
        None,
        "Longest median latency of one batch, the first of --latency-batch. Not given: no goal.",
        unit="milliseconds",
        limits=(0, math.inf),
        example=10.0,
    )
    baseline: str | None = option(
        None,
        "Earlier report.json of the same network, than which the result must not be worse in "
        "drop, size and speed-up. Not given: no goal.",
        example="old/report.json",
    )
    max_regression: float | None = option(
        None,
        "How much worse than --baseline is allowed, such as 2%. Not given: 2.",
        unit="percent",
        limits=(0, 100),
        example=2.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline is None and self.max_regression is not None:
            raise InputError(
                "max_regression says how much worse than a baseline the result may be; got "
                f"{self.max_regression:g} and no baseline: name an earlier report.json"
            )


@dataclass(frozen=True)
class ExportOptions(Section):
    """The form of the ONNX files."""

    title = "Output"

    opset: int = option(20, "ONNX operator-set version.", limits=(18, 23))
    dynamic_size: bool = option(
        False,
        "The files take images of any height and width (signals of any length), not only of the "
        "size of the data.",
    )


@dataclass(frozen=True)
class OutputOptions(ExportOptions, LatencyOptions, BudgetOptions):
    """The files that are written. The int8 file only if it is within the budget and faster."""

    int8: bool = option(
        False, "Also write slim.int8.onnx, if it is within the budget and faster on the CPU."
    )
    cache: bool = option(
        True,
        "Leave a finished result as it is, if model, data, options, versions and machine are the "
        "same; and use again the layer times that were measured here for such a network.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.int8 and self.runtime != "ort-cpu":
            raise InputError(
                "int8 is for ONNX Runtime on a CPU, runtime ort-cpu; got runtime "
                f"{self.runtime}: leave one of them out"
            )


@dataclass(frozen=True)
class Options(OutputOptions, GoalOptions, SearchOptions, DataOptions, ModelOptions):
    """All options of ``compress``. Each may stand in ``slimnet.toml`` under its own name.

    ``slimnet compress --help`` says what each is for, with its unit and default.

    Raises:
        InputError: a value is of the wrong type or outside its range; the message gives the rule.
    """


def options_from(
    given: Options | Mapping[str, Any] | None,
    changes: Mapping[str, Any],
    defaults: Options | None = None,
) -> Options:
    """Return the options that a caller gave, or the defaults, with some options changed.

    Raises:
        InputError: they are something else, or see ``Options.changed``.
    """
    changes = dict(changes)
    given = changes.pop("settings", given)  # the name of ``options`` in version 0.1
    if given is None or isinstance(given, Mapping):
        given = (defaults or Options()).changed(given or {})
    if not isinstance(given, Options):
        raise InputError(
            f"options are an Options or a dict of options by name; got a {type(given).__name__}"
        )
    return given.changed(changes)
