"""slimnet.toml to start from: it changes nothing, and every line of it can be used."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, make_dataclass

import pytest

from slimnet import init
from slimnet.cli import run
from slimnet.init import configuration_text, write_configuration
from slimnet.load import BESIDE_SETTINGS, read_configuration
from slimnet.settings import Settings, dial

BESIDE = list(BESIDE_SETTINGS)
NAMES = [*BESIDE[:3], *(dial.name for dial in fields(Settings)), *BESIDE[3:]]
LINES = re.findall(r"^#(\w+ = .+)$", configuration_text(), re.MULTILINE)


def read(folder, text):
    (folder / "slimnet.toml").write_text(text, encoding="utf-8")
    chosen = read_configuration(folder)
    return Settings().changed({n: v for n, v in chosen.items() if n not in BESIDE})


def test_every_dial_stands_there_once_the_most_wanted_first():
    assert [line.split(" = ")[0] for line in LINES] == NAMES
    assert NAMES[:4] == ["model", "data", "out", "max_drop"]


def test_the_file_as_written_sets_nothing(tmp_path):
    write_configuration(tmp_path)
    assert read_configuration(tmp_path) == {}
    assert all(line.startswith("#") or not line for line in configuration_text().splitlines())


@pytest.mark.parametrize("line", LINES)
def test_every_line_is_accepted_without_its_mark(tmp_path, line):
    text = configuration_text().replace("#" + line, line)
    if line.startswith("max_regression"):  # it says how much worse than a baseline
        text = text.replace("#baseline", "baseline")
    settings = read(tmp_path, text)
    name = line.split(" = ")[0]
    if name not in BESIDE:
        default = getattr(Settings(), name)
        assert default in (None, ()) or getattr(settings, name) == default


def test_all_lines_that_show_a_default_together_are_the_defaults(tmp_path):
    shown = [n for n in NAMES if n not in BESIDE and getattr(Settings(), n) not in (None, ())]
    assert len(shown) > 20
    lines = [line for line in LINES if line.split(" = ")[0] in shown]
    assert read(tmp_path, "\n".join(lines)) == Settings()


def test_text_gives_help_unit_and_default():
    text = " ".join(configuration_text().replace("\n# ", " ").split())
    for one in fields(Settings):
        assert " ".join(one.metadata["help"].split()) in text
    assert "once. (a whole number of images, 1 or more; default 128) #batch_size = 128" in text
    assert "(a whole number of pixels, 1 or more; not set by default) #size = 224" in text
    assert max(map(len, configuration_text().splitlines())) <= 100


@pytest.mark.parametrize(
    ("future", "shown"),
    [
        (dial(None, int, "A.", limits=(3, 9), optional=True), 3),
        (dial(None, float, "A.", optional=True, many=True), (0.0,)),
        (dial(None, str, "A.", choices=("x", "y"), optional=True), "x"),
        (dial((), str, "A.", repeat=True), ("...",)),
        (dial(False, bool, "A."), False),
    ],
)
def test_a_dial_to_come_shows_something_that_it_may_be(future, shown):
    kind = make_dataclass("Future", [("new", object, future)])
    (there,) = fields(kind)
    assert there.default is not MISSING
    assert init._shown(there) == shown


def test_what_is_there_stays_unless_forced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["init"]) == 0
    assert "slimnet.toml" in capsys.readouterr().out
    (tmp_path / "slimnet.toml").write_text("seed = 3\n")
    assert run(["init"]) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "slimnet.toml").read_text() == "seed = 3\n"
    assert run(["init", "--force"]) == 0
    assert (tmp_path / "slimnet.toml").read_text() == configuration_text()
    assert [path.name for path in tmp_path.iterdir()] == ["slimnet.toml"]


def test_a_table_of_pyproject_is_not_hidden_unless_forced(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.slimnet]\nseed = 3\n")
    assert run(["init"]) == 2
    assert "[tool.slimnet]" in capsys.readouterr().err
    assert not (tmp_path / "slimnet.toml").exists()
    assert run(["init", "--force"]) == 0


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slimnet.toml").mkdir()
    assert run(["init"]) == 2
    assert run(["init", "--force"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
