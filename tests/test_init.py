"""slimnet.toml to start from: it changes nothing, and every line of it can be used."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from slimnet import init
from slimnet.cli.app import run
from slimnet.init import configuration_text, write_configuration
from slimnet.options import (
    CommandOptions,
    Options,
    Section,
    names_of,
    option,
    options_of,
    read_configuration,
)
from slimnet.options.option import TITLES

BESIDE = names_of(CommandOptions)
NAMES = [one.name for one in options_of(Options, CommandOptions)]
LINES = re.findall(r"^#(\w+ = .+)$", configuration_text(), re.MULTILINE)


def read(folder, text):
    (folder / "slimnet.toml").write_text(text, encoding="utf-8")
    chosen = read_configuration(folder)
    return Options().changed({n: v for n, v in chosen.items() if n not in BESIDE})


def test_every_option_stands_there_once_in_its_section():
    assert sorted(line.split(" = ")[0] for line in LINES) == sorted(NAMES)
    parts = re.split(r"^# ---- (.+) ----$", configuration_text(), flags=re.MULTILINE)[1:]
    assert tuple(parts[::2]) == TITLES
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        own = {one.name for one in options_of(Options, CommandOptions) if one.section == title}
        assert set(re.findall(r"^#(\w+) = ", text, re.MULTILINE)) == own


def test_the_file_as_written_sets_nothing(tmp_path):
    write_configuration(tmp_path)
    assert read_configuration(tmp_path) == {}
    assert all(line.startswith("#") or not line for line in configuration_text().splitlines())


@pytest.mark.parametrize("line", LINES)
def test_every_line_is_accepted_without_its_mark(tmp_path, line):
    text = configuration_text().replace("#" + line, line)
    if line.startswith("max_regression"):  # it says how much worse than a baseline
        text = text.replace("#baseline", "baseline")
    options = read(tmp_path, text)
    name = line.split(" = ")[0]
    if name not in BESIDE:
        default = getattr(Options(), name)
        assert default in (None, ()) or getattr(options, name) == default


def test_all_lines_that_show_a_default_together_are_the_defaults(tmp_path):
    shown = [n for n in NAMES if n not in BESIDE and getattr(Options(), n) not in (None, ())]
    assert len(shown) > 20
    lines = [line for line in LINES if line.split(" = ")[0] in shown]
    assert read(tmp_path, "\n".join(lines)) == Options()


def test_text_gives_help_unit_and_default():
    text = " ".join(configuration_text().replace("\n# ", " ").split())
    for one in options_of(Options, CommandOptions):
        assert one.help in text
    assert "once. (a whole number of images, 1 or more; default 128) #batch_size = 128" in text
    assert "(a whole number of pixels, 1 or more; not set by default) #size = 224" in text
    assert max(map(len, configuration_text().splitlines())) <= 100


@dataclass(frozen=True)
class Future(Section):
    """Options to come, without examples."""

    title = "Search"

    number: int | None = option(None, "A.", limits=(3, 9))
    numbers: tuple[float, ...] | None = option(None, "A.")
    word: str | None = option(None, "A.", choices=("x", "y"))
    words: tuple[str, ...] = option((), "A.")
    switch: bool = option(False, "A.")


def test_an_option_without_example_shows_something_that_it_may_be():
    shown = {one.name: init._shown(one) for one in options_of(Future)}
    assert shown == {
        "number": 3, "numbers": (0.0,), "word": "x", "words": ("...",), "switch": False,
    }  # fmt: skip
    assert Future().changed(shown).number == 3


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
