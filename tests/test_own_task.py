"""Segmentation end to end: a user's own loss and score, from Python and from the command."""

import json
import sys

import numpy
import onnxruntime
import pytest
import safetensors.torch
import torch

import slimnet
from slimnet.cli.app import run
from slimnet.report.summary import summary_lines
from slimnet.report.tables import result_table

OPTIONS = {
    "objective": "params", "oracle_k": 3, "step": 3, "latency_samples": 10, "latency_batch": (1,),
    "metrics": ("taylor_first_order", "mean_square_weight"),
}  # fmt: skip

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional


def convolution(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Concatenation, a transposed convolution, and the mask's scores alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second = convolution(1, 6), convolution(6, 8)
        self.up, self.last = nn.ConvTranspose2d(8, 6, 2, stride=2), convolution(12, 6)
        self.head = nn.Conv2d(6, 2, 1)

    def scores(self, image):
        fine = self.first(image)
        coarse = self.second(functional.max_pool2d(fine, 2))
        return self.head(self.last(torch.cat([fine, self.up(coarse)], 1))), coarse

    def forward(self, image):
        return self.scores(image)[0]


class WithAux(UNet):
    """Two inputs and a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.aux = nn.Conv2d(8, 2, 1)

    def forward(self, image, gain):
        out, coarse = self.scores(image * gain)
        return {"out": out, "aux": functional.interpolate(self.aux(coarse), scale_factor=2.0)}


def items(first=0, count=96):
    """Bright squares in noise, and where they are."""
    generator = torch.Generator().manual_seed(first)
    made = []
    for _ in range(count):
        mask = torch.zeros(8, 8, dtype=torch.int64)
        row, column = torch.randint(0, 5, (2,), generator=generator).tolist()
        mask[row : row + 4, column : column + 4] = 1
        image = mask[None] + 0.4 * torch.randn(1, 8, 8, generator=generator)
        made.append({"image": image, "gain": torch.ones(1, 1, 1), "mask": mask})
    return made


def outputs(model, batch):
    if type(model).__name__ == "UNet":
        return {"out": model(batch["image"])}
    return model(batch["image"], gain=batch["gain"])


def loss(model, batch):
    found = outputs(model, batch).values()
    return sum(functional.cross_entropy(scores, batch["mask"]) for scores in found)


def score(model, batches):
    both = either = 0
    for batch in batches:
        answer, mask = outputs(model, batch)["out"].argmax(1), batch["mask"]
        both += ((answer == 1) & (mask == 1)).sum()
        either += ((answer == 1) | (mask == 1)).sum()
    return 100 * float(both / either)
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The user's file, imported as a module of its own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "segmentation.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    import segmentation

    yield segmentation
    sys.path.remove(str(folder))
    del sys.modules["segmentation"]


def trained(own, network):
    torch.manual_seed(0)
    model = network().train()
    batch = torch.utils.data.default_collate(own.items(1, 64))
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(40):
        optimizer.zero_grad()
        own.loss(model, batch).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def unet(own):
    return trained(own, own.UNet)


@pytest.fixture(scope="module")
def slimmed(own, unet, tmp_path_factory):
    out = tmp_path_factory.mktemp("unet") / "slim"
    task = slimnet.Task(loss=own.loss, score=own.score)
    return slimnet.compress(unet, own.items(), 5, task=task, out=out, **OPTIONS), out


def test_a_u_net_becomes_smaller_within_the_budget_of_its_score(own, unet, slimmed):
    result, out = slimmed
    report = json.loads((out / "report.json").read_text())
    drop = report["confirmation_drop"]
    assert result.report.slim_size.parameters < 0.7 * result.report.original_size.parameters
    assert report["verdict"] == "confirmed"
    assert drop["points"] < drop["upper_points"] <= 5
    assert report["selection_drop"]["points"] == report["selection_drop"]["upper_points"] <= 5
    assert drop["quantity"] == "score"
    assert drop["bounds"].startswith("Student's t over the drops of 16 batches")
    assert drop["original_percent"] > 90
    split = report["data"]["images"]
    assert split == {"calibration": 32, "selection": 16, "confirmation": 48}
    # the upsampling and the skip connection both lost channels
    assert result.model.up.out_channels < 6
    assert result.model.last[0].in_channels < 12
    assert report["masked_slim"]["relative_error"] <= 1e-8


def test_onnx_and_weights_of_the_slim_u_net_are_the_network(own, unet, slimmed):
    result, out = slimmed
    image = torch.stack([item["image"] for item in own.items(2, 3)])
    with torch.no_grad():
        expected = result.model(image)
    session = onnxruntime.InferenceSession(str(out / "slim.onnx"))
    got = session.run(["output"], {"input": image.numpy()})[0]
    assert numpy.abs(got - expected.numpy()).max() < 1e-3
    again = slimnet.apply_plan(own.UNet(), slimnet.load_plan(out / "plan.json")).eval()
    again.load_state_dict(safetensors.torch.load_file(out / "slim.safetensors"), strict=True)
    with torch.no_grad():
        assert torch.equal(again(image), expected)


def test_the_report_speaks_of_the_score(slimmed):
    report = slimmed[0].report
    text = "\n".join(summary_lines(report))
    assert "Estimate: score went from 9" in text
    assert "the confirmation is Student's t-test over the drops of batches; approximate" in text
    assert "ccuracy" not in text
    assert "the 90 % interval of a drop" in result_table(report).caption


def test_several_inputs_and_a_dict_of_outputs(own, tmp_path):
    model = trained(own, own.WithAux)
    task = slimnet.Task(loss=own.loss, score=own.score)
    changes = {**OPTIONS, "confidence": 0.5}
    result = slimnet.compress(model, own.items(), 5, task=task, out=tmp_path / "slim", **changes)
    assert result.report.slim_size.parameters < result.report.original_size.parameters
    session = onnxruntime.InferenceSession(str(tmp_path / "slim" / "slim.onnx"))
    assert [value.name for value in session.get_inputs()] == ["image", "gain"]
    assert [value.name for value in session.get_outputs()] == ["out", "aux"]
    image, gain = torch.randn(3, 1, 8, 8), torch.rand(3, 1, 1, 1)
    with torch.no_grad():
        expected = result.model(image, gain)
    got = session.run(["out", "aux"], {"image": image.numpy(), "gain": gain.numpy()})
    for name, array in zip(("out", "aux"), got, strict=True):
        assert numpy.abs(array - expected[name].numpy()).max() < 1e-3
    checked = slimnet.verify(tmp_path / "slim", model=trained(own, own.WithAux)).checks
    assert [check.name for check in checked if not check.holds] == []
    program = torch.export.load(tmp_path / "slim" / "slim.pt2").module()
    assert torch.allclose(program(image, gain)["aux"], expected["aux"], atol=1e-4)


def test_the_command_takes_the_task_from_a_file(own, unet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seg.py").write_text(SOURCE)
    torch.save(unet.state_dict(), "weights.pt")
    command = [
        "compress", "weights.pt", "--arch", "seg.py:UNet", "--data", "seg.py:items", "--task",
        "seg.py", "--objective", "macs", "--oracle-k", "2", "--latency-batch", "1",
        "--latency-samples", "10", "--confidence", "0.5", "--metrics", "mean_square_weight",
        "--max-drop", "3",
    ]  # fmt: skip
    assert run(command) == 0
    report = json.loads((tmp_path / "slim" / "report.json").read_text())
    assert report["settings"]["task"] == "seg.py"
    assert "--task seg.py" in report["command"]
    assert report["selection_drop"]["points"] <= 3
    assert "score" in capsys.readouterr().out


def test_bad_tasks_are_told_in_one_line(own, unet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seg.py").write_text(SOURCE.replace("def score(", "def other("))
    torch.save(unet.state_dict(), "weights.pt")
    command = ["compress", "weights.pt", "--arch", "seg.py:UNet", "--data", "seg.py:items"]
    assert run([*command, "--task", "seg.py"]) == 2
    assert "must define the functions" in capsys.readouterr().err
    (tmp_path / "seg.py").write_text(SOURCE.replace("100 * float(", "float("))
    assert run([*command, "--task", "seg.py"]) == 2
    error = capsys.readouterr().err
    assert "in points, 0 to 100" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "slim").exists()


def test_without_a_task_the_same_network_is_refused_as_no_classifier(own, unet):
    images = [(item["image"], 0) for item in own.items()]
    with pytest.raises(slimnet.InputError, match="give --task"):
        slimnet.compress(unet, images, 5)


def test_mutual_information_needs_classes(own, unet):
    task = slimnet.Task(own.loss, own.score)
    with pytest.raises(slimnet.InputError, match="mutual_information compares"):
        slimnet.compress(unet, own.items(), task=task, metrics=("mutual_information",))


def test_the_html_report_speaks_of_the_score(slimmed):
    page = (slimmed[1] / "report.html").read_text(encoding="utf-8")
    assert "Score against weights removed" in page
    assert "ccuracy" not in page


def test_a_finished_folder_is_verified_but_for_its_score(slimmed, own):
    assert all(check.holds for check in slimnet.verify(slimmed[1]).checks)
    with pytest.raises(slimnet.InputError, match="only a drop of accuracy"):
        slimnet.verify(slimmed[1], data=own.items())
