"""The search: metrics propose, the oracle decides, the budget ends it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from slimnet.groups import Group
from slimnet.measure import CLASSIFICATION, Task
from slimnet.records import Drop, Splits, Step, Trajectory
from slimnet.recover import Targets
from slimnet.search.exchange import start_of_exchanges
from slimnet.search.fingerprint import fingerprint
from slimnet.search.image_sets import lay_out_sets
from slimnet.search.journal import Journal
from slimnet.search.judging import Judging
from slimnet.search.latency import LayerTimer
from slimnet.search.layout import choose_layout, lay_out
from slimnet.search.measuring import StepEvaluator
from slimnet.search.objective import choose_objective
from slimnet.search.oracle import Oracle
from slimnet.search.recovery import Judged, Recovery
from slimnet.search.state import State, first_state
from slimnet.search.walk import Walk
from slimnet.settings import Settings

Progress = Callable[["str | Step"], None]


def search(
    model: nn.Module,
    groups: Sequence[Group],
    splits: Splits,
    settings: Settings,
    progress: Progress | None = None,
    time_layers: LayerTimer | None = None,
    journal_file: Path | None = None,
    task: Task = CLASSIFICATION,
) -> tuple[Trajectory, nn.Module]:
    """Find which channels go within the budget; the model is not changed.

    Each step lets the metrics propose, measures every proposal and removes the one with the
    lowest loss increase for what it saves. A step that breaks the budget is taken back and
    something smaller is tried: sets of channels are halved; blocks become one width each, and a
    group whose next block breaks the budget is left as it is. With single channels the search
    looks a few steps further, since accuracy on a finite split is noisy, and goes back to the
    last step within the budget. What gives accuracy back is then tried once more on that network,
    and where it does, the search goes on from there; with blocks also where one is given back and
    another, which saves more, fits in its place.

    Args:
        model: the trained network, in eval mode.
        groups: from ``find_groups``, in the original numbering.
        splits: calibration for saliency and oracle, selection for the budget.
        settings: max_drop, confidence, metrics, objective, oracle_k, oracle_images, step,
            max_ratio, round_to, repair, runtime, threads and the dials of the fine-tuning are read.
        progress: called after every step, and in words where the search goes on from an
            interrupted one; that one's steps are told again first.
        time_layers: gives the milliseconds of each layer of a network, for the latency objective.
        journal_file: keeps what was measured. The same search, interrupted at any moment, goes on
            from there, and ends with the same plan and weights.
        task: what the network is for.

    Returns:
        The trajectory, and the slim network with its repaired weights.

    Raises:
        InputError: the loss of the network is not a finite number.
    """
    layout = choose_layout(model, splits.calibration, task)
    selection = lay_out(splits.selection, None, layout, task)
    before = task.measure(model, selection, settings.confidence)
    unchanged = task.drop(before, before, settings.confidence)
    hopeless = _hopeless(groups, unchanged, settings)
    if hopeless:
        return Trajectory((), 0, hopeless, {}), copy.deepcopy(model)
    sets = lay_out_sets(model, splits.calibration, settings, layout, task)
    progress, journal = progress or (lambda _: None), Journal()
    if journal_file is not None:
        # a task's one number says too little of the images that it was measured on
        own = [] if task.by_image else [selection]
        given = fingerprint(model, groups, [*sets.used, *own], before, settings, task)
        journal = Journal(journal_file, given)
    if journal.steps:
        progress(f"resuming after step {journal.steps} of an interrupted run")
    objective = choose_objective(
        model, groups, sets.oracle.batches, settings, time_layers, journal, task
    )
    state = first_state(
        model,
        groups,
        sets.moments,
        repair=settings.repair,
        memory_format=layout.memory_format if layout else torch.contiguous_format,
        task=task,
    )
    targets = Targets(model, sets.solving.batches, task)
    oracle = Oracle(state, sets.oracle)
    judging = Judging(before, selection, settings, groups, oracle.calls)

    def measure_drop(state: State) -> Drop:
        return Drop(**journal.once("drop", lambda: asdict(judging.drop(state))))

    measuring = StepEvaluator(objective, oracle, sets.oracle.batches, settings, journal)
    walk = Walk(
        original=model,
        objective=objective,
        measuring=measuring,
        recovery=Recovery(targets, sets.training, settings, measure_drop),
        settings=settings,
        progress=progress,
        first=start_of_exchanges(state) if objective.proposer.by_group else None,
        kept=Judged(state, unchanged),
        journal=journal,
    )
    del state, sets  # the walk keeps of them what it has use for, as long as it has
    walk.run()
    return _ended(walk)


def _ended(walk: Walk) -> tuple[Trajectory, nn.Module]:
    """Return what ``search`` does, from a walk at its end."""
    slim = walk.kept.state.model
    for parameter in slim.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        parameter.data = parameter.data.contiguous()
    predicted = walk.objective.prediction(slim) if walk.kept_steps else None
    trajectory = Trajectory(
        steps=tuple(walk.steps),
        kept_steps=walk.kept_steps,
        stopped_because=walk.ended,
        plan=walk.kept.state.plan,
        predicted=predicted,
        finished_by=walk.finished_by,
        fine_tunings=walk.recovery.fine_tunings,
        notes=walk.objective.notes,
        resumed_after_step=walk.journal.steps,
    )
    return trajectory, slim


def _hopeless(groups: Sequence[Group], unchanged: Drop, settings: Settings) -> str:
    """Return why no search is worth while, or an empty string."""
    if not groups:
        return "no layer of this network can be slimmed; each one's reason is in the report"
    if unchanged.upper_points > settings.max_drop:
        return (
            f"with {unchanged.images} selection images not even an unchanged network can be shown "
            f"to be within {settings.max_drop:g} points at {100 * settings.confidence:g} % "
            f"confidence (its bound is {unchanged.upper_points:.2f}); "
            "give more images, a larger --max-drop, or --confidence 0.5"
        )
    return ""
