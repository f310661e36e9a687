"""A disk that fills up leaves what was there, nothing half-written, and one line."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.export import folder
from slimnet.export.artefacts import write_artefacts
from slimnet.export.folder import WorkFolder
from slimnet.export.onnx_file import translate
from slimnet.export.plan_file import save_plan, save_weights
from slimnet.load import files as partial

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
PLAN = {"0": {"out": (1,), "in": ()}}


@pytest.fixture
def out(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text('{"slimnet_version": "0"}')
    return out


def fill_up(monkeypatch, ending):
    """Let the disk be full after half of a file whose name ends so."""
    for name in ("write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, half_of(getattr(Path, name), ending))


def half_of(write, ending):
    def writing(path, content, **options):
        if not path.name.endswith(ending):
            return write(path, content, **options)
        write(path, content[: len(content) // 2], **options)
        raise FULL

    return writing


def write_everything(staging):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2)).eval()
    images = torch.rand(3, 1, 2, 2)
    write_artefacts(staging, translate(model, images, 20), model, PLAN, images, {})


def refused(out, write):
    def publish():
        with WorkFolder(out) as work:
            work.claim()
            with work.staging() as staging:
                write(staging)

    before = everything_below(out.parent)
    with pytest.raises(InputError) as caught:
        publish()
    assert everything_below(out.parent) == before
    told = str(caught.value)
    assert told.isprintable()
    assert "No space left on device" in told
    return told


def everything_below(top):
    return {str(p): p.read_bytes() if p.is_file() else None for p in top.rglob("*")}


@pytest.mark.parametrize("name", ["original.onnx", "slim.pt2"])
def test_full_while_networks_are_written(out, monkeypatch, name):
    fill_up(monkeypatch, Path(name).suffix)
    assert f"cannot write {name}" in refused(out, write_everything)


@pytest.mark.parametrize("name", ["slim.safetensors", "plan.json"])
def test_full_while_small_files_are_written(out, monkeypatch, name):
    def write(staging):
        fill_up(monkeypatch, Path(name).suffix)
        (staging / "slim.onnx").touch()
        if name == "slim.safetensors":
            save_weights(nn.Linear(2, 2), staging / name)
        else:
            save_plan(PLAN, staging / name, None)

    assert f"cannot write {name}" in refused(out, write)


def failing(*arguments, **options):
    raise FULL


def test_full_when_a_file_gets_its_name(out, monkeypatch):
    monkeypatch.setattr(partial.os, "replace", failing)
    assert "cannot write plan.json" in refused(out, lambda s: save_plan(PLAN, s / "plan.json", ""))


def test_full_when_the_folder_is_made(out, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", failing)
    assert f"cannot write {out}" in refused(out, lambda staging: pytest.fail("began to write"))


@pytest.mark.parametrize("number", [1, 2])
def test_full_when_the_folder_is_published(out, monkeypatch, number):
    renames, rename = [], os.rename

    def full_at(source, target):
        renames.append(target)
        if len(renames) == number:
            raise FULL
        rename(source, target)

    monkeypatch.setattr(folder.os, "rename", full_at)
    assert f"cannot write {out}" in refused(out, lambda s: save_plan(PLAN, s / "plan.json", ""))
    assert json.loads((out / "report.json").read_text()) == {"slimnet_version": "0"}
