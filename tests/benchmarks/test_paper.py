import argparse

import networks
import numpy as np
import paper
import pytest
import torch

from slimnet.execution.size import count_conv_weights

ROW = paper.ROWS[0]


def options(*arguments):
    parser = argparse.ArgumentParser()
    paper.add_options(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("lenet5", 26_500),
        ("cifar10net", 79_200),
        ("resnet20", 270_256),
        ("nin", 965_568),
        ("alexnet", 352_608),
    ],
)
def test_networks_are_as_large_as_they_say(name, weights):
    network = getattr(networks, name)(num_classes=10).eval()
    assert count_conv_weights(network) == weights
    assert f"{weights:,} convolution weights" in getattr(networks, name).__doc__
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        assert getattr(networks, name)(100)(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


def test_rows_are_chosen_by_name_in_the_papers_order():
    chosen = paper.chosen_rows(options("--rows", "nin_cifar100", "lenet5"))
    assert [(row.network, row.dataset) for row in chosen] == [
        ("lenet5", "cifar10"),
        ("nin", "cifar100"),
    ]
    assert len(paper.chosen_rows(options())) == 8


def test_missing_weights_and_data_are_named(tmp_path):
    with pytest.raises(paper.MissingError, match=r"no lenet5\.pt in --models"):
        paper.load_subject(ROW, options(), 0)
    (tmp_path / "lenet5.pt").write_bytes(b"no weights")
    with pytest.raises(paper.MissingError, match="no CIFAR-10 images: give --held-out"):
        paper.load_subject(ROW, options("--models", tmp_path), 0)
    with pytest.raises(paper.MissingError, match=r"lenet5\.pt"):
        paper.load_subject(ROW, options("--models", tmp_path, "--held-out", "x.npz"), 0)
    (tmp_path / "resnet20_cifar100.pt").write_bytes(b"no weights")
    with pytest.raises(paper.MissingError, match="no CIFAR-100 images: give --held-out-cifar100"):
        paper.load_subject(paper.ROWS[5], options("--models", tmp_path, "--held-out", "x.npz"), 0)


def test_another_seed_draws_other_images(tmp_path, monkeypatch):
    monkeypatch.setattr(paper.tasks, "require_better_than_chance", lambda *_: None)
    torch.save(networks.lenet5().state_dict(), tmp_path / "lenet5.pt")
    images = np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(120) % 10)
    given = options("--models", tmp_path, "--held-out", tmp_path / "images.npz")
    drawn = []
    for seed in (0, 0, 1):
        subject = paper.load_subject(ROW, given, seed)
        parts = (subject.splits.calibration, subject.splits.selection)
        drawn.append([next(iter(part.batches))[0] for part in parts])
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))
    assert subject.units == 70
    assert subject.drops(subject.model) == {"selection_drop_points": 0, "test_drop_points": 0}
