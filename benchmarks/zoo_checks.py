"""Checks for any network: slim equals masked, ONNX Runtime agrees, artefacts open anywhere."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from random_removal import other_inputs, random_units
from random_weights import randomise
from torch import Tensor, nn

from slimnet import export
from slimnet.groups.cut import slim_copy
from slimnet.groups.group import Group, plan_for
from slimnet.groups.prove import relative_error
from slimnet.records.data import Plan

SHARE = 0.3
ONNX_TOLERANCE, PROGRAM_TOLERANCE = 1e-5, 1e-5
ELSEWHERE = """
import sys, torch
program, data = sys.argv[1:]
inputs, expected = torch.load(data)
found = torch.export.load(program).module()(inputs)
assert not {"torchvision", "torch_pruning", "slimnet"} & set(sys.modules), "a library was needed"
print(float((found - expected).abs().max() / expected.abs().max()))
"""


def random_plan(groups: list[Group], seed: int = 0) -> Plan:
    """Return a plan that removes about 30 % of every group's units at random."""
    return plan_for(groups, random_units(groups, SHARE, seed))


def randomly_slimmed(model: nn.Module, plan: Plan, example: Tensor) -> nn.Module:
    """Return a slim copy with other weights, whose activations stay of the order of 1."""
    subject = copy.deepcopy(model)
    randomise(subject, other_inputs(example, 5), 5)
    return slim_copy(subject, plan).eval()


def onnx_error(slim: export.Translated, folder: Path) -> float:
    """Return the error of ONNX Runtime against PyTorch at batch 1 and 3, as a share of the output.

    Raises:
        ProofError: it is more than slimnet allows.
    """
    inputs = other_inputs(torch.cat([slim.example, slim.example])[:3], 6)
    written = export.write_onnx(slim, folder / "slim.onnx", {}, (1, 3), inputs)
    return max(parity.relative_error for parity in written.parity.values())


@torch.no_grad()
def rounding_error(slim: nn.Module, example: Tensor) -> float:
    """Return the error of PyTorch in float32 against float64, as a share of the output."""
    inputs = other_inputs(torch.cat([example, example])[:3], 6)
    exact = copy.deepcopy(slim).double()(inputs.double())
    return relative_error([slim(inputs)], [exact])


@torch.no_grad()
def program_error(slim: export.Translated, folder: Path) -> float:
    """Return the error of the .pt2 in a process that cannot import the network's class."""
    program, data = folder / "slim.pt2", folder / "data.pt"
    export.save_program(slim, program)
    inputs = other_inputs(torch.cat([slim.example, slim.example])[:3], 7)
    torch.save((inputs, slim.model(inputs)), data)
    command = [sys.executable, "-I", "-c", ELSEWHERE, str(program), str(data)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stderr
    error = float(run.stdout)
    assert error <= PROGRAM_TOLERANCE, f"the .pt2 is {error:.1e} off"
    return error


@torch.no_grad()
def require_replay(
    fresh: Callable[[], nn.Module], slim: nn.Module, plan: Plan, example: Any, folder: Path
) -> None:
    """Check that plan and weights, written and read, turn a fresh network into the slim one."""
    export.save_plan(plan, folder / "plan.json", None)
    export.save_weights(slim, folder / "slim.safetensors")
    replayed = export.load_slim(folder, fresh())
    assert torch.equal(replayed.eval()(example), slim(example))
