"""One input, several or named ones; outputs of every shape."""

import torch
from torch import nn

from slimnet.tasks.calls import forward, in_float64, output_tensors


class Two(nn.Module):
    def forward(self, first, second):
        return {"sum": first + second, "rest": [first - second, 7, first > second]}


def test_inputs_come_alone_as_a_tuple_or_by_name():
    first, second = torch.ones(2), torch.full((2,), 3.0)
    assert forward(nn.Identity(), first) is first
    by_place, by_name = (
        forward(Two(), (first, second)),
        forward(Two(), {"second": second, "first": first}),
    )
    assert torch.equal(by_place["sum"], by_name["sum"])
    assert torch.equal(by_place["rest"][0], by_name["rest"][0])


def test_the_floating_point_tensors_of_an_output_come_in_a_fixed_order():
    first, second = torch.ones(2), torch.full((2,), 3.0)
    found = output_tensors(Two()(first, second))
    assert [x.tolist() for x in found] == [[4, 4], [-2, -2]]
    assert output_tensors(first)[0] is first


def test_inputs_in_float64_leave_whole_numbers_and_the_originals_alone():
    inputs = (torch.ones(2), torch.ones(2, dtype=torch.int64))
    converted = in_float64(inputs)
    assert [x.dtype for x in converted] == [torch.float64, torch.int64]
    assert inputs[0].dtype == torch.float32
