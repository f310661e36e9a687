"""The options of single commands, beside ``Options``: names of files, and what is printed."""

from __future__ import annotations

from dataclasses import dataclass

from slimnet.options.option import Section, option


@dataclass(frozen=True)
class ModelFileOptions(Section):
    """The model file that a command takes beside ``Options``."""

    title = "Model"

    model: str | None = option(None, "Model file: .pt, .pth or .safetensors.", example="model.pt")
    input_shape: tuple[str, ...] = option(
        (),
        "Shape of one input, such as 3,224,224; repeatable, for a network of several inputs. Not "
        "given: it is guessed or read from the files.",
        example="3,224,224",
    )


@dataclass(frozen=True)
class DatasetOptions(Section):
    """The data that a command takes beside ``Options``."""

    title = "Data"

    data: str | None = option(
        None,
        "Images with labels: a folder, .npz, torchvision:NAME@ROOT or file.py:function.",
        example="val/",
        first=1,
    )


@dataclass(frozen=True)
class SampleOptions(Section):
    """How much ``compare`` measures."""

    title = "Search"

    sample: int | None = option(
        None,
        "Channels to measure, drawn evenly over all layers. Not given: all.",
        unit="channels",
        example=200,
    )


@dataclass(frozen=True)
class ProfileOptions(Section):
    """How closely ``bench`` looks."""

    title = "Latency"

    profile: bool = option(False, "Also time every layer, in ONNX Runtime.")


@dataclass(frozen=True)
class PrintOptions(Section):
    """The form of the printed result."""

    title = "Output"

    progress: bool = option(True, "Show the progress on stderr.")


@dataclass(frozen=True)
class ResultOptions(PrintOptions):
    """Where ``compress`` puts its result."""

    out: str = option("slim", "Folder for the result.", first=3)
    summary: str | None = option(
        None, "File to which the verdict is appended, as Markdown.", example="summary.md"
    )
    junit: str | None = option(
        None, "File for a JUnit test case of each goal, budget and proof.", example="slimnet.xml"
    )
    json: str | None = option(
        None, "File for a copy of report.json; - is stdout.", example="report.json"
    )
    quiet: bool = option(False, "Print the verdict only, and no progress.")


@dataclass(frozen=True)
class CommandOptions(
    ResultOptions, ProfileOptions, SampleOptions, DatasetOptions, ModelFileOptions
):
    """All that a command takes beside ``Options``; it may stand in ``slimnet.toml``, too."""
