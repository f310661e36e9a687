"""The hash of what a run reads changes with whatever could change the run."""

from __future__ import annotations

import os

import pytest

from slimnet.options import Options
from slimnet.report.reuse import content_sha256

OPTIONS = {"arch": "code/arch.py:network", "task": "code/task.py", "calibration_data": "train"}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model.pt", "val/a/1.png", "val/b/2.png", "train/a/1.png", "code/arch.py",
                 "code/task.py", "code/parts/blocks.py"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def found(**changes):
    return content_sha256("model.pt", "val", Options(**{**OPTIONS, **changes}))


def test_it_depends_on_content_alone(files):
    before = found()
    assert before is not None
    os.utime(files / "val/a/1.png", (1, 1))
    assert found() == before
    assert content_sha256(files / "model.pt", files / "val", Options(**OPTIONS)) == before


@pytest.mark.parametrize(
    "name", ["model.pt", "val/b/2.png", "train/a/1.png", "code/arch.py", "code/task.py",
             "code/parts/blocks.py"]
)  # fmt: skip
def test_every_file_counts(files, name):
    before = found()
    (files / name).write_text("another")
    assert found() not in (None, before)


def test_names_and_places_count(files):
    before = found()
    (files / "val/b/2.png").rename(files / "val/a/2.png")
    moved = found()
    assert moved not in (None, before)
    assert found(arch="code/arch.py:other") not in (None, before, moved)
    assert found(calibration_data=None) not in (None, before, moved)


@pytest.mark.parametrize(
    ("model", "data", "changes"),
    [
        (object(), "val", {}),
        ("model.pt", [1, 2], {}),
        ("model.pt", "code/arch.py:images", {}),
        ("model.pt", "nowhere", {}),
        ("model.pt", "val", {"arch": "package.module:network"}),
        ("model.pt", "val", {"allow": ("package.Class",)}),
        ("model.pt", "val", {"trust_pickle": True}),
    ],
)
def test_unknown_content_has_no_hash(model, data, changes):
    assert content_sha256(model, data, Options(**changes)) is None
