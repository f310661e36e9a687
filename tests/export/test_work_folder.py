"""The work folder: published whole or not at all, one run at a time, and what killed runs leave."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from slimnet.errors import InputError, ProofError
from slimnet.export import folder
from slimnet.export.folder import WorkFolder

HOLD = """
import sys, time
from pathlib import Path
from slimnet.export.folder import WorkFolder
work = WorkFolder(Path(sys.argv[1]))
work.claim()
print("held", flush=True)
time.sleep(100)
"""


def entries(path):
    return sorted(entry.name for entry in path.iterdir())


def write_result(path, marker):
    (path / "report.json").write_text(json.dumps({"slimnet_version": "0", "marker": marker}))


def marker(path):
    return json.loads((path / "report.json").read_text())["marker"]


@contextmanager
def staging_folder(out):
    with WorkFolder(out) as work:
        work.claim()
        with work.staging() as staging:
            yield staging


@pytest.fixture
def previous(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_result(out, "old")
    (out / "slim.onnx").touch()
    return out


@pytest.fixture
def killed(tmp_path):
    """What a killed run may leave behind."""
    work = tmp_path / ".out.partial"
    (work / "result").mkdir(parents=True)
    (work / "result" / "slim.onnx").touch()
    (work / "lock").write_text("4194305")
    (work / "search.jsonl").write_text("measured")
    return work


@pytest.mark.parametrize("start", ["absent", "empty", "previous", "deep"])
def test_clean_exit_publishes_whole(tmp_path, start):
    out = tmp_path / "out" if start != "deep" else tmp_path / "a" / "b" / "out"
    if start in ("empty", "previous"):
        out.mkdir()
    if start == "previous":
        write_result(out, "old")
        (out / "slim.pt2").touch()
    with staging_folder(out) as staging:
        assert staging.parent == out.with_name(".out.partial")
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
        if source.name == "result":
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


@pytest.mark.parametrize("name", ["out", "a/out"])
def test_nothing_is_made_or_removed_before_the_claim(tmp_path, killed, name):
    with pytest.raises(InputError, match="no such model"), WorkFolder(tmp_path / name):
        raise InputError("no such model")
    with WorkFolder(tmp_path / name):
        pass
    assert entries(tmp_path) == [".out.partial"]
    assert entries(killed) == ["lock", "result", "search.jsonl"]


def test_no_output_needs_no_work_folder(tmp_path):
    with WorkFolder(None) as work:
        assert work.claim() is None
        with work.staging() as staging:
            write_result(staging, "new")
    assert not staging.exists()


def test_a_killed_run_is_taken_over(tmp_path, killed):
    with WorkFolder(tmp_path / "out") as work:
        assert work.claim().read_text() == "measured"
        with work.staging() as staging:
            assert entries(staging) == []
            write_result(staging, "new")
    assert entries(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (KeyboardInterrupt(), True),
        (MemoryError(), True),
        (InputError("cannot write slim.onnx: no space left"), True),
        (InputError("the loss is nan"), False),
        (ProofError("outputs differ"), False),
    ],
)
def test_the_journal_stays_where_the_same_command_may_go_on(tmp_path, killed, error, stays):
    def fail():
        with staging_folder(tmp_path / "out"):
            raise error from (OSError(28, "no space left") if "space" in str(error) else None)

    with pytest.raises(type(error)):
        fail()
    assert entries(tmp_path) == [".out.partial"] * stays
    assert not stays or entries(killed) == ["search.jsonl"]


def test_a_result_put_aside_by_a_killed_run_comes_back(tmp_path, previous, killed):
    os.rename(previous, killed / "previous")
    with WorkFolder(previous) as work:
        work.claim()
        assert marker(previous) == "old"
    assert marker(previous) == "old"
    assert entries(tmp_path) == ["out"]


def test_a_result_put_aside_goes_where_the_new_one_is_there(tmp_path, previous, killed):
    (killed / "previous").mkdir()
    write_result(killed / "previous", "older")
    with WorkFolder(previous) as work:
        work.claim()
        assert entries(killed) == ["lock", "search.jsonl"]
    assert marker(previous) == "old"


def test_a_result_that_cannot_be_put_back_is_not_lost(tmp_path, previous, killed, monkeypatch):
    os.rename(previous, killed / "previous")

    def failing(*_):
        raise OSError("no rename today")

    monkeypatch.setattr(folder.os, "rename", failing)
    with pytest.raises(InputError, match="cannot write"), WorkFolder(previous) as work:
        work.claim()
    assert marker(killed / "previous") == "old"


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path, killed):
    (killed / "thesis.tex").touch()
    with pytest.raises(InputError, match="something else"), WorkFolder(tmp_path / "out") as work:
        work.claim()
    assert entries(killed) == ["lock", "result", "search.jsonl", "thesis.tex"]
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / ".linked.partial").symlink_to(other)
    with pytest.raises(InputError, match="something else"), WorkFolder(tmp_path / "linked") as work:
        work.claim()
    (tmp_path / ".file.partial").touch()
    with pytest.raises(InputError, match="cannot write"), WorkFolder(tmp_path / "file") as work:
        work.claim()


def test_the_second_of_two_runs_is_refused_and_disturbs_nothing(tmp_path, killed):
    with WorkFolder(tmp_path / "out") as first:
        journal = first.claim()
        with first.staging() as staging:
            write_result(staging, "first")
            with (
                pytest.raises(InputError, match="another process works on"),
                WorkFolder(tmp_path / "out") as second,
            ):
                second.claim()
            assert journal.read_text() == "measured"
    assert marker(tmp_path / "out") == "first"
    assert entries(tmp_path) == ["out"]


def test_the_lock_of_a_killed_process_is_free(tmp_path, killed):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="one run at a time"):
        WorkFolder(tmp_path / "out").claim()
    other.kill()
    other.communicate()
    with WorkFolder(tmp_path / "out") as work:
        assert work.claim().read_text() == "measured"


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
