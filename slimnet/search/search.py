"""The search: metrics propose candidates, the oracle measures them, the budget ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from slimnet.execution import MemoryBudget, choose_layout, lay_out
from slimnet.groups import Branch, Group
from slimnet.options import ESTIMATE, SearchOptions
from slimnet.records import Drop, Split, Splits, Step, Trajectory
from slimnet.repair import TeacherOutputs
from slimnet.search.budget_search import BudgetSearch
from slimnet.search.evaluate import CandidateEvaluator, Refits
from slimnet.search.images import ImageSets, lay_out_sets
from slimnet.search.journal import Journal, fingerprint
from slimnet.search.latency_table import LayerTimer
from slimnet.search.objective import Objective, choose_objective
from slimnet.search.oracle import Oracle
from slimnet.search.path import EmptyPath, SearchPath, unchanged_state
from slimnet.search.recovery import AccuracyEvaluator, EvaluatedState, Recovery
from slimnet.search.rounds import RoundSearch
from slimnet.search.sets import SetSearch
from slimnet.search.state import State, first_state
from slimnet.search.steps import StepRecords
from slimnet.tasks import CLASSIFICATION, Task

Progress = Callable[["str | Step"], None]
NOTHING_TO_SLIM = "no layer of this network can be slimmed; each one's reason is in the report"


def search_path(
    model: nn.Module,
    groups: Sequence[Group],
    splits: Splits,
    options: SearchOptions,
    progress: Progress | None = None,
    time_layers: LayerTimer | None = None,
    journal_file: Path | None = None,
    task: Task = CLASSIFICATION,
    branches: Sequence[Branch] = (),
    *,
    keeps_path: bool = True,
    impossible: str = "",
) -> SearchPath | EmptyPath:
    """Find which channels can go within the budget; the model is not changed.

    In rounds, every group is measured at several widths, and the combination that saves most for
    what it costs goes; see ``RoundSearch``. With ``step``, the cheapest set of units goes, again
    and again; see ``SetSearch``. What breaks the budget is taken back. At the end the network is
    recovered once more, and the search goes on if this makes room in the budget.

    Args:
        model: the trained network, in eval mode.
        groups: from ``find_groups``, in the original numbering.
        splits: calibration for saliency and oracle, selection for the budget.
        options: the sections that the search reads.
        progress: called with every step, with a sentence while a table of trials is measured that
            takes long, and with one where an interrupted search is resumed; the steps of that one
            are then reported again first.
        time_layers: returns the milliseconds of each layer, for the latency objective.
        journal_file: keeps the measurements. The same search, interrupted at any moment, resumes
            from there, and ends with the same plan and weights.
        task: what the network is for.
        branches: those that may go, from ``find_branches``.
        keeps_path: whether states before the last one are kept, to be confirmed.
        impossible: why nothing that is found could be shipped; nothing is searched then.

    Returns:
        The states that the search may end with.

    Raises:
        InputError: the loss of the network is not a finite number.
    """
    layout = choose_layout(model, splits.calibration, task)
    selection = lay_out(splits.selection, None, layout, task, options.memory_bytes)
    original = task.measure(model, selection, ESTIMATE)
    unchanged = task.drop(original, original, ESTIMATE)
    if reason := impossible if groups else NOTHING_TO_SLIM:
        return EmptyPath(unchanged_state(model, unchanged, reason))
    images = lay_out_sets(model, splits.calibration, options, layout, task)
    progress = progress or (lambda _: None)
    journal = _open_journal(
        journal_file, model, groups, branches, images, selection, original, options, task
    )
    if journal.steps:
        progress(f"resuming after step {journal.steps} of an interrupted run")
    objective = choose_objective(
        model, groups, images.oracle.batches, options, time_layers, journal, task
    )
    memory = MemoryBudget(options.memory_bytes)
    state = first_state(
        model,
        groups,
        images.inverse_grams,
        repair=options.repair,
        memory_format=layout.memory_format,
        task=task,
        memory=memory,
    )
    teacher, quick_teacher = (
        TeacherOutputs(model, split.batches, task, memory)
        for split in (images.refit, images.quick_refit)
    )
    accuracy = AccuracyEvaluator(original, selection, options, state)
    evaluator = _evaluator(
        quick_teacher, state, images, objective, options, journal, branches, progress
    )
    recovery = Recovery(
        teacher, quick_teacher, images.training, options, _journalled(accuracy, journal)
    )
    steps = StepRecords(model, options.max_drop, progress, journal)
    best = EvaluatedState(state, unchanged)
    under_way: BudgetSearch
    if options.step is None:
        under_way = RoundSearch(evaluator, recovery, steps, options.max_drop, best, keeps_path)
    else:
        under_way = SetSearch(
            evaluator, recovery, steps, options.max_drop, best, keeps_path, options.step
        )
    del state, best, images  # frees their memory as soon as the search has no more use for them
    stopped_because = under_way.run()
    return SearchPath(under_way, stopped_because, journal)


def search(*arguments: Any, **named: Any) -> tuple[Trajectory, nn.Module]:
    """Return the trajectory and the slim network at the end of ``search_path``, without its path.

    It takes the same arguments.
    """
    last = search_path(*arguments, **named, keeps_path=False).last()
    return last.trajectory, last.network


def _evaluator(
    teacher: TeacherOutputs,
    state: State,
    images: ImageSets,
    objective: Objective,
    options: SearchOptions,
    journal: Journal,
    branches: Sequence[Branch],
    progress: Callable[[str], None],
) -> CandidateEvaluator:
    """Return what measures candidates: steps by the loss, rounds by distances, on fewer images."""
    if options.step is not None:
        oracle = Oracle(state, images.oracle)
        return CandidateEvaluator(objective, oracle, images.oracle.batches, options, journal)
    refits = Refits(teacher, images.distances.batches) if options.repair else None
    fewer = min(images.oracle, images.quick_refit, key=lambda split: split.images)
    return CandidateEvaluator(
        objective, Oracle(state, images.distances, state.running.folded_model), fewer.batches,
        options, journal, branches, refits, progress,
    )  # fmt: skip


def _open_journal(
    file: Path | None,
    model: nn.Module,
    groups: Sequence[Group],
    branches: Sequence[Branch],
    images: ImageSets,
    selection: Split,
    original: Any,
    options: SearchOptions,
    task: Task,
) -> Journal:
    """Return the journal of this very search, which may hold what an interrupted run measured."""
    if file is None:
        return Journal()
    # the journal holds no images: its key must depend on them
    splits = [*images.used, selection]
    return Journal(file, fingerprint(model, groups, branches, splits, original, options, task))


def _journalled(accuracy: AccuracyEvaluator, journal: Journal) -> Callable[[State], Drop]:
    """Return a function that measures the drop of a state, or reads it from the journal."""
    return lambda state: Drop(**journal.replay_or_run("drop", lambda: asdict(accuracy.drop(state))))
