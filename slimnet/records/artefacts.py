"""Files that were written, or that are to be timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slimnet.records.measured import Drop, Latency, Parity


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was written, checked and run. ``parity`` holds one entry a batch size."""

    path: Path
    bytes: int
    sha256: str
    opset: int
    parity: Mapping[int, Parity]


@dataclass(frozen=True)
class Artefacts:
    """What was written beside the report: both ONNX files, the .pt2's parity, all files' hashes."""

    original_onnx: OnnxFile
    slim_onnx: OnnxFile
    slim_program: Parity
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class Int8:
    """The slim network in int8, as far as it got: ``reason`` says why it is not shipped.

    ``ranges`` is how the range of each tensor follows from its values, and ``distances`` how far
    the outputs were from slim.onnx's by each way to do so, on calibration images, as a share of
    their own root mean square. ``numbers`` says which ones they are. The drops are the file's in
    ONNX Runtime, from the original. In the latencies the slim one is the int8 file, the original
    the network or slim.onnx.
    """

    shipped: bool = False
    reason: str = ""
    ranges: str = ""
    numbers: str = ""
    distances: Mapping[str, float] = field(default_factory=dict)
    bytes: int | None = None
    selection_drop: Drop | None = None
    test_drop: Drop | None = None
    against_original: tuple[Latency, ...] = ()
    against_slim: tuple[Latency, ...] = ()


@dataclass(frozen=True)
class NetworkFile:
    """A network to be timed: its ONNX file and, where it came in one, slimnet's folder.

    ``is_original`` tells the folder's original.onnx from its slim.onnx.
    """

    name: str
    onnx: Path
    folder: Path | None
    is_original: bool


@dataclass(frozen=True)
class OnnxInput:
    """One input of an ONNX file. ``shape`` has the batch axis first; None is an axis of any size.

    ``dtype`` is numpy's name of its type.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
