"""Recording a network's calls and running it from a later one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.execution.replay import Change, first_call, replaying, trace_calls


class Counted(nn.Conv2d):
    """Counts how often it really runs."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return super().forward(x)


class Nested(nn.Module):
    """In-place work on a module's output, a shared module, a module in a module, a branch."""

    def __init__(self):
        super().__init__()
        self.stem = Counted(3, 4, 3, padding=1)
        self.block = nn.Sequential(Counted(4, 4, 1), nn.ReLU(inplace=True), Counted(4, 4, 1))
        self.shared = Counted(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = functional.relu(self.stem(x), inplace=True)
        y = self.block(x)
        y += x
        y = self.shared(self.shared(y))
        return self.head(y.mean((2, 3)))


@pytest.fixture
def nested():
    torch.manual_seed(0)
    return Nested().eval()


def runs(model):
    return [len(m.seen) for m in model.modules() if isinstance(m, Counted)]


def runs_since(model, before):
    return [after - count for after, count in zip(runs(model), before, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("changed", ["stem", "block.0", "block.2", "shared", "head"])
def test_a_replay_gives_what_the_changed_network_gives(nested, images, changed):
    calls = trace_calls(nested, lambda: nested(images[:2]))
    start = first_call(calls, {changed})
    with replaying(nested, calls) as replay:
        recorded = {}
        replay.resume(lambda: nested(images), 0, recorded, {start})
        nested.get_submodule(changed).weight.mul_(-0.5)
        got = replay.run(lambda: nested(images), start, recorded)
        again = replay.run(lambda: nested(images), start, recorded)
    assert torch.equal(got, nested(images))
    assert torch.equal(again, got)


@torch.no_grad()
def test_nothing_before_the_change_runs(nested, images):
    calls = trace_calls(nested, lambda: nested(images[:2]))
    start, recorded = first_call(calls, {"shared"}), {}
    with replaying(nested, calls) as replay:
        replay.resume(lambda: nested(images), 0, recorded, {start})
        before = runs(nested)
        replay.run(lambda: nested(images), start, recorded)
    stem, first, second, shared = runs_since(nested, before)
    assert (stem, first, second, shared) == (0, 0, 0, 2)


@torch.no_grad()
@pytest.mark.parametrize("many", [0, 1, 3])
def test_differences_are_those_of_the_changed_networks(nested, images, many):
    calls = trace_calls(nested, lambda: nested(images[:2]))
    names = ("block.2", "head", "stem")[:many]
    changes = [
        Change({f"{name}.weight": torch.zeros_like(nested.get_submodule(name).weight)},
               first_call(calls, {name}))
        for name in names
    ]  # fmt: skip
    before, plain = nested(images), copy.deepcopy(nested)
    with replaying(nested, calls) as replay:
        found = replay.differences(lambda: nested(images), nested, changes)
    for name, difference in zip(names, found, strict=True):
        changed = copy.deepcopy(plain)
        changed.get_submodule(name).weight.zero_()
        assert torch.equal(difference, changed(images) - before)
    assert torch.equal(nested(images), before)


@torch.no_grad()
def test_the_model_is_as_before(nested, images):
    expected = nested(images)
    with replaying(nested, trace_calls(nested, lambda: nested(images[:2]))) as replay:
        replay.resume(lambda: nested(images), 0, {}, {3})
    assert not any("forward" in vars(module) for module in nested.modules())
    assert torch.equal(nested(images), expected)


class Branching(nn.Module):
    """Goes another way for more than two images."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x):
        return self.c(self.b(x) if len(x) > 2 else self.a(x))


@torch.no_grad()
def test_a_network_that_goes_another_way_runs_whole():
    model = Branching().eval()
    calls = trace_calls(model, lambda: model(torch.randn(2, 3)))
    assert [call.module for call in calls] == ["a", "c"]
    x = torch.randn(4, 3)
    with replaying(model, calls) as replay:
        recorded = {}
        expected = model.c(model.b(x))
        assert torch.equal(replay.resume(lambda: model(x), 0, recorded, {1}), expected)
        assert torch.equal(replay.run(lambda: model(x), 1, recorded), expected)


@torch.no_grad()
def test_a_run_from_nothing_is_not_begun_anew_where_it_goes_another_way(nested, images):
    """What gathers gradients runs the network twice, where gates are overwritten."""
    calls = trace_calls(nested, lambda: nested(images[:2]))

    def twice():
        nested(images)
        return nested(images)

    kept, expected = {}, nested(images)
    with replaying(nested, calls) as replay:
        before = runs(nested)
        assert torch.equal(replay.resume(twice, 0, kept, {len(calls) - 1}), expected)
        assert runs_since(nested, before) == [2, 2, 2, 4]
        got = replay.run(lambda: nested(images), len(calls) - 1, kept)
    assert torch.equal(got, expected)


def test_a_module_without_a_call_changes_everything(nested, images):
    calls = trace_calls(nested, lambda: nested(images[:2]))
    assert first_call(calls, {"head", "nowhere"}) == 0
    assert first_call(calls, {"head"}) == len(calls) - 1


@torch.no_grad()
def test_a_resumed_run_goes_on_from_where_an_earlier_one_ended(nested, images):
    """Layer by layer, as refitting does: each runs once more when the next one's turn comes."""
    plain = copy.deepcopy(nested)
    calls = trace_calls(nested, lambda: nested(images[:2]))
    before, kept = runs(nested), {}
    with replaying(nested, calls) as replay:
        for name in ("stem", "block.0", "block.2"):
            start = first_call(calls, {name})
            for factor in (-0.5, 2.0):
                for model in (nested, plain):
                    model.get_submodule(name).weight.mul_(factor)
                got = replay.resume(lambda: nested(images), start, kept, {start})
                assert torch.equal(got, plain(images))
            assert all(calls[number].end <= start for number in kept)
    assert [b - a for a, b in zip(before, runs(nested), strict=True)] == [3, 5, 6, 12]


class Skipping(nn.Module):
    """What the stem puts out goes past the second block, but not past the third."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second, self.third = (
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)) for _ in range(4)
        )

    def forward(self, x):
        stem = self.stem(x) + 1
        x = self.second(self.first(stem)) + stem
        return self.third(x)


@pytest.mark.parametrize(
    ("start", "read"),
    [("first", {"stem"}), ("second", {"stem", "first"}), ("second.1", {"stem", "second.0"}),
     ("third", {"stem", "second"}), ("third.1", {"third.0"})],
)  # fmt: skip
def test_only_what_a_replay_reads_is_kept(images, start, read):
    torch.manual_seed(0)
    model = Skipping().eval()
    calls = trace_calls(model, lambda: model(images[:2]))
    number, kept = first_call(calls, {start}), {}
    with torch.no_grad(), replaying(model, calls) as replay:
        unread = replay.find_unread(lambda: [model(images[:2])], number)
        first = replay.resume(lambda: model(images), number, kept, {number}, unread)
        again = replay.resume(lambda: model(images), number, kept, {number}, unread)
    memory = {calls[n].module: t.untyped_storage().nbytes() // 4 for n, t in kept.items()}
    assert {name for name, elements in memory.items() if elements > 1} == read
    assert torch.equal(first, model(images))
    assert torch.equal(again, first)


class Deciding(nn.Module):
    """Reads values of which no gradient tells."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.head = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        stem = self.stem(x)
        return self.head(self.first(stem)) * (stem > 0)


def test_what_is_read_without_a_gradient_is_kept(images):
    torch.manual_seed(0)
    model = Deciding().eval()
    calls = trace_calls(model, lambda: model(images[:2]))
    with replaying(model, calls) as replay:
        unread = replay.find_unread(lambda: [model(images[:2])], first_call(calls, {"head"}))
    assert unread == set()


class Leaving(nn.Module):
    """A module inside another leaves something that a later one reads."""

    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            self.images = len(x)
            return self.conv(x)

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Sequential(self.Stem()), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.head(self.stem(x))
        return x.view(self.stem[0].images, -1)


@torch.no_grad()
def test_a_module_that_leaves_something_behind_runs_in_every_replay(images):
    model = Leaving().eval()
    calls = trace_calls(model, lambda: model(images[:2]))
    assert [call.module for call in calls if call.replayable] == ["stem.0.conv", "head"]
    start, kept = first_call(calls, {"head"}), {}
    with replaying(model, calls) as replay:
        for part in (images, images[:2], images):
            replay.resume(lambda part=part: model(part), start, kept, {start})
            kept_of = dict(kept)
            again = replay.resume(lambda part=part: model(part), start, kept_of, {start})
            assert len(again) == len(part)
            kept.clear()


class Straying(nn.Module):
    """Goes another way where the images are bright."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.other, self.head = (nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, x):
        bright = bool(x.mean() > 1)
        stem = self.stem(x)
        x = self.first(stem)
        return self.other(stem) if bright else self.head(x)


@torch.no_grad()
def test_a_replay_that_goes_another_way_runs_wholly(images):
    torch.manual_seed(0)
    model = Straying().eval()
    calls = trace_calls(model, lambda: model(images[:2]))
    start, kept = first_call(calls, {"head"}), {}
    with replaying(model, calls) as replay:
        unread = replay.find_unread(lambda: [model(images[:2])], start)
        assert unread
        for part in (images, images + 9):
            for _ in range(2):
                got = replay.resume(lambda part=part: model(part), start, kept, {start}, unread)
                assert torch.equal(got, model(part))
            kept.clear()


def size(kept):
    sizes = [output.untyped_storage().nbytes() for output in kept.values()]
    return sum(size for size in sizes if size > 4)


@torch.no_grad()
@pytest.mark.parametrize("room", [0, 1600, 6000, 10**7])
def test_what_there_is_no_room_for_runs_again(images, room):
    torch.manual_seed(0)
    model = Skipping().eval()
    calls = trace_calls(model, lambda: model(images[:2]))
    kept, seen = {}, []
    with replaying(model, calls) as replay:
        for name in ("first", "second", "third"):
            start = first_call(calls, {name})
            unread = replay.find_unread(lambda: [model(images[:2])], start)
            for _ in range(2):
                left = room - size(kept)
                got = replay.resume(lambda: model(images), start, kept, {start}, unread, left)
                assert torch.equal(got, model(images))
            seen.append(size(kept))
    assert max(seen) <= room


class InPlace(nn.Module):
    """Modules that change what they are given, and what they give is not, or not all, used."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.conv = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.conv(self.relu(x))

    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
        self.between, self.block, self.head = nn.Conv2d(4, 4, 1), self.Block(), nn.Conv2d(4, 5, 1)

    def forward(self, x):
        x = self.stem(x)
        self.relu(x)
        x = self.between(x)
        return self.head(self.block(x) + x)


@torch.no_grad()
@pytest.mark.parametrize("changed", ["between", "block.conv", "head"])
def test_what_a_module_does_to_its_input_is_done_in_a_replay_too(images, changed):
    torch.manual_seed(0)
    model = InPlace().eval()
    calls = trace_calls(model, lambda: model(images[:2]))
    start = first_call(calls, {changed})
    with replaying(model, calls) as replay:
        recorded = {}
        replay.resume(lambda: model(images), 0, recorded, {start})
        model.get_submodule(changed).weight.mul_(-0.5)
        got = replay.run(lambda: model(images), start, recorded)
    assert torch.equal(got, model(images))
