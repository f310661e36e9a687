import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from slimnet.records.commands import BranchOffer, GroupOffer, Inspection
from slimnet.records.data import Frozen
from slimnet.records.measured import Size
from slimnet.report.commands import inspection_parts
from slimnet.report.json_report import record_json

GOLDEN = Path(__file__).parent / "inspection.txt"
LONG = "encoder.layers.encoder_layer_10.self_attention.output_projection"


@pytest.fixture
def inspection():
    return Inspection(
        schema_version=1,
        slimnet_version="0.1.0",
        source="net.pt",
        source_sha256=None,
        input_shape=(3, 224, 224),
        input_shape_guessed=True,
        layers="auto",
        seed=0,
        groups=(
            GroupOffer({"conv1": 64, LONG: 1_064}, 1_128, 64, 3_737.5, 10_072_832.0),
            GroupOffer({"blocks[red].conv": 32}, 32, 32, 1_154.0, 99_000.0),
        ),
        frozen=(Frozen(LONG.replace("10", "11"), 10, "it makes the network's [output]"),),
        size=Size(11_689_512, 11_166_912, 1_814_073_344),
        smallest_size=Size(2_334, 294, 1_995_937),
        channels=5_800,
        prunable_channels=4_800,
        prunable_channels_percent=82.8,
        removable_parameters_percent=99.98,
        removable_conv_weights_percent=99.99,
        removable_macs_percent=99.89,
        environment={"torch": "2"},
        seconds=1.5,
        branches=(
            BranchOffer("blocks[red].conv", ("blocks[red].conv", LONG), ("head",), 12.34),
            BranchOffer("conv1", reason="without it the output no longer depends on the input"),
        ),
    )


def printed(inspection, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    for part in inspection_parts(inspection):
        console.print(part)
    return "".join(line.rstrip() + "\n" for line in console.file.getvalue().splitlines())


def test_text_is_the_golden_file_and_fits_80_columns(inspection):
    text = printed(inspection)
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 80


def test_a_wide_terminal_breaks_no_name(inspection):
    assert LONG in printed(inspection, width=160)


def test_nothing_to_remove_is_said_first_and_loudly(inspection):
    text = printed(dataclasses.replace(inspection, groups=(), input_shape_guessed=False))
    assert text.startswith("NOTHING CAN BE REMOVED from this network: 0 of its 5,800 channels")
    assert "frozen layers" in text
    assert "one unit per group" not in text
    assert text.endswith("Input shape: 3,224,224.\n")


def test_next_to_nothing_is_said_first_too(inspection):
    shares = {"removable_parameters_percent": 0.6, "removable_macs_percent": 0.21}
    text = printed(dataclasses.replace(inspection, **shares), width=200)
    assert text.startswith("NEXT TO NOTHING CAN BE REMOVED from this network: at most 0.6 % of its")
    assert "NOTHING" not in printed(dataclasses.replace(inspection, **shares | {
        "removable_macs_percent": 1.2}))  # fmt: skip


def test_json_holds_every_field(inspection):
    content = json.loads(record_json(inspection))
    assert list(content) == [field.name for field in dataclasses.fields(Inspection)]
    assert content["groups"][0]["layers"] == {"conv1": 64, LONG: 1_064}
    assert content["smallest_size"] == {"parameters": 2_334, "conv_weights": 294, "macs": 1_995_937}


def test_a_note_on_the_weights_is_printed(inspection):
    noted = dataclasses.replace(inspection, notes=("the weights are those under ['ema']",))
    assert "Note: the weights are those under ['ema']." in printed(noted)
