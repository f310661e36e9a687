import dataclasses

import pytest

from slimnet.records.measured import Int8
from slimnet.report.html import html_page
from slimnet.report.json_report import as_plain
from slimnet.report.summary import summary_lines


@pytest.fixture
def int8(report):
    fast = report.latency[:1]
    return Int8(
        shipped=True, ranges="minmax", numbers="U8 activations",
        distances={"minmax": 0.0123, "percentile": 0.02}, bytes=340,
        selection_drop=report.selection_drop, confirmation_drop=report.confirmation_drop,
        against_original=fast, against_slim=fast,
    )  # fmt: skip


def int8_lines(report, int8):
    lines = summary_lines(dataclasses.replace(report, int8=int8))
    return [line for line in lines if "int8" in line]


def test_nothing_is_said_of_int8_without_the_option(report):
    assert int8_lines(report, None) == []
    assert "int8" not in html_page(report)


def test_a_shipped_file_has_one_line(report, int8):
    assert int8_lines(report, int8) == [
        "slim.int8.onnx: accuracy 88.30 % on 1,000 images (−4.10 points from the original), "
        "340 B, 2.47 times the speed of slim.onnx at batch 1 (95 % interval 2.40 to 2.50)."
    ]


def test_the_line_is_of_the_images_that_decided_least(report, int8):
    estimated = dataclasses.replace(int8, confirmation_drop=None)
    assert "accuracy 88.00 % on 500 images" in int8_lines(report, estimated)[0]


def test_no_number_where_there_is_no_difference(report, int8):
    same = dataclasses.replace(int8, against_slim=report.latency[1:2])
    assert int8_lines(report, same)[0].endswith(
        "not measurably different from the speed of slim.onnx at batch 8 "
        "(95 % interval 0.97 to 1.04)."
    )


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("it is slower", "int8 is not shipped: it is slower."),
        ("skipped: it has nothing", "int8 is skipped: it has nothing."),
    ],
)
def test_the_reason_why_not_has_one_line(report, int8, reason, line):
    refused = dataclasses.replace(int8, shipped=False, reason=reason)
    assert int8_lines(report, refused) == [line]
    assert reason in html_page(dataclasses.replace(report, int8=refused))


def test_page_and_json_hold_all_findings(report, int8):
    found = dataclasses.replace(report, int8=int8)
    page = html_page(found)
    for text in (
        "In int8", "shipped", "U8 activations", "minmax", "1.23 %", "340 B",
        "accuracy, 500 selection images", "accuracy, 1,000 confirmation images",
        "against original", "against slim.onnx", "2.47 times the speed",
    ):  # fmt: skip
        assert text in page
    plain = as_plain(found)["int8"]
    assert plain["shipped"] is True
    assert plain["distances"] == {"minmax": 0.0123, "percentile": 0.02}
    assert plain["confirmation_drop"]["points"] == int8.confirmation_drop.points
