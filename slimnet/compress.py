"""The whole story: load, find the groups, search within the budget, slim, prove, export, measure.

The only file that knows the order of the stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from slimnet import export, groups, load, measure, report, saliency
from slimnet.errors import InputError
from slimnet.groups.keep import keep_layers
from slimnet.records import Result
from slimnet.search import search
from slimnet.settings import RUNTIMES, Settings, settings_from


def compress(
    model: str | Path | nn.Module,
    data: Any = None,
    max_drop: float = Settings.max_drop,
    *,
    out: str | Path | None = None,
    task: measure.Task | str | Path | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    progress: report.Progress | None = None,
    **dials: Any,
) -> Result:
    """Slim a trained network within an accuracy budget, prove it, and write it for deployment.

    The model handed in is not changed; the result holds a slim copy.

    Args:
        model: a module, or the path of a model file (see README, "Formats in and out").
        data: a path, a Dataset of (input, label), three Datasets (calibration, selection, test),
            or Splits; with ``labels="none"`` the same without labels; for a task of your own,
            Datasets of what its functions take.
        max_drop: accuracy that may be lost, in percentage points, 0 to 100.
        out: folder for the artefacts; None writes nothing. Where a run into it was killed, the same
            call goes on from its last step, and ends with the same result.
        task: what the network is for, if not one-label classification: a Task, or a Python file
            that defines ``loss`` and ``score``.
        settings: all dials at once; ``max_drop`` and ``dials`` go on top.
        progress: called with the name of each stage and with every Step of the search.
        **dials: any field of Settings, by name. A goal that is missed raises nothing: the
            report's ``goals`` tell.

    Raises:
        InputError: the model, the data or a dial cannot be used; nothing is written.
        ProofError: what would be written is not what was measured; nothing is written.
    """
    dials |= {"max_drop": max_drop, **({"task": task} if isinstance(task, (str, Path)) else {})}
    settings = settings_from(settings, dials)
    purpose = measure.choose_task(task, settings)
    saliency.require_metrics(settings.metrics or ())
    measure.require_classes(purpose, settings.metrics or ())
    measure.require_runtime(RUNTIMES[settings.runtime])
    if data is None:
        raise InputError(
            'no data given: name it with --data, or as data = "..." in slimnet.toml: a folder with '
            "one sub-folder a class, an .npz of images and labels, torchvision:NAME@ROOT, file.py:f"
        )
    baseline = report.read_baseline(settings, purpose.quantity)
    folder = None if out is None else Path(out)
    if folder is not None:
        export.check_output_folder(folder)
    run = None
    if folder is not None and not isinstance(task, measure.Task):
        run = report.run_sha256(load.content_sha256(model, data, settings), settings)
        if settings.cache and (found := report.earlier_report(folder, run)):
            slim = export.load_slim(folder, load.load_model(model, settings).model)
            return Result(slim, export.load_plan(folder / "plan.json"), found, folder, True)
    with export.WorkFolder(folder) as work:
        return _compress(model, data, purpose, settings, folder, work, report.StageClock(progress),
                         baseline, run)  # fmt: skip


def _compress(
    model: str | Path | nn.Module,
    data: Any,
    purpose: measure.Task,
    settings: Settings,
    folder: Path | None,
    work: export.WorkFolder,
    clock: report.StageClock,
    baseline: report.Baseline | None,
    run: str | None,
) -> Result:
    """Tell the story, which needs nothing more from the caller; see ``compress``."""
    with clock("loading"):
        loaded = load.load_model(model, settings)
        splits = load.load_splits(data, settings, loaded.model, by_image=purpose.by_image)
        example = purpose.check(loaded.model, splits)
        report.require_same_network(baseline, loaded, example)
        original = export.translate(loaded.model, example, settings.opset)
    with clock("measuring the original"):
        before = {s.name: purpose.measure(loaded.model, s, settings.confidence)
                  for s in (splits.selection, splits.test)}  # fmt: skip
        purpose.require_worth(before[splits.selection.name], splits.selection)
    with clock("finding groups"):
        found, frozen = groups.find_groups(
            loaded.model, example, layers=settings.layers, seed=settings.seed
        )
        found, frozen = keep_layers(found, frozen, settings.keep)
    with clock("searching"):
        trajectory, slim = search(
            loaded.model,
            found,
            splits,
            settings,
            clock.progress,
            export.layer_timer(original, settings),
            work.claim(),
            purpose,
        )
    with clock("slimming and proving"):
        plan = trajectory.plan
        masked_slim = groups.prove_slim(loaded.model, slim, plan, example)
        selection_drop, test_drop = (
            purpose.drop(before[s.name], purpose.measure(slim, s, settings.confidence),
                         settings.confidence)
            for s in (splits.selection, splits.test)
        )  # fmt: skip
    with work.staging() as staging:
        with clock("exporting and proving"):
            note = export.provenance(loaded.sha256, plan)
            note["test_drop_points"] = f"{test_drop.points:.4f}"
            inputs = purpose.inputs(loaded.model, next(iter(splits.calibration.batches)), 8)
            artefacts = export.write_artefacts(staging, original, slim, plan, inputs, note)
        with clock("measuring latency"):
            # what the search predicted is checked at the batch size of its layer times
            profiled = (export.PROFILE_IMAGES,) if trajectory.predicted else ()
            timed = measure.measure_speed(
                artefacts, loaded.model, slim, example, settings, profiled
            )
            prediction = report.check_prediction(
                trajectory.predicted, timed, RUNTIMES[settings.runtime], export.PROFILE_IMAGES
            )
        int8 = None
        if settings.int8:
            with clock("quantising to int8"):
                artefacts, int8 = export.try_int8(
                    artefacts, slim, example, purpose, before, splits, settings, note
                )
        record = report.build_report(
            command=report.command_line(loaded.source, _text(data), _text(folder), settings),
            settings=settings, splits=splits, loaded=loaded, slim=slim, example=example,
            frozen=frozen, trajectory=trajectory, selection_drop=selection_drop,
            test_drop=test_drop, masked_slim=masked_slim, artefacts=artefacts, timed=timed,
            prediction=prediction, seconds=clock.seconds, baseline=baseline, int8=int8,
            run_sha256=run,
        )  # fmt: skip
        report.save_report(record, staging / "report.json")
        report.save_html(record, staging / "report.html")
    return Result(slim, plan, record, folder)


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, Path)) else None
