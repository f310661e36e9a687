"""Measurements with their uncertainty, and the files that were written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

FloatOrNan = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that may be NaN or infinite. JSON has null for these, and null is read as NaN."""

FilePath = Annotated[Path, PlainSerializer(lambda path: path.name, return_type=str)]
"""A path of which JSON gets the file's name alone."""


@dataclass(frozen=True)
class Size:
    """The size of a network. ``macs`` are multiply-accumulates for one image."""

    parameters: int
    conv_weights: int
    macs: int


@dataclass(frozen=True)
class Drop:
    """How much lower the slim network scores than the original on the same images.

    ``quantity`` names the score. ``points`` is the original's minus the slim one's, in percentage
    points. ``lower_points`` and ``upper_points`` are one-sided bounds, each at ``confidence``;
    ``bounds`` names their method.
    """

    original_percent: float
    slim_percent: float
    points: float
    lower_points: FloatOrNan
    upper_points: FloatOrNan
    confidence: float
    images: int
    quantity: str = "accuracy"
    bounds: str = "Tango's score limits for paired proportions, image by image"


@dataclass(frozen=True)
class ClassDrop:
    """How much of its recall the class ``label`` lost, on the images of this class.

    The bounds of all classes hold together at 95 %: each is at a higher ``confidence``.
    """

    label: int
    drop: Drop


@dataclass(frozen=True)
class ConfirmationTest:
    """One state of the search, tested on the confirmation images.

    ``step`` is the number of its step in the trajectory, and ``file`` the file that it would be.
    ``selection_points`` is its drop on the selection images, ``drop`` that on the confirmation
    images. ``p_value`` is that of "the true drop is above the budget".
    """

    step: int
    file: str
    parameters_removed_percent: float
    selection_points: float
    drop: Drop
    p_value: float
    confirmed: bool


@dataclass(frozen=True)
class Confirmation:
    """The tests, from the safest state on, until the first that was not confirmed.

    ``test`` names their method. ``images_sha256`` is the hash of the original's answers on the
    images, and ``earlier_runs`` counts the runs on the same images that the folder and the baseline
    know of. A network that truly loses ``confirmable_points`` is confirmed in four of five cases,
    roughly. ``impossible`` says why not even an unchanged network could be confirmed, if so.
    """

    test: str
    images: int
    images_sha256: str
    confirmable_points: float
    impossible: str
    tests: tuple[ConfirmationTest, ...]
    earlier_runs: int = 0

    @property
    def confirmed(self) -> ConfirmationTest | None:
        """The last state that was confirmed, None if there is none."""
        return next((test for test in reversed(self.tests) if test.confirmed), None)


@dataclass(frozen=True)
class Sensitivity:
    """L(Θ − Θ_c) − L(Θ) in nats on ``images`` images; inf if the loss is NaN or infinite.

    In rounds it is the change of the distance from the original's outputs, without unit. A
    candidate that is eliminated is measured on fewer images, and the change counts as 0 on all
    others.
    """

    nats: float
    images: int


@dataclass(frozen=True)
class PredictedLatency:
    """The time for one batch that the search predicted from a table of layer times.

    ``corrections`` counts how often the table was measured anew inside the slimmer network.
    """

    original_ms: float
    slim_ms: float
    corrections: int


@dataclass(frozen=True)
class Parity:
    """How far the outputs of two executions differ, relative to the scale of the output."""

    relative_error: float
    tolerance: float
    images: int


@dataclass(frozen=True)
class Latency:
    """Timings of original and slim, taken in turns, on one runtime at one batch size.

    ``speedup`` is the ratio of the medians, with its 95 % interval. ``measurable`` is False if the
    interval holds 1.
    """

    runtime: str
    threads: int
    batch_size: int
    original_samples_ms: tuple[float, ...]
    slim_samples_ms: tuple[float, ...]
    original_median_ms: float
    slim_median_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    measurable: bool


@dataclass(frozen=True)
class PredictionCheck:
    """The latency that the search predicted, and the one that was measured in the end.

    ``off_percent`` is how far the measured speed-up is above (+) or below (-) the predicted one.
    """

    runtime: str
    batch_size: int
    predicted_original_ms: float
    predicted_slim_ms: float
    measured_original_ms: float
    measured_slim_ms: float
    predicted_speedup: float
    measured_speedup: float
    off_percent: float
    corrections: int


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was written, checked and run. ``parity`` maps batch sizes to parities.

    Of a file for any size, ``size_parity`` maps another size, such as "48,80", to the parity there.
    """

    path: FilePath
    bytes: int
    sha256: str
    opset: int
    parity: Mapping[int, Parity]
    size_parity: Mapping[str, Parity] = field(default_factory=dict)


@dataclass(frozen=True)
class Artefacts:
    """The files beside the report. ``slim_program`` is the parity of slim.pt2.

    ``sha256`` maps the name of each file to its hash.
    """

    original_onnx: OnnxFile
    slim_onnx: OnnxFile
    slim_program: Parity
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class Int8:
    """The slim network in int8. If it is not ``shipped``, ``reason`` says why.

    ``ranges`` names the method that sets the range of each tensor, and ``numbers`` the number
    formats. ``distances`` maps each method tried to the distance of its outputs from slim.onnx's
    on calibration images, relative to their root mean square. The drops are from the original to
    the int8 file in ONNX Runtime. In ``against_original`` and ``against_slim`` the int8 file is
    "slim", and the network it is timed against is "original". Later fields keep their defaults if
    int8 failed before they were measured.
    """

    shipped: bool = False
    reason: str = ""
    ranges: str = ""
    numbers: str = ""
    distances: Mapping[str, FloatOrNan] = field(default_factory=dict)
    bytes: int | None = None
    selection_drop: Drop | None = None
    confirmation_drop: Drop | None = None
    test_drop: Drop | None = None
    against_original: tuple[Latency, ...] = ()
    against_slim: tuple[Latency, ...] = ()

    @property
    def drop(self) -> Drop | None:
        """The drop on the images that decided least; see ``Report``."""
        return self.confirmation_drop or self.selection_drop


@dataclass(frozen=True)
class OnnxInput:
    """One input of an ONNX file. ``shape`` has the batch axis first; None is an axis of any size.

    ``dtype`` is numpy's name of its type.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
