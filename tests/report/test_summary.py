import dataclasses

from slimnet.records.data import Frozen
from slimnet.records.search import FineTuning, Trajectory
from slimnet.report.json_report import as_plain
from slimnet.report.summary import summary_lines


def test_verdict_speed_and_notes(report):
    lines = summary_lines(report)
    assert lines == [
        "Removed 58 % of the parameters, 60 % of the conv weights and 59 % of the MACs.",
        "Confirmed: at most 6 points of accuracy were lost, at 95 % confidence, on 1,000 images "
        "that decided nothing.",
        "Estimate: accuracy went from 92.40 % to 88.30 % on 1,000 confirmation images "
        "(−4.10 points, 90 % interval −5.35 to −2.85).",
        "The search ended because the next step is over budget.",
        "1 layer kept all channels; report.html says why.",
        "2.47 times as fast on onnxruntime-cpu, batch 1, 1 thread (95 % interval 2.40 to 2.50).",
        "Slimming did not make it measurably faster on onnxruntime-cpu, batch 8, 4 threads "
        "(95 % interval 0.97 to 1.04).",
        "Slimming made it slower on onnxruntime-cpu, batch 32, 1 thread: 0.83 times the speed "
        "(95 % interval 0.80 to 0.90).",
        "Note: [test] images were few.",
    ]


def test_nothing_removed_is_explained_layer_by_layer(report):
    unchanged = dataclasses.replace(
        report,
        slim_size=report.original_size,
        trajectory=Trajectory((), 0, "every step is over budget", {}),
        channels_per_layer={"conv1": (16, 16), "head": (10, 10)},
    )
    lines = summary_lines(unchanged)
    assert lines == [
        "Nothing was removed: every step is over budget.",
        "  head (10 channels): it is the output layer",
        "  conv1 (16 channels): no removal of its channels was tried",
        "Note: [test] images were few.",
    ]


def test_test_images_have_an_estimate_of_their_own(report):
    other = dataclasses.replace(report.drop, points=4.2, slim_percent=88.2, images=2000)
    lines = summary_lines(dataclasses.replace(report, test_drop=other))
    assert lines[2].startswith("Estimate: accuracy went from 92.40 % to 88.30 % on 1,000 conf")
    assert lines[3] == (
        "Estimate: accuracy went from 92.40 % to 88.20 % on 2,000 test images "
        "(−4.20 points, 90 % interval −5.35 to −2.85)."
    )


def test_a_network_of_which_nothing_can_go_says_so_first_and_loudly(report):
    frozen = (Frozen("head", 10, "it is the output layer"), Frozen("conv1", 16, "a shuffle"))
    stuck = dataclasses.replace(
        report,
        slim_size=report.original_size,
        trajectory=Trajectory((), 0, "nothing was proposed", {}),
        channels_per_layer={"conv1": (16, 16), "head": (10, 10)},
        frozen=frozen,
    )
    first, *reasons = summary_lines(stuck)
    assert first.startswith("NOTHING CAN BE REMOVED from this network")
    assert reasons[:2] == [
        "  head (10 channels): it is the output layer", "  conv1 (16 channels): a shuffle"
    ]  # fmt: skip


def test_search_without_a_reason_for_its_end(report):
    silent = dataclasses.replace(report, trajectory=Trajectory((), 0, "", {}))
    assert not any("because" in line for line in summary_lines(silent))
    unchanged = dataclasses.replace(silent, slim_size=report.original_size)
    assert summary_lines(unchanged)[0] == "Nothing was removed."


def test_network_without_convolutions(report):
    linear = dataclasses.replace(
        report,
        original_size=dataclasses.replace(report.original_size, conv_weights=0),
        slim_size=dataclasses.replace(report.slim_size, conv_weights=0),
    )
    assert summary_lines(linear)[0] == "Removed 58 % of the parameters and 59 % of the MACs."


def test_the_images_of_each_split_are_counted(report):
    data = {
        "images": {"calibration": 2048, "selection": 100, "confirmation": 300},
        "description": "From x.",
    }
    lines = summary_lines(dataclasses.replace(report, data=data))
    assert "Images: 2,048 calibration, 100 selection, 300 confirmation. From x." in lines


def test_rounds_of_fine_tuning_are_counted_with_those_undone(report):
    def tuning(why):
        return FineTuning((1.0, 0.5), 1.0, 0.9, 70, 10, ("mirror",), why)

    rounds = {1: tuning(""), 8: tuning("the loss rose"), 9: tuning("")}
    (step,) = report.trajectory.steps
    steps = (
        dataclasses.replace(step, recovered_by=("fine-tuning",)),
        dataclasses.replace(step, number=2, recovered_by=("fine-tuning",), taken_back=True),
    )
    search = dataclasses.replace(report.trajectory, steps=steps, kept_steps=2, fine_tunings=rounds)
    trained = dataclasses.replace(report, trajectory=search)
    assert (
        "Fine-tuning, 3 rounds: 1 in the result, 1 not used (no lower drop, or its step was "
        "taken back), 1 undone (the loss rose)."
    ) in summary_lines(trained)
    plain = as_plain(trained)["trajectory"]["fine_tunings"]
    assert plain["8"]["undone_because"] == "the loss rose"
