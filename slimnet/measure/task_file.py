"""The task that a run is for: classification, the user's own, or one in the user's file."""

from __future__ import annotations

from pathlib import Path

from slimnet.errors import InputError
from slimnet.load.importing import import_file
from slimnet.measure.classification import AGREEMENT, CLASSIFICATION
from slimnet.measure.task import Task
from slimnet.settings import Settings

FUNCTIONS = {"loss": "loss(model, batch)", "score": "score(model, batches)"}


def choose_task(given: object, settings: Settings) -> Task:
    """Return the task given, else the one in the file that the settings name, else classification.

    Raises:
        InputError: what is given is none, or the file does not define ``loss`` and ``score``.
    """
    if settings.labels == "none":
        if given is not None or settings.task is not None:
            raise InputError(
                "labels none is for classification, where the original's answers can stand for "
                "them; got a task too: leave one of them out"
            )
        return AGREEMENT
    if isinstance(given, Task):
        return given
    if given is not None and settings.task is None:
        raise InputError(
            f"task is slimnet.Task(loss=..., score=...) or a file that defines both; got a "
            f"{type(given).__name__}"
        )
    if settings.task is None:
        return CLASSIFICATION
    if not settings.task.endswith(".py"):
        raise InputError(
            "task is a Python file that defines loss and score, such as task.py (without a "
            f"function's name); got {settings.task!r}"
        )
    module = import_file(Path(settings.task))
    if missing := [name for name in FUNCTIONS if not callable(getattr(module, name, None))]:
        raise InputError(
            f"{settings.task} must define the functions {' and '.join(FUNCTIONS.values())}; "
            f"{' and '.join(missing)} is not there"
        )
    return Task(module.loss, module.score)
