"""The whole story: load, find the groups, search within the budget, slim, prove, export, measure.

The only file that knows the order of the stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from slimnet import execution, export, groups, load, report, saliency, tasks, timing
from slimnet.data import load_splits
from slimnet.errors import InputError
from slimnet.options import Options, options_from
from slimnet.records import Result
from slimnet.search import read_latency_table, search_path


def compress(
    model: str | Path | nn.Module,
    data: Any = None,
    max_drop: float = Options.max_drop,
    *,
    out: str | Path | None = None,
    task: tasks.Task | str | Path | None = None,
    options: Options | Mapping[str, Any] | None = None,
    progress: report.Progress | None = None,
    **changes: Any,
) -> Result:
    """Slim a trained network within an accuracy budget, prove it, and write it for deployment.

    The model handed in is not changed; the result holds a slim copy.

    Args:
        model: a module, or the path of a model file (see README, "Formats in and out").
        data: a path, a Dataset of (input, label), three Datasets (calibration, held out, test),
            or Splits. With ``labels="none"`` the same without labels. For your own task: Datasets
            of the items that its functions take.
        max_drop: accuracy that may be lost, in percentage points, 0 to 100.
        out: folder for the artefacts; None writes nothing. If a run into it was killed, the same
            call goes on from its last step and ends with the same result.
        task: a Task, or a Python file that defines ``loss`` and ``score``. Not given: one-label
            classification.
        options: all options at once; ``max_drop`` and ``changes`` override them.
        progress: called with the name of each stage and with every Step of the search.
        **changes: any field of Options, by name. A missed goal raises nothing: the report's
            ``goals`` say which were met.

    Raises:
        InputError: the model, the data or an option cannot be used; nothing is written.
        ProofError: the files would not be the network that was measured; nothing is written.
    """
    own_task = isinstance(task, tasks.Task)
    if isinstance(task, (str, Path)):
        changes["task"] = task
    options = options_from(options, changes | {"max_drop": max_drop})
    task = tasks.choose_task(task, options)
    _require_usable(task, data, options)
    baseline = report.read_baseline(options, task.quantity)
    folder, run_sha256 = None if out is None else Path(out), None
    if folder is not None:
        export.check_output_folder(folder)
    if folder is not None and not own_task:
        content = report.content_sha256(model, data, options)
        run_sha256 = report.run_sha256(content, options, report.environment())
        earlier = report.earlier_report(folder, run_sha256) if options.cache else None
        if earlier is not None:
            slim = export.load_slim(folder, load.load_model(model, options).model)
            return Result(slim, export.load_plan(folder / "plan.json"), earlier, folder, True)
    with export.WorkFolder(folder) as work, TemporaryDirectory() as scratch:
        clock = report.StageClock(progress)
        return _compress(
            model, data, task, options, folder, work, Path(scratch), clock, baseline, run_sha256
        )


def _require_usable(task: tasks.Task, data: Any, options: Options) -> None:
    """Refuse options that do not fit the task or this machine, before anything is loaded.

    Raises:
        InputError: one does not fit, or there is no data.
    """
    saliency.require_metrics(options.metrics or ())
    if why := saliency.lacks_classes(task, options.metrics or ()):
        raise InputError(f"{why}; leave the metric out")
    timing.require_runtime(timing.RUNTIMES[options.runtime])
    if data is None:
        raise InputError(
            'no data given: name it with --data, or as data = "..." in slimnet.toml: a folder with '
            "one sub-folder a class, an .npz of images and labels, torchvision:NAME@ROOT, file.py:f"
        )


def _compress(
    model: str | Path | nn.Module,
    data: Any,
    task: tasks.Task,
    options: Options,
    folder: Path | None,
    work: export.WorkFolder,
    scratch: Path,
    clock: report.StageClock,
    baseline: report.Baseline | None,
    run_sha256: str | None,
) -> Result:
    """Run all stages, with arguments that ``compress`` has checked."""
    with clock("loading"):
        loaded = load.load_model(model, options)
        if options.latency_table is not None:  # read by the search: refused before the data
            read_latency_table(options.latency_table, loaded.model)
        splits = load_splits(
            data, options, loaded.model, by_image=task.by_image, confirm=options.confirms
        )
        example = task.check(loaded.model, splits)
        groups.require_unchanged(loaded, example)
        report.require_same_network(baseline, loaded, example)
        splits = execution.in_fitting_batches(loaded.model, splits, task)
        original = export.translate(loaded.model, example, options.opset, options.dynamic_size)
    with clock("measuring the original"):
        before = {
            split.name: task.measure(loaded.model, split, options.confidence_on(split.name))
            for split in splits.evaluated
        }
        task.require_worth(before["selection"], splits.selection)
        confirmation = None
        if splits.confirmation is not None:
            confirmation = export.plan_confirmation(
                task, before["confirmation"], splits.confirmation, options
            )
            clock.progress(report.power_note(confirmation, options))
    with clock("finding groups"):
        found, frozen = groups.find_groups(
            loaded.model, example, layers=options.layers, seed=options.seed
        )
        found, frozen = groups.keep_layers(found, frozen, options.keep)
        branches: list[groups.Branch] = []
        needed: groups.Needed = []
        if options.branches_may_go:
            branches, needed = groups.find_branches(
                loaded.model, found, example, keep=options.keep, seed=options.seed
            )
    journal_file = work.claim()
    with clock("searching"):
        path = search_path(
            loaded.model, found, splits, options, clock.progress,
            export.layer_timer(original, options), journal_file, task, branches,
            keeps_path=options.confirms or options.int8,
            impossible=confirmation.impossible if confirmation else "",
        )  # fmt: skip
    with clock("confirming"):
        confirmer = export.Confirmer(
            loaded.model, before.get("confirmation"), splits.confirmation, task, example, options,
            clock.progress,
        )  # fmt: skip
        make_int8 = partial(
            export.make_int8, scratch, example=example, task=task, splits=splits,
            original=before["selection"], options=options,
        )  # fmt: skip
        state, in_int8, tests = confirmer.choose(path, make_int8 if options.int8 else None)
    slim, trajectory = state.network, state.trajectory
    with clock("slimming and proving"):
        plan = trajectory.plan
        masked_slim = groups.prove_slim(loaded.model, slim, plan, example)
        drops, class_drops = tasks.drops(task, before, slim, splits, options)
    with work.staging() as staging:
        with clock("exporting and proving"):
            note = export.provenance(loaded.sha256, plan)
            note["drop_points"] = f"{report.stated_drop(drops).points:.4f}"
            inputs = task.inputs(loaded.model, next(iter(splits.calibration.batches)), 8)
            artefacts = export.write_artefacts(staging, original, slim, plan, inputs, note)
        with clock("measuring latency"):
            # the search's prediction is checked at the batch size of its layer times
            profiled = (export.PROFILE_IMAGES,) if trajectory.predicted else ()
            timed = timing.measure_speed(artefacts, loaded.model, slim, example, options, profiled)
            runtime = timing.RUNTIMES[options.runtime].long_name
            prediction = report.check_prediction(
                trajectory.predicted, timed, runtime, export.PROFILE_IMAGES
            )
        int8 = None
        if in_int8 is not None:
            with clock("measuring int8"):
                artefacts, int8 = export.ship_int8(
                    in_int8, artefacts, example, task, before, splits, options, note
                )
        record = report.build_report(
            command=report.command_line(loaded.source, _text(data), _text(folder), options),
            options=options, splits=splits, loaded=loaded, slim=slim, example=example,
            frozen=frozen, trajectory=trajectory, drops=drops,
            confirmation=report.with_outcomes(confirmation, tests, folder, options.baseline),
            masked_slim=masked_slim, artefacts=artefacts, timed=timed, prediction=prediction,
            seconds=clock.seconds, baseline=baseline, int8=int8, run_sha256=run_sha256,
            branches=branches, needed=needed, class_drops=class_drops,
        )  # fmt: skip
        report.save_report(record, staging / "report.json")
        report.save_html(record, staging / "report.html")
    return Result(slim, plan, record, folder)


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, Path)) else None
