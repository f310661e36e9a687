import getpass
import json
import os
import platform
from pathlib import Path

import torch

from slimnet.report import environment
from slimnet.report.environment import _version


def test_versions_and_processor_are_there():
    found = environment()
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["slimnet"]
    assert found["torch_pruning"].startswith("1.6")
    assert found["cpu"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert all(found[name] for name in ("torchvision", "onnx", "onnxruntime", "platform"))


def test_nothing_names_a_person_or_machine(monkeypatch):
    monkeypatch.setenv("USER", "ada-lovelace")
    monkeypatch.setenv("LOGNAME", "ada-lovelace")
    text = json.dumps(environment())
    assert getpass.getuser() == "ada-lovelace"
    assert "ada-lovelace" not in text
    assert platform.node() not in text
    assert str(Path.home()) not in text


def test_package_that_is_absent_has_no_version():
    assert _version("no-such-package-at-all") is None
