import pytest

from slimnet.report.numbers import change, count, file_size, milliseconds, points


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (61_706, "61,706"),
        (99_999, "99,999"),
        (100_000, "100 k"),
        (999_499, "999 k"),
        (999_600, "1.00 M"),
        (11_689_512, "11.7 M"),
        (1_814_000_000, "1.81 G"),
        (9_996_000, "10.0 M"),
        (2_500_000_000_000, "2.50 T"),
    ],
)
def test_count(value, shown):
    assert count(value) == shown


def test_file_size():
    assert [file_size(value) for value in (999, 1000, 46_800_000)] == [
        "999 B",
        "1.00 kB",
        "46.8 MB",
    ]


def test_milliseconds():
    assert [milliseconds(value) for value in (0.0123, 0.9999, 12.34, 1234.5)] == [
        "0.012 ms",
        "1.00 ms",
        "12.3 ms",
        "1,234 ms",
    ]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (100, 100, "unchanged"),
        (100, 42, "÷ 2.38 (−58 %)"),
        (1000, 999, "÷ 1.00 (−0.1 %)"),
        (100_000, 99_999, "÷ 1.00 (less than 0.1 %)"),
        (1814, 752, "÷ 2.41 (−59 %)"),
        (100, 150, "× 1.50 (+50 %)"),
        (100, 0, "−100 %"),
        (1000, 4, "÷ 250 (−99.6 %)"),
        (274_000, 274, "÷ 1,000 (−99.9 %)"),
        (10**9, 1, "÷ 1,000,000,000 (−99.9 %)"),
        (0, 0, "unchanged"),
    ],
)
def test_change(before, after, shown):
    assert change(before, after) == shown


def test_points_are_signed_as_a_change():
    assert [points(value) for value in (4.1, -0.5, 0.0, -0.001)] == [
        "−4.10",
        "+0.50",
        "0.00",
        "0.00",
    ]
