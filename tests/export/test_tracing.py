import io
import logging
import sys
import warnings

import pytest
import torch
from torch import nn

from slimnet.export.obstacles import deepest_cause
from slimnet.export.tracing import evaluation_copy, neutral_inputs, quiet


def test_quiet_stops_prints_warnings_and_logs_and_then_lets_them_through(capfd):
    stream = io.StringIO()
    logger = logging.getLogger("test_tracing")
    logger.addHandler(logging.StreamHandler(stream))
    with quiet():
        print("printed")
        print("printed", file=sys.stderr)
        warnings.warn("warned", stacklevel=1)
        logger.error("logged")
    assert capfd.readouterr() == ("", "")
    assert stream.getvalue() == ""
    print("printed")
    logger.error("logged")
    assert capfd.readouterr().out == "printed\n"
    assert stream.getvalue() == "logged\n"


def test_quiet_restores_after_an_exception():
    before = (logging.root.manager.disable, sys.stdout, sys.stderr)
    with pytest.raises(ValueError, match="boom"), quiet():
        raise ValueError("boom")
    assert (logging.root.manager.disable, sys.stdout, sys.stderr) == before


def test_copy_is_in_eval_mode_and_apart():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    copied = evaluation_copy(model)
    assert not any(module.training for module in copied.modules())
    assert all(module.training for module in model.modules())
    assert copied[0].weight is not model[0].weight


def test_neutral_input_tells_nothing_of_the_example():
    example = torch.ones(5, 3, 4, 4, dtype=torch.float64)
    (zeros,) = neutral_inputs(example)
    assert torch.equal(zeros, torch.zeros(2, 3, 4, 4, dtype=torch.float64))


def test_the_reason_is_that_of_the_deepest_cause():
    error = RuntimeError("outer")
    error.__cause__ = ValueError("\x1b[96minner\x1b[0m cause\nsecond line")
    assert deepest_cause(error) == "inner cause"
    assert deepest_cause(KeyError()) == "KeyError"
