"""Model files made to do harm: no code runs, no memory is filled, one line, nothing written.

``cli.run`` is what the command runs, so the exit code and the line are those of the command.
"""

import collections
import functools
import json
import os
import pickle
import resource
import struct
import sys
import time
import zipfile

import pytest
import torch
from torch import nn

from slimnet import cli
from slimnet.load.model import load_model
from slimnet.options import Options

ERROR = "slimnet: error: "
ARGUMENTS = ("in_features=2", "out_features=2")
MAX_SECONDS, MAX_MEGABYTES = 1.0, 100


class Calls:
    """Calls a function with arguments wherever it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run the command on a file; return the one line that it prints."""
    monkeypatch.chdir(tmp_path)
    # what the first use of a library takes is no fault of the file
    for zipped in (True, False):
        state = nn.Linear(2, 2).state_dict()
        torch.save(state, tmp_path / "good.pt", _use_new_zipfile_serialization=zipped)
        load_model(tmp_path / "good.pt", Options(arch="torch.nn:Linear", arch_arg=ARGUMENTS))

    def run(path, *more):
        before, memory = set(tmp_path.rglob("*")), peak_megabytes()
        seconds = time.process_time()
        code = cli.run(["compress", str(path), "--data", "nowhere.npz", *more])
        seconds = time.process_time() - seconds
        told = capsys.readouterr()
        assert code == 2, told.err
        assert told.out == ""
        assert told.err.startswith(f"{ERROR}{path}")
        assert told.err.count("\n") == 1
        assert told.err[:-1].isprintable()
        assert len(told.err) < 2000
        assert "weights_only" not in told.err
        assert set(tmp_path.rglob("*")) == before  # no canary either
        assert seconds < MAX_SECONDS
        assert peak_megabytes() - memory < MAX_MEGABYTES
        return told.err

    return run


def peak_megabytes():
    """The most memory that this process ever had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_archive(path, data, compression=zipfile.ZIP_STORED, **records):
    """Write what torch.save would, with a pickle and storages of one's own."""
    entries = {"data.pkl": data, "byteorder": b"little", "version": b"3\n", **records}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"m/{name}", content)
    return path


def pickled(thing):
    return pickle.dumps(thing, 2)


def hooked(command):
    model = nn.Sequential(nn.Linear(2, 2))
    model[0]._forward_hooks = collections.OrderedDict({0: Calls(os.system, command)})
    return model


def nested(command):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[1].__dict__["extra"] = [{"a": (Calls(os.system, command),)}]
    return {"epoch": 3, "model": nn.DataParallel(model)}


def partial(command):
    model = nn.Sequential(nn.Linear(2, 2))
    model.activation = functools.partial(print, Calls(os.system, command))
    return model


def hidden_call(command):
    model = nn.Sequential(nn.Linear(2, 2))
    model.extra = Calls(eval, f"__import__('os').system({command!r})")
    return model


ATTACKS = [hooked, nested, partial, hidden_call]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("zipped", [True, False])
def test_code_at_any_place_of_the_pickle_does_not_run(refused, tmp_path, attack, zipped):
    path = tmp_path / "m.pt"
    torch.save(attack(f"touch {tmp_path}/canary"), path, _use_new_zipfile_serialization=zipped)
    told = refused(path)
    if zipped:
        assert "posix.system" in told or "builtins.eval" in told
    try:  # the bait is real
        torch.load(path, weights_only=False)
    finally:
        assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_setstate_of_an_unknown_class_does_not_run(refused, tmp_path, monkeypatch, zipped):
    (tmp_path / "slimnet_hostile.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __setstate__(self, state): open('canary', 'w').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("slimnet_hostile")
    torch.save(module.Net(), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    torch.load(tmp_path / "m.pt", weights_only=False)
    (tmp_path / "canary").unlink()
    del sys.modules["slimnet_hostile"]
    refused(tmp_path / "m.pt")
    assert "slimnet_hostile" not in sys.modules


def test_scripted_archive_with_a_pickle_of_ones_own_does_not_run(refused, tmp_path):
    evil = pickled(Calls(os.system, f"touch {tmp_path}/canary"))
    path = write_archive(tmp_path / "m.pt", evil, **{"constants.pkl": evil, "code/x.py": b"1/0"})
    assert "scripted models cannot be pruned" in refused(path)


def test_file_that_is_an_archive_and_a_pickle_does_not_run(refused, tmp_path):
    path = write_archive(tmp_path / "m.pt", pickled({}))
    start = pickled(Calls(os.system, f"touch {tmp_path}/canary"))
    path.write_bytes(start + path.read_bytes())
    refused(path)


def storage_claiming(numbers):
    """The pickle of {"a": tensor of so many float32}, whose storage is data/0."""
    kind = b"ctorch\nFloatStorage\n"
    count = b"\x8a\x08" + numbers.to_bytes(8, "little")
    storage = b"(X\x07\0\0\0storage" + kind + b"X\x01\0\0\x000X\x03\0\0\0cpu" + count + b"tQ"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    shape = b"K\0" + count + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}X\x06\0\0\x000.bias" + rebuild + storage + shape + b"Rs."


def test_the_pickle_of_these_tests_is_one_that_loads(tmp_path):
    path = write_archive(tmp_path / "m.pt", storage_claiming(4), **{"data/0": bytes(16)})
    assert torch.load(path)["0.bias"].tolist() == [0.0] * 4


@pytest.mark.parametrize("numbers", [5, 4 * 10**6, 10**10, 2**60])
def test_storage_smaller_than_claimed(refused, tmp_path, numbers):
    data = {"data/0": bytes(16)}
    refused(write_archive(tmp_path / "m.pt", storage_claiming(numbers), **data))


@pytest.mark.parametrize("numbers", [5, 4 * 10**6, 2**60])
def test_storage_of_the_old_form_smaller_than_claimed(refused, tmp_path, numbers):
    path = tmp_path / "m.pt"
    torch.save({"0.bias": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    count = b"\x8a\x08" + numbers.to_bytes(8, "little")
    changed = content.replace(b"K\x04N", count + b"N").replace(b"K\x04\x85", count + b"\x85")
    assert changed != content
    path.write_bytes(changed)
    refused(path)


@pytest.mark.parametrize("place", ["data.pkl", "data/0", "version"])
def test_bomb_is_refused_before_it_is_inflated(refused, tmp_path, place):
    records = {"data.pkl": storage_claiming(5 * 10**7), "data/0": bytes(16)}
    records[place] = bytes(2 * 10**8)
    data = records.pop("data.pkl")
    path = write_archive(tmp_path / "m.pt", data, zipfile.ZIP_DEFLATED, **records)
    assert path.stat().st_size < 10**6
    assert "claims to hold 200,000," in refused(path)


@pytest.mark.parametrize("fields", [slice(24, 28), slice(20, 28)])
def test_directory_that_claims_gigabytes(refused, tmp_path, fields):
    path = write_archive(tmp_path / "m.pt", storage_claiming(4), **{"data/0": bytes(16)})
    content, place = bytearray(path.read_bytes()), 0
    while (place := content.find(b"PK\x01\x02", place)) >= 0:
        size = struct.pack("<I", 2**31)
        content[place + fields.start : place + fields.stop] = size * (len(content[fields]) // 4)
        place += 4
    path.write_bytes(content)
    assert "claims to hold" in refused(path)


@pytest.mark.parametrize("side", [3 * 10**4, 10**9])
def test_class_that_is_called_with_huge_sizes(refused, tmp_path, side):
    path = write_archive(tmp_path / "m.pt", pickled(Calls(nn.Linear, side, side)))
    assert "no values" in refused(path)


@pytest.mark.parametrize("side", [2 * 10**4, 10**9])
@pytest.mark.parametrize("kind", ["weight", "buffer", "half"])
def test_few_values_expanded_to_many(refused, tmp_path, side, kind):
    model, one = nn.Sequential(nn.Linear(2, 2)), torch.zeros(1)
    if kind == "buffer":
        model[0].register_buffer("mask", one.expand(side, side))
    else:
        value = one.half() if kind == "half" else one
        model[0].weight = nn.Parameter(value.expand(side, side))
    torch.save(model, tmp_path / "m.pt")
    assert "bytes of values but hold" in refused(tmp_path / "m.pt")


def test_one_storage_under_many_names(refused, tmp_path):
    value = torch.zeros(4 * 10**6).half()
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    for layer in model:
        layer.weight = nn.Parameter(value)
    torch.save(model, tmp_path / "m.pt")
    assert "bytes of values but hold" in refused(tmp_path / "m.pt")


def test_small_expanded_buffer_is_fine(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_buffer("mask", torch.ones(1).expand(8, 8))
    torch.save(model, tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt", Options()).model.mask.shape == (8, 8)


def loop():
    checkpoint = {}
    checkpoint["model"] = checkpoint
    return checkpoint


def tower():
    return functools.reduce(lambda inner, _: {"model": inner}, range(300), {})


def model_in_itself():
    model = nn.Sequential(nn.Linear(2, 2))
    model._modules["again"] = model
    return model


def without_its_parts():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].__dict__["_buffers"] = 7
    return model


def wrapper_around_itself():
    model = nn.DataParallel(nn.Linear(2, 2))
    model._modules["module"] = model
    return model


STRUCTURES = [loop, tower, model_in_itself, without_its_parts, wrapper_around_itself]


@pytest.mark.parametrize("make", STRUCTURES)
def test_structures_without_an_end_or_with_wrong_parts(refused, tmp_path, make):
    torch.save(make(), tmp_path / "m.pt")
    refused(tmp_path / "m.pt")


def test_names_that_steer_a_terminal_or_fill_it(refused, tmp_path):
    name = "\x1b[2J\r" + 10**5 * "x"
    data = b"\x80\x02c" + name.encode().replace(b"\r", b"") + b"\nsystem\n."
    assert "?[2Jxxx" in refused(write_archive(tmp_path / "m.pt", data))
    torch.save({name: 1, f"{name}2": 2, 7: 3}, tmp_path / "n.pt")
    assert "?[2J?xxx" in refused(tmp_path / "n.pt")
    torch.save({name: torch.zeros(1)}, tmp_path / "o.pt")
    arch = ["--arch", "torch.nn:Linear", "--arch-arg", "in_features=2", "--arch-arg"]
    assert "unexpected (?[2J?xxx" in refused(tmp_path / "o.pt", *arch, "out_features=2")


TENSOR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HEADERS = {
    "end beyond the file": {**TENSOR, "shape": [4 * 10**9], "data_offsets": [0, 16 * 10**9]},
    "shape larger than the data": {**TENSOR, "shape": [10**9]},
    "shape that overflows": {**TENSOR, "shape": [2**62, 2**62]},
    "shape below zero": {**TENSOR, "shape": [-4]},
    "end before the start": {**TENSOR, "data_offsets": [16, 0]},
    "unknown type": {**TENSOR, "dtype": "PICKLE"},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_safetensors_with_a_wrong_header(refused, tmp_path, kind):
    header = json.dumps({"0.bias": HEADERS[kind]}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "damaged safetensors" in refused(tmp_path / "m.safetensors")


@pytest.mark.parametrize("claimed", [2**20, 2**26, 2**40, 2**63, 2**64 - 1])
def test_safetensors_with_a_gigantic_header(refused, tmp_path, claimed):
    header = json.dumps({"0.bias": TENSOR}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", claimed) + header + bytes(16))
    refused(tmp_path / "m.safetensors")


def test_safetensors_with_overlapping_tensors(refused, tmp_path):
    header = json.dumps({f"{number}": TENSOR for number in range(1000)}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "damaged safetensors" in refused(tmp_path / "m.safetensors")


def test_pipe_is_refused_and_not_waited_for(refused, tmp_path):
    os.mkfifo(tmp_path / "m.pt")
    assert "a pipe or a device" in refused(tmp_path / "m.pt")


def test_device_is_refused(refused):
    refused("/dev/zero")
