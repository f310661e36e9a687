"""No pickle runs code unless the user says so."""

import functools
import os
import pickle
import sys

import pytest
import torch
from torch import nn

from slimnet.errors import InputError
from slimnet.load.model import load_model
from slimnet.options import Options


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class EvilState(Evil):
    def __reduce__(self):
        return functools.partial, (os.system, self.command)


def evil_file(path, marker, kind=Evil, **options):
    model = nn.Linear(2, 2)
    model.extra = kind(f"touch {marker}")
    torch.save({"state_dict": model.state_dict(), "model": model}, path, **options)


@pytest.mark.parametrize("kind", [Evil, EvilState])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("allow", [(), ("posix.system",)])
def test_malicious_pickle_never_runs(tmp_path, kind, zipped, allow):
    marker, path = tmp_path / "marker", tmp_path / "m.pt"
    evil_file(path, marker, kind, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as caught:
        load_model(path, Options(allow=allow))
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)
    assert caught.value.__cause__ is None or "weights_only" not in str(caught.value.__cause__)


def test_refusal_names_what_was_found_and_the_ways_out(tmp_path):
    evil_file(tmp_path / "m.pt", tmp_path / "marker")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "m.pt", Options())
    for part in ("posix.system", "--allow", "--trust-pickle", "--arch", "Nothing was run"):
        assert part in str(caught.value)


def test_plain_pickle_never_runs(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(Evil(f"touch {marker}")))
    with pytest.raises(InputError, match="not a model file"):
        load_model(path, Options())
    assert not marker.exists()


def test_trust_runs_it_so_the_marker_of_these_tests_can_appear(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "m.pt"
    evil_file(path, marker)
    load_model(path, Options(trust_pickle=True, arch="torch.nn:Linear", arch_arg=ARGUMENTS))
    assert marker.exists()


ARGUMENTS = ("in_features=2", "out_features=2")


def user_module(tmp_path, monkeypatch, name):
    """Save a network of a class in a user's module; forget the module, but leave it importable."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential): pass\n"
        "class NoModule: pass\n"
        "open('imported', 'a').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(name)
    torch.save(module.Net(nn.Linear(2, 2)), "m.pt")
    del sys.modules[name]
    (tmp_path / "imported").unlink()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)


def test_user_class_needs_allow_and_is_not_imported_before(tmp_path, monkeypatch):
    user_module(tmp_path, monkeypatch, "slimnet_user_one")
    with pytest.raises(InputError, match=r"slimnet_user_one\.Net"):
        load_model("m.pt", Options())
    assert not (tmp_path / "imported").exists()
    loaded = load_model("m.pt", Options(allow=("slimnet_user_one.Net",))).model
    assert type(loaded).__name__ == "Net"


def test_user_class_loads_when_trusted(tmp_path, monkeypatch):
    user_module(tmp_path, monkeypatch, "slimnet_user_two")
    loaded = load_model("m.pt", Options(trust_pickle=True)).model
    assert type(loaded).__name__ == "Net"


def test_allow_takes_exact_names_only(tmp_path, monkeypatch):
    user_module(tmp_path, monkeypatch, "slimnet_user_three")
    for allow in ("slimnet_user_three", "slimnet_user_three.Ne", "slimnet_user_three.*"):
        with pytest.raises(InputError, match="not on the safe list"):
            load_model("m.pt", Options(allow=(allow,)))


def test_trusted_pickle_that_fails_says_so(tmp_path, monkeypatch):
    user_module(tmp_path, monkeypatch, "slimnet_user_four")
    (tmp_path / "slimnet_user_four.py").unlink()
    with pytest.raises(InputError, match="ModuleNotFoundError"):
        load_model("m.pt", Options(trust_pickle=True))


def test_safe_globals_do_not_outlive_the_call(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pt")
    before = set(torch.serialization.get_safe_globals())
    load_model(tmp_path / "m.pt", Options())
    assert set(torch.serialization.get_safe_globals()) == before


class Opens:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_allow_takes_no_functions(tmp_path):
    marker = tmp_path / "marker"
    torch.save(Opens(str(marker)), tmp_path / "m.pt")
    for name in ("io.open", "_io.open"):
        with pytest.raises(InputError, match=r"subclasses of torch.nn.Module|not on the safe list"):
            load_model(tmp_path / "m.pt", Options(allow=(name,)))
    assert not marker.exists()
