"""The command line over slimnet.toml: every option can stand there, and can be taken back."""

import pytest
import typer

import slimnet
from slimnet import cli
from slimnet.cli import outputs
from slimnet.cli.options import chosen_values
from slimnet.errors import InputError
from slimnet.options import CommandOptions, Options, names_of

# of one command alone, and nothing that a team would agree on
COMMAND_LINE_ONLY = {
    "slim", "folder", "plan", "force", "original",
}  # fmt: skip


@pytest.fixture
def configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slimnet.toml").write_text(
        'min_speedup = 2\nmax_params = 9\nbaseline = "old.json"\nkeep = ["a"]\nint8 = true\n'
        'seed = 7\nsummary = "told.md"\njunit = "told.xml"\nquiet = true\n'
    )


def test_every_option_can_stand_in_the_file():
    known = names_of(Options, CommandOptions) | COMMAND_LINE_ONLY
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert {parameter.name for parameter in command.params} <= known, name


@pytest.mark.usefixtures("configured")
def test_what_the_file_says_can_be_taken_back():
    given = {"min_speedup": "none", "baseline": "none", "keep": ["none"], "max_params": None,
             "int8": False, "seed": "5", "summary": "none"}  # fmt: skip
    chosen = chosen_values(given)
    assert chosen == {"max_params": 9, "int8": False, "seed": 5, "junit": "told.xml",
                      "quiet": True}  # fmt: skip
    with pytest.raises(InputError, match="seed is a whole number, 0 or more; got 'none'"):
        chosen_values({"seed": "none"})  # it has a default


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("words", [["--min-speedup", "none"], ["--max-params=none"]])
def test_a_goal_is_taken_back_on_the_command_line(words, monkeypatch):
    seen = []

    def compress(_model, _data, _max_drop, **more):
        seen.append((more["options"], more["progress"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(slimnet, "compress", compress)
    assert cli.run(["compress", "model.pt", "--data", "d", *words, "--no-int8"]) == 130
    ((options, progress),) = seen
    assert progress is None  # quiet = true
    assert not options.int8
    assert (options.min_speedup, options.max_params) in ((None, 9), (2.0, None))


@pytest.mark.usefixtures("configured")
def test_outputs_of_the_file_are_told_of_a_failure_too(tmp_path):
    assert outputs.files_named(["compress", "m.pt"]).junit == "told.xml"
    assert outputs.files_named(["compress", "--junit=other.xml"]).junit == "other.xml"
    assert outputs.files_named(["compress", "--junit", "none"]).junit is None
    assert outputs.files_named(["inspect", "m.pt"]).junit is None
    assert cli.run(["compress", "missing.pt", "--data", "d", "--baseline", "none"]) == 2
    assert "missing.pt" in (tmp_path / "told.md").read_text()
