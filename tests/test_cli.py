"""The installed command: what it prints where, its exit code, and what it leaves behind.

Torch takes seconds to import, so only good runs and a few bad ones are processes of their own. All
run at once, the processes two at a time, and the tests look at what they did.
"""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import slimnet
from slimnet import cli
from slimnet.errors import InputError, ProofError
from slimnet.options import Options, options_of
from slimnet.search import objective

COMMAND = str(Path(sys.executable).with_name("slimnet"))
QUICK = ["--oracle-k", "2", "--step", "4", "--latency-samples", "10", "--latency-batch", "1"]
QUICK_FILE = "oracle_k = 2\nstep = 4\nlatency-samples = 10\nlatency-batch = [1]\n"
ERROR = "slimnet: error: "


@dataclass(frozen=True)
class Bad:
    """A run that must be refused. FILES in a text is the folder of prepared files.

    ``there`` are files of the working folder. ``apart``: run it as a process of its own.
    """

    arguments: list[str]
    told: list[str]
    there: dict[str, str] = field(default_factory=dict)
    apart: bool = False


def model(name: str, *told: str, more: str = "", apart: bool = False) -> Bad:
    words = f"compress FILES/{name} --data FILES/data.npz {more}".split()
    return Bad(words, list(told), apart=apart)


def data(name: str, *told: str, network: str = "model.pt", apart: bool = False) -> Bad:
    words = ["compress", f"FILES/{network}", "--data", f"FILES/{name}"]
    return Bad(words, list(told), apart=apart)


def option(more: str, *told: str, apart: bool = False) -> Bad:
    return model("model.pt", *told, more=more, apart=apart)


def with_file(name: str, text: str, *told: str, apart: bool = False) -> Bad:
    return Bad(["compress", "FILES/model.pt"], list(told), {name: text}, apart)


BAD = {
    "model missing": model("absent.pt", "there is no file", "absent.pt", apart=True),
    "model empty": model("empty.pt", "empty.pt is empty"),
    "model a text": model("text.pt", "text.pt is not a model file"),
    "model truncated": model("truncated.pt", "truncated.pt is", "truncated", "again"),
    "model a folder": model("no_images", "no_images is a folder"),
    "class not allowed": model(
        "evil.pt", "posix.system", "--allow", "--trust-pickle", apart=True
    ),
    "weights alone": model("weights.pt", "weights without the network", "--arch"),
    "weights that do not fit": model(
        "weights.pt", "does not fit the architecture", "missing (2.weight, 2.bias)",
        "unexpected (3.weight, 4.weight, 4.bias", "0.weight (8, 1, 3, 3) instead of (9, 1, 3, 3)",
        more="--arch FILES/arch.py:small",
    ),
    "arch file missing": model(
        "weights.pt", "no Python file", "nowhere.py", more="--arch nowhere.py:network"
    ),
    "arch name missing": model(
        "weights.pt", "has no 'netwrk'", more="--arch FILES/arch.py:netwrk"
    ),
    "NaN in the weights": model("nan.pt", "0.weight", "NaN", "1 of 72"),
    "data missing": data("absent.npz", "there is no file", "absent.npz"),
    "folder without images": data("no_images", "no_images", "holds no images"),
    "folder without classes": data("no_images/a", "holds no class folders"),
    "other number of classes": data(
        "five_classes", "4 outputs", "5 classes", network="colour.pt"
    ),
    "images of a wrong shape": data(
        "data.npz", "fails on images of the shape (2, 1, 8, 8)", "--size", network="colour.pt"
    ),
    "labels beyond the outputs": data("label_9.npz", "label 9", "4 outputs"),
    "labels missing": data("images.npz", "it holds images", "--labels none"),
    "NaN in the images": data("nan.npz", "nan.npz", "NaN"),
    "NaN in the loss": data(
        "huge.npz", "the loss on the selection split is nan", "--scale", apart=True
    ),
    "network at chance": data("chance.npz", "at chance", "preprocessing", "--mean"),
    "too few images": data("few.npz", "needs 10 images or more", "from the 12 of"),
    "no data": Bad(["compress", "FILES/model.pt"], ["no data given", "--data", "slimnet.toml"]),
    "no model": Bad(["compress"], ["no model given", "slimnet.toml"]),
    "max drop 500": option("--max-drop 500", "percentage points, 0 to 100; got 500"),
    "max drop -5": option("--max-drop -5", "percentage points, 0 to 100; got -5"),
    "max drop abc": option("--max-drop abc", "percentage points, 0 to 100; got 'abc'"),
    "max drop nan": option("--max-drop nan", "points, 0 to 100; got nan"),
    "half a step": option("--step 0.5", "a whole number of channels", "'0.5'"),
    "unknown option": option("--max-drp 5", "--max-drp", "--max-drop"),
    "unknown command": Bad(["compres", "FILES/model.pt"], ["compres", "'compress'"]),
    "unknown metric": option(
        "--metrics taylor_first", "'taylor_first'", "did you mean 'taylor_first_order'"
    ),
    "keep of no layer": option(
        "--keep 3x", "keep '3x' matches no layer", "the nearest is '3'"
    ),
    "a share of 2": option("--max-ratio 2", "max_ratio is a number, 0 to 1; got 2"),
    "rounded single channels": option(
        "--round-to auto --step 1", "got step 1 and round_to auto", "leave one"
    ),
    "unknown key": with_file(
        "slimnet.toml", "max_drp = 5", "slimnet.toml", "'max_drp'", "did you mean 'max_drop'"
    ),
    "key of a wrong type": with_file(
        "pyproject.toml", "[tool.slimnet]\ndata = 5", "pyproject.toml", "data is text", "got 5",
    ),
    "number as text": with_file(
        "slimnet.toml", "max_drop = 'five'", "points, 0 to 100; got 'five'"
    ),
    "file not TOML": with_file(
        "slimnet.toml", "max_drop 5", "slimnet.toml", "not valid TOML"
    ),
    "output folder in use": Bad(
        ["compress", "FILES/model.pt", "--data", "FILES/data.npz"],
        ["output folder", "slim holds something else", "another name"],
        {"slim/thesis.tex": "chapter 1"},
    ),
    "output a file": Bad(
        ["compress", "FILES/model.pt", "--data", "FILES/data.npz", "--out", "taken"],
        ["taken is a file", "another name"],
        {"taken": "mine"},
    ),
    "demo folder in use": Bad(
        ["demo", "."], ["a folder of its own", "something else"], {"thesis.tex": ""}
    ),
}  # fmt: skip

NOTHING_TO_GAIN = f"model = 'model.pt'\ndata = 'FILES/data.npz'\nmax_drop = 0\n{QUICK_FILE}"
CONFIRMED = f"model = 'model.pt'\ndata = 'FILES/data.npz'\nmax_drop = 20\n{QUICK_FILE}"
FILE = f"data = 'FILES/data.npz'\nconfidence = 0.5\n{QUICK_FILE}"
WITHOUT_STEP = FILE.replace("step = 4\n", "")
GOOD: dict[str, tuple[list[str], dict[str, str]]] = {
    "from slimnet.toml": (
        [COMMAND, "compress", "model.pt", "--max-drop", "5"],
        {"slimnet.toml": f"# for model.pt\n{FILE}"},
    ),
    "from pyproject.toml": (
        [sys.executable, "-m", "slimnet", "compress", "FILES/weights.pt", "--out", "here",
         "--seed", "7", "--no-repair", "--arch", "FILES/arch.py:network"],
        {"pyproject.toml": f"[tool.slimnet]\nout = 'there'\nmax-drop = 30\nseed = 3\n{FILE}"},
    ),
    "help": ([COMMAND, "compress", "--help"], {}),
}  # fmt: skip


class Evil:
    """Runs a command wherever it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def save_arrays(path, images, labels):
    np.savez(path, images=np.asarray(images), labels=np.asarray(labels))


def save_images(folder, classes, each):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def prepared(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    network, splits = trained
    torch.save(network, folder / "model.pt")
    torch.save(network.state_dict(), folder / "weights.pt")
    whole = (folder / "model.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pt").touch()
    (folder / "text.pt").write_text("a letter to the editor")
    torch.save({"weights": Evil(f"touch {folder / 'pwned'}")}, folder / "evil.pt")
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten()), folder / "colour.pt")
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network[0].weight.data[0, 0, 0, 0] = float("nan")
    torch.save(network, folder / "nan.pt")
    network.load_state_dict(state)
    layers = ",\n        ".join(repr(layer) for layer in network)
    (folder / "arch.py").write_text(
        "from torch.nn import *\n\n"
        f"def network():\n    return Sequential(\n        {layers})\n\n"
        "def small():\n    return Sequential(Conv2d(1, 9, 3), Flatten(), Linear(324, 4))\n"
    )

    batches = [b for s in (splits.calibration, splits.selection, splits.test) for b in s.batches]
    images = torch.cat([part for part, _ in batches]).numpy()
    labels = torch.cat([part for _, part in batches]).numpy()
    save_arrays(folder / "data.npz", images, labels)
    save_arrays(folder / "few.npz", images[:12], labels[:12])
    save_arrays(folder / "chance.npz", images, (labels + 1) % 4)
    save_arrays(folder / "label_9.npz", images, np.where(labels == 3, 9, labels))
    np.savez(folder / "images.npz", images=images)
    for name, value in (("nan", np.nan), ("huge", np.float32(3e38))):
        changed = images.copy()
        changed[::3] = value  # some of them are in every split
        save_arrays(folder / f"{name}.npz", changed, labels)
    for name in "abcd":
        (folder / "no_images" / name).mkdir(parents=True)
    save_images(folder / "five_classes", "abcde", 12)
    return folder


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    before: dict[str, bytes]
    after: dict[str, bytes]
    temporary: list[str]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def lay_out(folder, there, files):
    folder.mkdir()
    for name, text in there.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.replace("FILES", str(files)))
    if "model.pt" in there.get("slimnet.toml", ""):
        (folder / "model.pt").write_bytes((files / "model.pt").read_bytes())


def execute(words, there, files, folder) -> Done:
    here, temporary = folder / "here", folder / "temporary"
    temporary.mkdir(parents=True)
    lay_out(here, there, files)
    before = contents(here)
    terminal = ("FORCE_COLOR", "COLUMNS", "TERMINAL_WIDTH", "GITHUB_ACTIONS", "TTY_COMPATIBLE")
    environment = {key: value for key, value in os.environ.items() if key not in terminal}
    environment |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [word.replace("FILES", str(files)) for word in words],
        cwd=here, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=200,
    )  # fmt: skip
    left = [str(path) for path in temporary.rglob("*")]
    return Done(done.returncode, done.stdout, done.stderr, before, contents(here), left)


def execute_inside(words, there, files, folder, monkeypatch) -> Done:
    lay_out(folder, there, files)
    before = contents(folder)
    temporary = folder.with_name(f"{folder.name} temporary")
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(folder)
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = cli.run([word.replace("FILES", str(files)) for word in words])
    left = [str(path) for path in temporary.rglob("*")]
    return Done(code, out.getvalue(), err.getvalue(), before, contents(folder), left)


@pytest.fixture(scope="module")
def done(prepared, tmp_path_factory):
    """Every run by its name; good ones first, which take longest."""
    runs = GOOD | {name: ([COMMAND, *b.arguments], b.there)
                   for name, b in BAD.items() if b.apart}  # fmt: skip
    before = set(contents(prepared))
    folder = tmp_path_factory.mktemp("runs")
    with ThreadPoolExecutor(2) as pool:
        waiting = {
            name: pool.submit(execute, *run, prepared, folder / name) for name, run in runs.items()
        }
        finished = {name: future.result() for name, future in waiting.items()}
    for name, bad in BAD.items():
        if not bad.apart:
            with pytest.MonkeyPatch.context() as patch:
                finished[name] = execute_inside(
                    bad.arguments, bad.there, prepared, folder / name, patch
                )
    # Python keeps what it compiled of arch.py beside it, as it does for every import
    assert {name for name in set(contents(prepared)) - before if "__pycache__" not in name} == set()
    return finished


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(done, name):
    run = done[name]
    assert run.code == 2, run.err
    assert run.err.startswith(ERROR)
    assert run.err.endswith("\n")
    assert run.err.count("\n") == 1, run.err
    assert "Traceback" not in run.err
    for words in BAD[name].told:
        assert words in run.err
    assert run.out == ""


@pytest.mark.parametrize("name", BAD)
def test_bad_input_writes_nothing(done, name):
    assert done[name].after == done[name].before
    assert done[name].temporary == []


def test_a_refused_pickle_did_not_run(done, prepared):
    assert done["class not allowed"].code == 2
    assert not (prepared / "pwned").exists()
    torch.load(prepared / "evil.pt", weights_only=False)  # the bait is real
    assert (prepared / "pwned").exists()
    (prepared / "pwned").unlink()


@pytest.mark.parametrize("name", GOOD)
def test_good_run_says_so_by_its_exit_code(done, name):
    assert done[name].code == 0, done[name].err
    assert done[name].temporary == []


@pytest.mark.parametrize(
    ("name", "folder"), [("from slimnet.toml", "slim"), ("from pyproject.toml", "here")]
)
def test_good_run_prints_the_table_and_writes_the_folder(done, name, folder):
    run = done[name]
    for words in (
        "accuracy, 160 selection images",
        "conv weights",
        "MACs per image",
        "ONNX file",
        "÷",
    ):
        assert words in run.out
    assert run.out.endswith(f"\nWritten to {folder}/\n")
    new = {path.partition("/")[0] for path in set(run.after) - set(run.before)}
    assert new == {folder}
    assert f"{folder}/slim.onnx" in run.after


@pytest.mark.parametrize("name", ["from slimnet.toml", "from pyproject.toml"])
def test_stderr_of_a_good_run_is_progress_only(done, name):
    # the report is written before the last stage's time is known
    stages = [*json.loads(report_in(done[name]))["seconds"]]
    assert stages[0] == "loading"
    assert done[name].err.splitlines()[: len(stages)] == [f"{stage} ..." for stage in stages]
    assert all(line.endswith(" ...") for line in done[name].err.splitlines()[len(stages) :])


def report_in(run: Done) -> bytes:
    return next(value for name, value in run.after.items() if name.endswith("report.json"))


def test_numbers_printed_are_those_of_the_report(done):
    run = done["from slimnet.toml"]
    report = json.loads(report_in(run))
    assert f"{report['original_size']['parameters']:,}" in run.out
    assert f"{report['slim_size']['parameters']:,}" in run.out
    assert report["slim_size"]["parameters"] < report["original_size"]["parameters"]
    assert f"{report['selection_drop']['slim_percent']:.2f} %" in run.out
    assert report["settings"]["max_drop"] == 5
    assert report["settings"]["confidence"] == 0.5


def test_command_line_wins_over_the_file_and_the_rest_comes_from_it(done):
    options = json.loads(report_in(done["from pyproject.toml"]))["settings"]
    told = {name: options[name] for name in ("seed", "max_drop", "repair", "oracle_k")}
    assert told == {"seed": 7, "max_drop": 30, "repair": False, "oracle_k": 2}


def test_nothing_removed_is_said_layer_by_layer(prepared, tmp_path, monkeypatch):
    there = {"slimnet.toml": NOTHING_TO_GAIN}
    run = execute_inside(["compress"], there, prepared, tmp_path / "here", monkeypatch)
    report = json.loads(report_in(run))
    assert run.code == 3
    assert report["verdict"] == "missed"
    assert report["slim_size"] == report["original_size"]
    assert "MISSED: the budget (at most 0 points of accuracy may be lost" in run.out
    assert "Nothing was removed: " in run.out
    assert "--max-drop" in run.out
    for layer in ("0", "3", "8"):
        assert f"  {layer} (" in run.out


def test_nothing_that_could_go_is_no_failure(prepared, tmp_path, monkeypatch):
    there = {"slimnet.toml": f"{CONFIRMED}keep = ['*']\n"}
    run = execute_inside(["compress"], there, prepared, tmp_path / "here", monkeypatch)
    assert run.code == 0
    assert json.loads(report_in(run))["verdict"] == "unchanged"
    assert run.out.startswith("NOTHING CAN BE REMOVED from this network")


def test_a_confirmed_budget_is_said_first_and_how_much_the_images_allow_before(
    prepared, tmp_path, monkeypatch
):
    there = {"slimnet.toml": CONFIRMED}
    run = execute_inside(["compress"], there, prepared, tmp_path / "here", monkeypatch)
    report = json.loads(report_in(run))
    assert (run.code, report["verdict"]) == (0, "confirmed")
    told = "Confirmed: at most 20 points of accuracy were lost, at 95 % confidence, on 120 images"
    assert told in run.out
    assert "accuracy, 120 confirmation images" in run.out
    stages = [line for line in run.err.splitlines() if line.endswith(" ...")]
    (note,) = [line for line in run.err.splitlines() if line not in stages]
    assert note.startswith("note: 120 images for confirmation; networks that truly lose more than")
    assert f"confirming step {report['confirmation']['tests'][0]['step']}, slim.onnx ..." in stages


def test_a_budget_that_cannot_be_confirmed_ends_with_3_and_the_original(
    prepared, tmp_path, monkeypatch
):
    def p_value(original, slim, max_drop):
        return 0.3 * (original is not slim)

    monkeypatch.setattr("slimnet.tasks.classification.paired_p_value", p_value)
    there = {"slimnet.toml": CONFIRMED}
    run = execute_inside(["compress"], there, prepared, tmp_path / "here", monkeypatch)
    report = json.loads(report_in(run))
    assert (run.code, report["verdict"]) == (3, "missed")
    assert len(report["confirmation"]["tests"]) == 1
    assert run.after["slim/slim.onnx"] == run.after["slim/original.onnx"]
    assert "MISSED: the budget (at most 20 points of accuracy may be lost" in run.out
    assert "the safest state that the search found could not be confirmed" in run.out
    assert report["confirmation_drop"]["points"] == report["selection_drop"]["points"] == 0


def test_wishes_for_widths_are_obeyed_and_told(prepared, tmp_path, monkeypatch):
    there = {"slimnet.toml": f"objective = 'params'\nmax_drop = 100\n{WITHOUT_STEP}"}
    words = ["compress", "FILES/model.pt", "--keep", "0", "--max-ratio", "0.5", "--round-to", "3"]
    run = execute_inside(words, there, prepared, tmp_path / "here", monkeypatch)
    assert run.code == 0, run.err
    report = json.loads(report_in(run))
    assert {"layer": "0", "channels": 8, "reason": "kept as asked (--keep 0)"} in report["frozen"]
    assert report["channels_per_layer"] == {"0": [8, 8], "3": [8, 6], "8": [4, 4]}
    for words in ("--keep 0", "--max-ratio 0.5", "--round-to 3"):
        assert words in report["command"]
    assert "a multiple of 3 and keeps to --max-ratio 0.5" in run.out


def test_rounding_to_widths_that_pay_is_told(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(objective, "measure_paying_widths", lambda *_: (5, 10))
    there = {"slimnet.toml": f"objective = 'macs'\nmax_drop = 100\n{WITHOUT_STEP}"}
    words = ["compress", "FILES/model.pt", "--round-to", "auto"]
    run = execute_inside(words, there, prepared, tmp_path / "here", monkeypatch)
    assert run.code == 0, run.err
    assert json.loads(report_in(run))["channels_per_layer"]["3"] == [8, 5]
    assert "Note: --round-to auto on onnxruntime-cpu: the widths that pay are 5, 10," in run.out


def test_help_fits_80_columns_and_shows_an_example(done):
    assert_is_help(done["help"].out)
    assert done["help"].err == ""
    assert done["help"].after == {}


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_without_a_command_does_so_too(arguments, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(arguments) == 0
    told = capsys.readouterr()
    assert_is_help(told.out)
    assert "--verbose" in told.out
    assert told.err == ""


def assert_is_help(text):
    assert max(map(len, text.splitlines())) <= 80
    assert "Example: slimnet compress model.pt --data val/ --max-drop 5" in text


def test_help_shows_every_option(done):
    for option in options_of(Options):
        assert f"{option.flag} " in done["help"].out


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ProofError("outputs differ\nby far"), 4, f"{ERROR}outputs differ by far\n"),
        (InputError("the rule; got 5"), 2, f"{ERROR}the rule; got 5\n"),
        (ZeroDivisionError("by\nzero"), 1,
         f"{ERROR}internal error, please report it: ZeroDivisionError: by\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 2,
         f"{ERROR}the disk cannot be written: [Errno 28] No space left on device: '/tmp/x'; "
         "nothing was written\n"),
        (OSError(errno.EBADF, "bad"), 1,
         f"{ERROR}internal error, please report it: OSError: [Errno 9] bad\n"),
        (KeyboardInterrupt(), 130, f"{ERROR}interrupted; the same command goes on from there\n"),
    ],
)  # fmt: skip
def test_exit_code_and_line_of_every_failure(error, code, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slimnet, "compress", raising(error))
    assert cli.run(["compress", "model.pt", "--data", "val"]) == code
    assert capsys.readouterr() == ("", line)
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_option_is_told_the_nearest(capsys):
    assert cli.run(["compress", "model.pt", "--max-dorp", "3"]) == 2
    assert "no such option: --max-dorp; did you mean --max-drop?" in capsys.readouterr().err


@pytest.mark.parametrize("where", [0, 1, 4])
def test_verbose_shows_the_traceback_and_then_the_line(where, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slimnet, "compress", raising(ZeroDivisionError("by zero")))
    words = ["compress", "model.pt", "--data", "val"]
    assert cli.run([*words[:where], "--verbose", *words[where:]]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):")
    assert ", in fail\n" in told
    assert told.splitlines()[-1].startswith(f"{ERROR}internal error")


def test_the_command_is_one_library_call(tmp_path, monkeypatch):
    calls = []

    def record(*arguments, **options):
        calls.append((arguments, options))
        raise InputError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slimnet, "compress", record)
    cli.run(["compress", "m.pt", "--data", "val", "--max-drop", "2.5", "--mean", "0.1,0.2",
             "--allow", "a.B", "--allow", "c.D", "--trust-pickle"])  # fmt: skip
    ((arguments, options),) = calls
    given = options["options"]
    assert arguments == ("m.pt", "val", 2.5)
    assert options["out"] == "slim"
    assert (given.mean, given.allow) == ((0.1, 0.2), ("a.B", "c.D"))
    assert (given.trust_pickle, given.repair) == (True, True)
