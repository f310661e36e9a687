import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from slimnet.errors import InputError
from slimnet.export import check_output_folder, folder, staging_folder


def entries(path):
    return sorted(entry.name for entry in path.iterdir())


def write_result(path, marker):
    (path / "report.json").write_text(json.dumps({"slimnet_version": "0", "marker": marker}))


def marker(path):
    return json.loads((path / "report.json").read_text())["marker"]


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


def test_link_inside_the_old_result_leads_to_no_harm(tmp_path, previous):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("chapter 1")
    (previous / "slim.pt2").symlink_to(tmp_path / "mine" / "thesis.tex")
    (previous / "plan.json").symlink_to(tmp_path / "mine")
    with staging_folder(previous) as staging:
        write_result(staging, "new")
        (staging / "slim.pt2").write_text("new")
    assert entries(previous) == ["report.json", "slim.pt2"]
    assert not (previous / "slim.pt2").is_symlink()
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "chapter 1"
    assert entries(tmp_path) == ["mine", "out"]


def test_parent_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with staging_folder(tmp_path / "link" / "out") as staging:
        write_result(staging, "new")
    assert marker(tmp_path / "real" / "out") == "new"
    assert entries(tmp_path / "real") == ["out"]
    assert (tmp_path / "link").is_symlink()


def test_link_that_takes_the_place_of_the_output_is_refused(tmp_path, previous):
    (tmp_path / "mine").mkdir()

    def swapped():
        with staging_folder(tmp_path / "new"):
            (tmp_path / "new").symlink_to(tmp_path / "mine")

    with pytest.raises(InputError, match="is a link"):
        swapped()
    assert entries(tmp_path / "mine") == []


def test_current_folder_behind_a_link_is_refused(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(InputError, match="current"):
        check_output_folder(tmp_path / "link" / "in")


@pytest.fixture
def unprivileged():
    """A folder of a user who may not write everywhere, which root may."""
    with tempfile.TemporaryDirectory() as name:
        user = os.geteuid()
        if user == 0:
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)
            for path in (Path(name), *Path(name).rglob("*")):
                path.chmod(0o700)


def test_read_only_parent_is_one_line_and_nothing_is_left(unprivileged):
    unprivileged.chmod(0o500)
    with (
        pytest.raises(InputError, match=r"cannot write|writable"),
        staging_folder(unprivileged / "out"),
    ):
        pytest.fail("began to write")
    assert entries(unprivileged) == []


def test_read_only_result_is_replaced_whole(unprivileged):
    out = unprivileged / "out"
    out.mkdir()
    write_result(out, "old")
    out.chmod(0o500)
    with staging_folder(out) as staging:
        write_result(staging, "new")
    assert marker(out) == "new"
    assert entries(unprivileged) == ["out"]


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


@pytest.mark.parametrize("start", ["absent", "empty", "previous", "deep"])
def test_clean_exit_publishes_whole(tmp_path, start):
    out = tmp_path / "out" if start != "deep" else tmp_path / "a" / "b" / "out"
    if start in ("empty", "previous"):
        out.mkdir()
    if start == "previous":
        write_result(out, "old")
        (out / "slim.pt2").touch()
    with staging_folder(out) as staging:
        assert staging.parent == out.parent
        write_result(staging, "new")
        assert not out.exists() or "new" not in str(entries(out))
    assert entries(out) == ["report.json"]
    assert marker(out) == "new"
    assert entries(out.parent) == ["out"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_exception_leaves_what_was_there(tmp_path, previous, failure):
    def interrupted():
        with staging_folder(previous) as staging:
            write_result(staging, "new")
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert marker(previous) == "old"
    assert entries(previous) == ["report.json", "slim.onnx"]
    assert entries(tmp_path) == ["out"]


def test_exception_leaves_no_new_parents(tmp_path):
    with pytest.raises(ValueError, match="boom"), staging_folder(tmp_path / "a" / "b" / "out"):
        raise ValueError("boom")
    assert entries(tmp_path) == []


def test_failed_rename_puts_the_old_result_back(tmp_path, previous, monkeypatch):
    rename = os.rename

    def failing(source, target):
        if str(source).endswith(".tmp"):
            raise OSError("no rename today")
        rename(source, target)

    monkeypatch.setattr(folder.os, "rename", failing)
    with pytest.raises(InputError, match="cannot write"), staging_folder(previous) as staging:
        write_result(staging, "new")
    assert marker(previous) == "old"
    assert entries(tmp_path) == ["out"]


def test_what_appeared_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path / "out"

    def publish():
        with staging_folder(out):
            out.mkdir()
            (out / "thesis.tex").touch()

    with pytest.raises(InputError, match="something else"):
        publish()
    assert entries(tmp_path) == ["out"]
    assert entries(out) == ["thesis.tex"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with staging_folder(tmp_path / "out") as staging:
            write_result(staging, "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "out" / "report.json").stat().st_mode) == 0o640
