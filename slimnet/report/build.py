"""The report of a finished run, put together from what its stages found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

from torch import nn

from slimnet.export import plan_sha256
from slimnet.groups import output_channels
from slimnet.measure import measure_size
from slimnet.records import (
    Artefacts,
    Drop,
    Frozen,
    Inputs,
    Int8,
    Latency,
    LoadedModel,
    Parity,
    PredictionCheck,
    Report,
    Splits,
    Trajectory,
)
from slimnet.report.baseline import Baseline, baseline_notes
from slimnet.report.environment import environment
from slimnet.report.facts import data_summary, resumption_notes, score_notes, warnings_for
from slimnet.report.goals import evaluate_goals
from slimnet.settings import Settings

SCHEMA_VERSION = 1


def build_report(
    *,
    command: str,
    settings: Settings,
    splits: Splits,
    loaded: LoadedModel,
    slim: nn.Module,
    example: Inputs,
    frozen: Sequence[Frozen],
    trajectory: Trajectory,
    selection_drop: Drop,
    test_drop: Drop,
    masked_slim: Parity,
    artefacts: Artefacts,
    timed: Sequence[Latency],
    prediction: PredictionCheck | None,
    seconds: Mapping[str, float],
    baseline: Baseline | None = None,
    int8: Int8 | None = None,
    run_sha256: str | None = None,
) -> Report:
    """Return the report; neither network is changed.

    Goals are judged, also against ``baseline``. Of ``timed`` it tells the batch sizes that the
    settings ask for: others served the check of the prediction. The
    rest means what the fields of ``Report`` mean.
    """
    left = output_channels(slim)
    report = Report(
        schema_version=SCHEMA_VERSION,
        slimnet_version=version("slimnet"),
        command=command,
        source=loaded.source,
        source_sha256=loaded.sha256,
        plan_sha256=plan_sha256(trajectory.plan),
        settings=settings.as_dict(),
        data=data_summary(splits),
        environment=environment(),
        frozen=tuple(frozen),
        channels_per_layer={
            name: (channels, left[name]) for name, channels in output_channels(loaded.model).items()
        },
        trajectory=trajectory,
        original_size=measure_size(loaded.model, example),
        slim_size=measure_size(slim, example),
        selection_drop=selection_drop,
        test_drop=test_drop,
        masked_slim=masked_slim,
        artefacts=artefacts,
        latency=tuple(t for t in timed if t.batch_size in settings.latency_batch),
        notes=(
            *trajectory.notes,
            *loaded.notes,
            *warnings_for(selection_drop, test_drop, settings, prediction),
            *score_notes(selection_drop, trajectory),
            *resumption_notes(trajectory),
        ),
        seconds=seconds,
        prediction=prediction,
        int8=int8,
        run_sha256=run_sha256,
    )
    return replace(
        report,
        notes=(*report.notes, *baseline_notes(report, baseline)),
        goals=evaluate_goals(report, baseline),
    )
