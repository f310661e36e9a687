"""The cache of this machine's measurements: the newest stay, others' entries are no error."""

from __future__ import annotations

import pytest

from slimnet.timing.machine_cache import MAX_ENTRIES, recall, remember

FILE = "some.json"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "slimnet"


def test_the_oldest_entries_go():
    for number in range(MAX_ENTRIES):
        remember(FILE, f"key {number}", number)
    remember(FILE, "key 0", 0)  # measured anew
    remember(FILE, "another", 1.5)
    assert recall(FILE, "key 1", int) is None
    assert [recall(FILE, f"key {number}", int) for number in (0, 2, 99)] == [0, 2, 99]
    assert recall(FILE, "another", float) == 1.5


def test_files_and_kinds_are_kept_apart():
    remember(FILE, "one", {"a": 0.1 + 0.2})
    assert recall(FILE, "one", dict[str, float]) == {"a": 0.1 + 0.2}
    assert recall(FILE, "one", dict[str, int]) is None
    assert recall("other.json", "one", dict[str, float]) is None
