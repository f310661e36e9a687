"""Whoever reads the output may go; the work goes on, and the exit code is the work's."""

import os
import subprocess
import sys

import pytest

from slimnet.cli.app import _lasting

COMMAND = "import sys; from slimnet.cli import main; main()"


@pytest.mark.parametrize("flags", [(), ("-u",)])
@pytest.mark.parametrize(("words", "code"), [("inspect absent.pt", 2), ("init --force", 0)])
def test_a_closed_pipe_changes_no_exit_code(flags, words, code, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, *flags, "-c", COMMAND, *words.split()]
    try:
        done = subprocess.run(arguments, stdout=writer, stderr=writer, cwd=tmp_path, timeout=60)
    finally:
        os.close(writer)
    assert done.returncode == code


def test_what_is_written_to_a_pipe_gets_there_until_the_reader_goes():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        lasting = _lasting(stream)
        print("größer", file=lasting, flush=True)
        assert os.read(reader, 99).decode() == "größer\n"
        os.close(reader)
        print("unread", file=lasting, flush=True)
