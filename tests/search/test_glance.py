"""Glances: what few images say of a network that was ranked a channel ago."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from slimnet.groups import find_groups
from slimnet.saliency import EVERY_SUM, Gathering, gather_statistics, score_units
from slimnet.search import glance as glance_file
from slimnet.search import proposing as proposing_file
from slimnet.search import ranking as ranking_file
from slimnet.search.glance import OF_ACTIVATIONS, Glances
from slimnet.search.layout import Layout, lay_out
from slimnet.search.proposals import propose_sets
from slimnet.search.proposing import Proposing
from slimnet.search.ranking import Ranker, errors_of, rank
from slimnet.search.recording import Recording
from slimnet.search.state import State
from slimnet.settings import Settings

METRICS = ["l1_weight", "mean_activation", "mutual_information", "taylor_first_order"]
SIZE = 8


@pytest.fixture
def found(trained, monkeypatch):
    """A state, the same without one unit, and images."""
    monkeypatch.setattr(glance_file, "STALE_SHARES", (0.3, 0.1, 0.01, -1.0))
    model, splits = trained
    groups, _ = find_groups(model, splits.calibration.batches[0][0][:2])
    state = State(model, groups, {}, {})
    units = [torch.tensor([3])] + [torch.empty(0, dtype=torch.int64)] * (len(groups) - 1)
    images = lay_out(splits.calibration, layout=Layout(images=SIZE)).batches
    return state, state.without(units), images


@pytest.fixture
def ran(monkeypatch):
    """How many images went forward only, and backward as well."""
    run, many = Gathering.run, {False: 0, True: 0}

    def counted(self, batch, *, gradients=True):
        many[gradients] += len(batch[1])
        return run(self, batch, gradients=gradients)

    monkeypatch.setattr(Gathering, "run", counted)
    return many


def known_of(state, images):
    return rank(state, images, METRICS).known


def glances_at(state, images, known):
    ranker = Ranker(state, METRICS, errors_of(state))
    return Glances(ranker, images, known.narrowed(state), Recording((), ()))


def test_a_glance_renews_hard_images_and_some_in_turn(found, ran):
    state, after, images = found
    known = known_of(state, images)
    ran.update({False: 0, True: 0})
    got = glances_at(after, images, known).look()
    hard = torch.argsort(known.losses, descending=True, stable=True)[: ran[True]]
    assert 0 < ran[True] < len(known.losses) / 2
    places, every, first = range(len(known.losses)), glance_file.EVERY, glance_file.TURNS[0]
    turn = torch.tensor([i for i in places if i % every < first and i not in hard])
    assert ran[False] == len(turn)

    # slowly: everything of both networks, image by image
    gates = [gate for group in state.groups for gate in group.gates]
    old, old_losses = gather_statistics(state.model, gates, images)
    new, new_losses = gather_statistics(after.model, gates, images)
    mixed = {}
    for name, layer in old.items():
        left = [c for c in range(len(layer.weight)) if name != "0" or c != 3]
        columns = {s: getattr(layer, s)[:, left] for s in EVERY_SUM if len(getattr(layer, s))}
        for each, sums in columns.items():
            renewed = torch.cat([hard, turn]) if each in OF_ACTIVATIONS else hard
            sums[renewed] = getattr(new[name], each)[renewed]
        prediction = layer.prediction.clone()
        prediction[hard] = new[name].prediction[hard]
        prediction[turn] = new[name].prediction[turn]
        mixed[name] = dataclasses.replace(new[name], prediction=prediction, **columns)
    expected = score_units(after.groups, mixed, METRICS)
    for metric in METRICS:
        torch.testing.assert_close(got.scores[metric], expected[metric], rtol=1e-5, atol=1e-7)
    old_losses[torch.cat([hard, turn])] = new_losses[torch.cat([hard, turn])]
    torch.testing.assert_close(got.losses, old_losses)


def test_what_a_glance_may_be_wrong_by(found):
    state, after, images = found
    known = known_of(state, images)
    lacks = glances_at(after, images, known).look().lacks
    assert not lacks["l1_weight"].any()
    last = len(lacks["mean_activation"]) - state.groups[-1].units
    assert lacks["mean_activation"][last:].any(), "the layer behind the unit reads less"
    assert not lacks["mean_activation"][:last].any(), "nothing before it has changed"
    assert 0 < lacks["taylor_first_order"].max() <= 1
    same = glances_at(state, images, known).look()
    assert not same.lacks["mean_activation"].any()


def test_a_score_lacks_what_older_gradients_gave_it(found, ran):
    state, _, images = found
    known = known_of(state, images)
    ran.update({False: 0, True: 0})
    got = glances_at(state, images, known).look()
    easy = torch.argsort(known.losses, descending=True, stable=True)[ran[True] :]
    gates = [gate for group in state.groups for gate in group.gates]
    whole, _ = gather_statistics(state.model, gates, images)
    part = {name: layer.of_images(easy) for name, layer in whole.items()}
    score, of_easy = (
        score_units(state.groups, statistics, METRICS)["taylor_first_order"]
        for statistics in (whole, part)
    )
    expected = len(easy) / len(known.losses) * of_easy / score
    torch.testing.assert_close(got.lacks["taylor_first_order"], expected)


def test_further_glances_come_to_a_ranking_of_all_images(found, ran):
    state, after, images = found
    known, expected = known_of(state, images), rank(after, images, METRICS)
    glances = glances_at(after, images, known)
    ran.update({False: 0, True: 0})
    rankings = [glances.look() for _ in glance_file.STALE_SHARES]
    assert ran[True] == len(known.losses), "no image went backward twice"
    lacks = [float(ranking.lacks["taylor_first_order"].max()) for ranking in rankings[:-1]]
    assert lacks == sorted(lacks, reverse=True)
    assert not rankings[-1].lacks
    for metric in METRICS:
        torch.testing.assert_close(rankings[-1].scores[metric], expected.scores[metric])
    torch.testing.assert_close(rankings[-1].losses, expected.losses)


def test_turns_come_to_every_image(found, monkeypatch):
    state, _, images = found
    known = known_of(state, images)
    right = known.losses.clone()
    known = dataclasses.replace(known, losses=right + 1e-3)
    monkeypatch.setattr(glance_file, "batches_to_do", lambda *_: 0)
    for _ in range(glance_file.EVERY // glance_file.TURNS[0]):
        known = glances_at(state, images, known).look().known
    torch.testing.assert_close(known.losses, right)


def test_what_is_known_of_a_channel_goes_with_it(found):
    state, after, images = found
    known = known_of(state, images)
    narrower = known.narrowed(after)
    assert narrower.plan == after.plan
    one, other = known.statistics["0"], narrower.statistics["0"]
    left = [c for c in range(len(one.weight)) if c != 3]
    assert torch.equal(one.activation[:, left], other.activation)
    assert narrower.statistics["3"] is known.statistics["3"]
    assert narrower.elements < known.elements
    assert narrower.narrowed(after).elements == narrower.elements
    assert narrower.narrowed(state) is None, "a channel came back, of which nothing is known"
    renewed = dataclasses.replace(after, renewals=1)
    assert known.narrowed(renewed) is None, "other weights: what is known is of another network"


def proposing(images, **settings):
    return Proposing(images, Settings(metrics=tuple(METRICS), **settings), Recording((), ()))


def singly(state, candidates=8, channels=1):
    return lambda scores: propose_sets(
        state.groups, scores, candidates=candidates, channels=channels
    )


def keys(proposals):
    return {proposal.key for proposal in proposals}


def test_a_state_after_a_single_channel_is_glanced_at(found, ran):
    state, after, images = found
    makes = proposing(images)
    first = makes.propose(state, singly(state))
    assert first.glances is None
    makes.begin(first.losses)
    ran.update({False: 0, True: 0})
    again = makes.propose(after, singly(after))
    assert again.glances
    assert 0 < ran[True] < len(first.losses)
    images_seen = dict(ran)
    assert makes.propose(after, singly(after, candidates=7)).glances in (0, 1, 2, 3)
    assert images_seen[True] <= ran[True] <= len(first.losses)


def test_after_larger_steps_everything_is_ranked(found):
    state, after, images = found
    makes = proposing(images)
    makes.propose(state, singly(state, channels=3))
    makes.begin(None)
    assert makes.propose(after, singly(after)).glances is None


def test_after_a_channel_came_back_everything_is_ranked(found):
    state, after, images = found
    makes = proposing(images)
    makes.propose(after, singly(after))
    makes.begin(None)
    assert makes.propose(state, singly(state)).glances is None


def test_where_many_images_are_hard_everything_is_ranked(found, monkeypatch):
    state, after, images = found
    monkeypatch.setattr(glance_file, "STALE_SHARES", (0.001, 0.0001, 0.00001, -1.0))
    makes = proposing(images)
    makes.propose(state, singly(state))
    makes.begin(None)
    assert makes.propose(after, singly(after)).glances is None


def test_what_would_take_too_much_memory_is_not_kept(found, monkeypatch):
    state, after, images = found
    monkeypatch.setattr(proposing_file, "MOST_ELEMENTS", 10)
    makes = proposing(images)
    makes.propose(state, singly(state))
    makes.begin(None)
    assert makes.propose(after, singly(after)).glances is None


def test_doubts_are_looked_into_until_others_are_few(found, monkeypatch):
    state, after, images = found
    few, none = proposing(images), proposing(images)
    made = []
    for makes, most in ((few, 100.0), (none, -1.0)):
        monkeypatch.setattr(proposing_file, "MOST_IN_DOUBT", most)
        first = makes.propose(state, singly(state))
        makes.begin(first.losses)
        made.append(makes.propose(after, singly(after)))
    assert made[0].glances == 1
    assert made[0].in_doubt
    assert made[1].glances > 1
    assert not made[1].in_doubt
    exact = singly(after)(rank(after, images, METRICS).scores)
    assert keys(made[1].proposals) == keys(exact)


def test_what_catches_up_knows_the_same(found):
    state, after, images = found
    live, resumed = proposing(images), proposing(images)
    for makes in (live, resumed):
        first = makes.propose(state, singly(state))
        makes.begin(first.losses)
    once = live.propose(after, singly(after))
    resumed.catch_up(after, singly(after), once.glances, alone=once.alone)
    live.begin(once.losses)
    resumed.begin(once.losses)
    one, other = (makes.propose(after, singly(after)) for makes in (live, resumed))
    assert one.glances == other.glances
    assert keys(one.proposals) == keys(other.proposals)
    assert torch.equal(one.losses, other.losses)


@pytest.mark.parametrize("journalled", [1, 2, 3])
def test_what_catches_up_knows_the_same_after_sets_that_shrank(found, monkeypatch, journalled):
    """Many sets take gradients of more images than one unit does, and so give other scores."""
    monkeypatch.setattr(ranking_file, "FIRST_SHARE", 0.5)
    state, _, images = found
    live, resumed = proposing(images), proposing(images)
    before = rank(state, images, METRICS).losses
    for makes in (live, resumed):
        makes.begin(before)
    asked = [singly(state, 8, 3), singly(state, 8, 2), singly(state, 1), singly(state, 1)]
    for number, propose in enumerate(asked):
        made = live.propose(state, propose)
        if number < journalled:
            resumed.catch_up(state, propose, made.glances, alone=made.alone)
        else:
            got = resumed.propose(state, propose)
    assert keys(got.proposals) == keys(made.proposals)
    for metric, score in live._ranking.scores.items():
        assert torch.equal(resumed._ranking.scores[metric], score)
