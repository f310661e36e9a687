"""The help of every sub-command fits a terminal, shows an example, and tells units and defaults."""

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from typing import get_args, get_type_hints

import pytest
import typer

from slimnet import cli, timing
from slimnet.options import CommandOptions, Options, options_of
from slimnet.options.option import TITLES

COMMANDS = typer.main.get_command(cli.app).commands
# numbers that have no unit, and the ones that are in those of the pixels
PURE = {
    "mean", "std", "scale", "learning_rate", "weight_decay", "norm_scale_l1", "seed", "opset",
}  # fmt: skip
TAKEN = {
    info.callback.__name__: {
        name: (get_args(hint.__origin__) or (hint.__origin__,), hint.__metadata__[0].help)
        for name, hint in get_type_hints(info.callback, include_extras=True).items()
        if name != "return"
    }
    for info in cli.app.registered_commands
}
KINDS = {option.name: option.kind for option in options_of(Options, CommandOptions)}
PARAMETERS = [(command, name) for command, taken in TAKEN.items() for name in taken]


def page(words, monkeypatch, capsys, columns="80") -> str:
    for name in ("FORCE_COLOR", "TERMINAL_WIDTH", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.run(words) == 0
    told = capsys.readouterr()
    assert told.err == ""
    return told.out


PANELS = ["Arguments", "Options", *TITLES]
WANTED_FIRST = [
    "--data", "--max-drop", "--out", "--calibration-data", "--preprocess", "--arch",
    "--finetune-epochs", "--min-speedup",
]  # fmt: skip


@pytest.mark.parametrize("columns", ["80", "100"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_of_the_help_is_cut_and_its_panels_are_the_sections(
    name, columns, monkeypatch, capsys
):
    text = page([name, "--help"], monkeypatch, capsys, columns)
    assert max(map(len, text.splitlines())) <= int(columns)
    assert "…" not in text
    assert not re.search(r"<\w+>|TEXT|INTEGER|BOOLEAN", text)
    shown = re.findall(r"^╭─ ([\w-]+) ─", text, re.MULTILINE)
    assert shown == [panel for panel in PANELS if panel in shown]
    column = re.findall(r"^│ .*  (\S.*?) *│$", text, re.MULTILINE)
    for parameter in COMMANDS[name].params:
        # whole words in order, each line of the text under the one before
        assert parameter.help in " ".join(" ".join(column).split())


def test_the_help_of_compress_begins_with_the_options_that_people_use_first(monkeypatch, capsys):
    text = page(["compress", "--help"], monkeypatch, capsys)
    assert re.findall(r"^╭─ ([\w-]+) ─", text, re.MULTILINE) == PANELS
    first = text.partition("─ Options ─")[2].partition("╰")[0]
    assert re.findall(r"^│ (--[\w-]+)", first, re.MULTILINE) == [*WANTED_FIRST, "--help"]


@pytest.mark.parametrize("name", ["compress", "compare", "inspect", "verify", "apply", "bench"])
def test_every_long_command_can_do_without_progress(name):
    (parameter,) = (p for p in COMMANDS[name].params if p.name == "progress")
    assert parameter.secondary_opts == ["--no-progress"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_is_one(name, monkeypatch, capsys):
    text = page([name, "--help"], monkeypatch, capsys)
    (example,) = re.findall(r"^ Example: slimnet (.+)$", text, re.MULTILINE)
    words = shlex.split(example)
    assert words[0] == name
    COMMANDS[name].make_context(name, words[1:])  # raises where it takes no such words


@pytest.mark.parametrize(("command", "name"), PARAMETERS)
def test_every_option_tells_its_default_and_every_number_its_unit(command, name):
    kinds, told = TAKEN[command][name]
    assert re.search(r"default: \S+[^()]*\)$|not given", told, re.IGNORECASE)
    if {*kinds, KINDS.get(name)} & {int, float} and name not in PURE:
        assert "(unit: " in told


def test_defaults_that_equal_a_bool_are_shown_too():
    assert TAKEN["compress"]["threads"][1].endswith("(unit: threads; default: 1)")
    assert TAKEN["compress"]["seed"][1].endswith("(default: 0)")


def test_an_option_that_means_something_else_is_told_so():
    assert TAKEN["compare"]["repair"][1].endswith("(default: off)")
    assert TAKEN["compare"]["metrics"][1].endswith("(default: all)")
    assert TAKEN["compress"]["repair"][1].endswith("(default: on)")


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    assert page(["--version"], monkeypatch, capsys) == f"slimnet {version('slimnet')}\n"
    assert "--version" in page(["--help"], monkeypatch, capsys)


def test_bench_names_every_runtime_that_it_can_time():
    told = TAKEN["bench"]["runtime"][1]
    assert all(name in told for name in timing.RUNTIMES)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0), ("--version", 0), ("compress --help", 0), ("compres", 2),
        ("compress --max-dorp 3", 2), ("compress m.pt --data d --max-drop 500", 2),
        ("compress m.pt --data d --junit nowhere/j.xml", 2), ("bench --seed x", 2), ("compress", 2),
    ],
)  # fmt: skip
def test_help_and_refusals_do_not_wait_for_torch(words, code, tmp_path):
    script = (
        "import sys\nfrom slimnet import cli\n"
        f"code = cli.run({words.split()!r})\n"
        "late = {'torch', 'onnx', 'onnxruntime', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "print(code, *late, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == str(code)
