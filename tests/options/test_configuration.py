"""slimnet.toml and [tool.slimnet]."""

import pytest

from slimnet.errors import InputError
from slimnet.options import Options, read_configuration


def test_no_file_is_nothing(tmp_path):
    assert read_configuration(tmp_path) == {}
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert read_configuration(tmp_path) == {}


def test_hyphens_and_all_kinds_of_values(tmp_path):
    (tmp_path / "slimnet.toml").write_text(
        "max-drop = 3\nbatch_size = 8\nmean = [0.1, 0.2]\ndata = 'val'\nout = 'o'\n"
    )
    read = read_configuration(tmp_path)
    assert read == {"max_drop": 3, "batch_size": 8, "mean": [0.1, 0.2], "data": "val", "out": "o"}
    del read["data"], read["out"]
    assert Options().changed(read).mean == (0.1, 0.2)


def test_own_file_wins_over_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.slimnet]\nseed = 4\n")
    assert read_configuration(tmp_path) == {"seed": 4}
    (tmp_path / "slimnet.toml").write_text("size = 32\n")
    assert read_configuration(tmp_path) == {"size": 32}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"max_drp = 3", "did you mean 'max_drop'"),
        (b"max_drop = = 3", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"max_drop = 3\nmax-drop = 4", "stands twice"),
        (b'max_drop = "3"', "in percentage points, 0 to 100; got '3': leave the quotes out"),
        (b"data = 5", "data is text; got 5"),
        (b"quiet = 1", "quiet is true or false; got 1"),
        (b"oracle_k = 5.5", "oracle_k is a whole number of candidates, 1 or more; got 5.5"),
    ],
)
def test_errors_name_the_file(tmp_path, text, message):
    (tmp_path / "slimnet.toml").write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        read_configuration(tmp_path)
    assert "slimnet.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_of_pyproject_is_refused_with_the_nearest_name(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.slimnet]\nmax-dorp = 3\n")
    with pytest.raises(InputError, match=r"pyproject\.toml: unknown key 'max-dorp'; .*'max_drop'"):
        read_configuration(tmp_path)


def test_tool_slimnet_must_be_a_table(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool]\nslimnet = 3\n")
    with pytest.raises(InputError, match="is a table"):
        read_configuration(tmp_path)
