"""Who may still win a race: what was measured, and what the images that are left could turn."""

from __future__ import annotations

import torch

from slimnet.search.race import still_open

HARD = torch.full((4,), 2.0)


def changes(*values):
    return [torch.tensor(values, dtype=torch.float64)]


def test_a_loss_that_is_no_number_never_wins():
    seen = [changes(float("nan")), changes(1.0), changes(-1.0)]
    assert still_open([0, 1, 2], seen, [1.0, 1.0, 1.0], HARD[:1], likelihoods=True) == [2]
    assert still_open([0], seen, [1.0, 1.0, 1.0], HARD, likelihoods=True) == []


def test_a_candidate_stays_while_changes_as_large_as_the_last_could_turn_it():
    seen = [changes(1.0, 1.0), changes(0.0, 0.0)]
    assert still_open([0, 1], seen, [1.0, 1.0], HARD, likelihoods=True) == [0, 1]
    assert still_open([0, 1], seen, [1.0, 1.0], HARD[:3], likelihoods=True) == [1]
    assert still_open([0, 1], seen, [1.0, 0.1], HARD[:3], likelihoods=True) == [1]


def test_images_that_are_nearly_certain_cannot_turn_anything():
    seen = [changes(0.1, 0.1), changes(0.0, 0.0)]
    for loss, expected in ((0.5, [0, 1]), (1e-3, [1])):
        losses = torch.cat([HARD[:2], torch.full((100,), loss)])
        assert still_open([0, 1], seen, [1.0, 1.0], losses, likelihoods=True) == expected
        # of any other loss nothing is known
        assert still_open([0, 1], seen, [1.0, 1.0], losses, likelihoods=False) == [0, 1]


def test_what_multiplies_the_odds_of_one_image_may_do_so_on_others_that_are_certain():
    losses = torch.cat([torch.tensor([2.0, 1e-3]), torch.full((100,), 5e-4)])
    # the leader gains much on the first image; the odds of the second become 50 times larger
    for second, expected in ((0.05, [0, 1]), (0.0, [1])):
        seen = [changes(0.0, 0.0), changes(-0.5, second)]
        assert still_open([0, 1], seen, [1.0, 1.0], losses, likelihoods=True) == expected


def test_a_loss_cannot_fall_below_zero():
    """Where losses are next to nothing, nothing can be gained, whatever changed before."""
    losses = torch.cat([HARD[:2], torch.full((100,), 1e-3)])
    seen = [changes(6.0, -5.0), changes(0.0, 0.0)]
    assert still_open([0, 1], seen, [1.0, 1.0], losses, likelihoods=True) == [1]


def test_two_that_are_equal_both_stay():
    seen = [changes(0.1, 0.1), changes(0.1, 0.1)]
    assert still_open([0, 1], seen, [1.0, 1.0], HARD, likelihoods=True) == [0, 1]


def test_a_total_that_may_still_change_its_sign_is_priced_as_what_it_may_become():
    """A gain is worth more the more it saves: the rest of the losses can make one of the first."""
    losses = torch.cat([HARD[:2], torch.full((100,), 1e-4)])
    seen = [changes(0.0, 1e-4), changes(0.0, -1e-3)]
    assert still_open([0, 1], seen, [1e4, 1e4], losses, likelihoods=True) == [0, 1]


def test_what_has_become_hard_meanwhile_counts_by_its_odds():
    """Glances find losses that have risen, when the race has its first images already."""
    seen = [changes(1e-4, 1e-4), changes(0.0, 0.0)]
    for loss, expected in ((2.0, [0, 1]), (1e-3, [1])):
        losses = torch.tensor([1e-3, 1e-3, loss])
        assert still_open([0, 1], seen, [1.0, 1.0], losses, likelihoods=True) == expected
