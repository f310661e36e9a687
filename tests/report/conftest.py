import math
from dataclasses import replace
from pathlib import Path

import pytest

from slimnet.records.commands import Report
from slimnet.records.data import Frozen
from slimnet.records.measured import (
    Artefacts,
    Confirmation,
    ConfirmationTest,
    Drop,
    Latency,
    OnnxFile,
    Parity,
    Size,
)
from slimnet.records.search import (
    Agreement,
    Candidate,
    Comparison,
    LayerProfile,
    MeasuredGroup,
    MeasuredTable,
    MetricAgreement,
    Step,
    Trajectory,
)


def drop_of(points, images):
    return Drop(92.4, 92.4 - points, points, points - 1.25, points + 1.25, 0.95, images)


def latency_of(batch, original, slim, low, high, threads=1):
    return Latency(
        runtime="onnxruntime-cpu",
        threads=threads,
        batch_size=batch,
        original_samples_ms=(original, original),
        slim_samples_ms=(slim, slim),
        original_median_ms=original,
        slim_median_ms=slim,
        speedup=original / slim,
        speedup_low=low,
        speedup_high=high,
        measurable=not low <= 1 <= high,
    )


@pytest.fixture
def report():
    candidate = Candidate("taylor_first_order", {"conv1": (0, 3)}, math.nan, 16)
    step = Step(1, (candidate,), (0,), 2, 58.0, 50.0, 1.25, drop_of(4.4, 500), True, False, 0.5)
    parity = Parity(1e-6, 1e-4, 3)
    return Report(
        schema_version=2,
        slimnet_version="0.1.0",
        command="slimnet compress /home/ada/nets/model.pt --data '/home/ada/my val' --max-drop 6",
        source="/home/ada/nets/model.pt",
        source_sha256=None,
        plan_sha256="abc",
        settings={"max_drop": 6.0, "calibration_data": "/home/ada/calibration", "size": None},
        data={"preprocessing": {"mean": (0.5, 0.5)}, "source": "split 3/4 of https://host/x"},
        environment={"python": "3.11"},
        frozen=(Frozen("head", 10, "it is the output layer"),),
        channels_per_layer={"conv1": (16, 14), "head": (10, 10)},
        trajectory=Trajectory(
            (step,),
            1,
            "the next step is over budget.",
            {"conv1": {"out": (0,)}},
            latency_table=MeasuredTable(
                "onnxruntime-cpu, threads 1",
                (8, 16),
                (LayerProfile({"conv1": (3, 16), "head": (16, 10)}, {"conv1": 0.3, "": 0.1}),),
            ),
        ),
        original_size=Size(11_689_512, 99_999, 1_814_000_000),
        slim_size=Size(4_900_000, 40_000, 752_000_000),
        verdict="confirmed",
        selection_drop=replace(drop_of(4.4, 500), confidence=0.5),
        confirmation_drop=drop_of(4.1, 1000),
        confirmation=Confirmation(
            "Tango's score test",
            1000,
            "f" * 64,
            2.5,
            "",
            (ConfirmationTest(1, "slim.onnx", 58.0, 4.4, drop_of(4.1, 1000), 0.03, True),),
        ),
        masked_slim=parity,
        artefacts=Artefacts(
            OnnxFile(Path("/tmp/a/original.onnx"), 46_800_000, "d", 20, {1: parity}),
            OnnxFile(Path("/tmp/a/slim.onnx"), 950, "e", 20, {1: parity, 3: parity}),
            parity,
            {"slim.onnx": "e"},
        ),
        latency=(
            latency_of(1, 1.2345, 0.5, 2.4, 2.5),
            latency_of(8, 12.5, 12.4, 0.97, 1.04, threads=4),
            latency_of(32, 100.0, 120.0, 0.8, 0.9),
        ),
        notes=("[test] images were few.",),
        seconds={"search": 12.5, "total": math.inf},
    )


@pytest.fixture
def by_verdict(report):
    """Return reports of one network: each with another outcome of the confirmation."""
    same = replace(drop_of(0.0, 1000), lower_points=-0.3, upper_points=0.3)
    (test,), (step,) = report.confirmation.tests, report.trajectory.steps
    failed = replace(test, drop=drop_of(5.9, 1000), p_value=0.2, confirmed=False)
    whole = replace(
        report, slim_size=report.original_size, selection_drop=replace(same, confidence=0.5),
        confirmation_drop=same, channels_per_layer={"conv1": (16, 16), "head": (10, 10)},
    )  # fmt: skip
    return {
        "confirmed": report,
        "estimated": replace(
            report, verdict="estimated", confirmation=None, confirmation_drop=None,
            settings=report.settings | {"confidence": 0.5},
        ),
        "missed": replace(
            whole, verdict="missed", confirmation=replace(report.confirmation, tests=(failed,)),
            trajectory=Trajectory(
                (replace(step, taken_back=True),), 0, "the safest state was not confirmed", {}
            ),
        ),
        "unchanged": replace(
            whole, verdict="unchanged", confirmation=replace(report.confirmation, tests=()),
            trajectory=Trajectory((), 0, "nothing can go", {}),
        ),
    }  # fmt: skip


@pytest.fixture
def comparison():
    none = Agreement(None, None)
    layers = {"a": Agreement(-0.5, -0.4), "b": Agreement(0.7, 0.6)}
    worst = MetricAgreement(
        "l1_weight", Agreement(-0.25, -0.2), layers, Agreement(0.1, 0.1), 5.0, 0.04
    )
    better = {"a": Agreement(0.9, 0.8), "b": none}
    best = MetricAgreement(
        "taylor_second_order", Agreement(0.8, 0.7), better, Agreement(0.9, 0.8), 50.0, 2
    )
    flat = MetricAgreement("apoz", none, {"a": none, "b": none}, none, 10.0, 1.0)
    return Comparison(
        schema_version=1, slimnet_version="0.1.0", source="/home/me/<net>.pt", source_sha256=None,
        data="data.npz", settings={"seed": 0}, repaired=False, images=1_024, loss_nats=0.5,
        units=40, units_measured=20, lowest=2, metrics=(worst, best, flat),
        left_out={"mutual_information": "it needs classes"},
        oracle_halves=Agreement(0.95, 0.9),
        groups={
            "a": MeasuredGroup(("conv1", "[red].conv"), 16, {0: 0.25, 3: None}),
            "b": MeasuredGroup(("conv2",), 2, {0: -0.1, 1: 0.0}),
        },
        oracle_seconds=12.3, environment={"torch": "2"}, seconds=20.0,
    )  # fmt: skip
