import json

import pytest

from slimnet.errors import InputError
from slimnet.export import folder
from slimnet.export.folder import check_output_folder


def entries(path):
    return sorted(entry.name for entry in path.iterdir())


def write_result(path, marker):
    (path / "report.json").write_text(json.dumps({"slimnet_version": "0", "marker": marker}))


@pytest.fixture
def previous(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_result(out, "old")
    (out / "slim.onnx").touch()
    return out


def test_absent_empty_or_previous_result_is_fine(tmp_path, previous):
    check_output_folder(tmp_path / "new")
    check_output_folder(tmp_path / "deep" / "new")
    (tmp_path / "empty").mkdir()
    check_output_folder(tmp_path / "empty")
    check_output_folder(previous)
    assert entries(tmp_path) == ["empty", "out"]


@pytest.mark.parametrize("report", [None, "{}", "[]", '"slimnet_version"', "{", "[" * 100_000])
def test_something_else_is_refused(tmp_path, report):
    (tmp_path / "thesis.tex").touch()
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    with pytest.raises(InputError, match="something else"):
        check_output_folder(tmp_path)


def test_a_result_with_files_of_the_users_beside_it_is_refused(previous):
    (previous / "notes.txt").touch()
    with pytest.raises(InputError, match="something else"):
        check_output_folder(previous)


def test_file_link_and_children_of_files_are_refused(tmp_path, previous):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(previous)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, message in (
        ("file", "is a file"),
        ("link", "is a link"),
        ("dangling", "is a link"),
        ("file/out", "parent"),
        ("dangling/out", "parent"),
    ):
        with pytest.raises(InputError, match=message):
            check_output_folder(tmp_path / name)


def test_current_folder_behind_a_link_is_refused(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(InputError, match="current"):
        check_output_folder(tmp_path / "link" / "in")


def test_parent_that_is_not_writable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="writable"):
        check_output_folder(tmp_path / "out")


def test_current_folder_and_mount_point_are_refused(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for out in (tmp_path / "in", tmp_path):
        with pytest.raises(InputError, match="current"):
            check_output_folder(out)
    monkeypatch.chdir("/")
    monkeypatch.setattr(folder.os.path, "ismount", lambda path: True)
    with pytest.raises(InputError, match="mount point"):
        check_output_folder(tmp_path / "in")
