"""A plan on another file of the same network: retrained, say. Nothing is searched or repaired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from slimnet import export, groups, load, report
from slimnet.errors import InputError
from slimnet.groups.proof import require_float64
from slimnet.measure import measure_size
from slimnet.records import Application, Applied, Artefacts, LoadedModel, Parity, PlanFile
from slimnet.settings import Settings, settings_from

SCHEMA_VERSION = 1
OWN_WEIGHTS = (
    "Nothing was repaired: the weights are the model's own, without what the plan removes, and no "
    "accuracy was measured."
)


def apply(
    plan: str | Path,
    model: str | Path | nn.Module,
    *,
    out: str | Path | None = None,
    input_shape: Sequence[int] | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    **dials: Any,
) -> Applied:
    """Remove a plan's channels from a model, prove it, and write it as ``compress`` would.

    The model handed in is not changed; the result holds a slim copy, with the model's own weights:
    no repair, no data, no search. (``apply_plan`` cuts a live network in place and proves nothing.)

    Args:
        plan: a folder that ``compress`` wrote, or a plan.json alone.
        model: a module of the network that the plan was made for, or the path of a model file.
        out: folder for the artefacts; None writes nothing.
        input_shape: the shape of one input, such as (3, 224, 224); None takes the plan's, or
            guesses it where that tells of none.
        settings: all dials at once; ``dials`` go on top. Only arch, arch_arg, allow, trust_pickle,
            opset and seed matter here.
        **dials: any field of Settings, by name.

    Raises:
        InputError: the plan or the model cannot be used, or the plan is of another network;
            nothing is written.
        ProofError: what would be written is not the model without these channels.
    """
    settings = settings_from(settings, dials)
    source = _plan_path(Path(plan))
    folder = None if out is None else _output(Path(out), source)
    planned = export.read_plan_file(source)
    loaded = load.load_model(model, settings)
    _require_fit(planned, loaded.model)
    shape = planned.input_shape if input_shape is None else input_shape
    example = load.made_up_inputs(loaded.model, shape, settings.seed)
    require_float64(loaded.model, example)
    slim = groups.slim_copy(loaded.model, planned.plan)
    proven = groups.prove_slim(loaded.model, slim, planned.plan, example)
    with export.WorkFolder(folder) as work:
        work.claim()
        with work.staging() as staging:
            note = export.provenance(loaded.sha256, planned.plan)
            original = export.translate(loaded.model, example, settings.opset)
            artefacts = export.write_artefacts(staging, original, slim, planned.plan, example, note)
            record = _record(planned, loaded, slim, example, proven, artefacts, shape is None)
            report.save_report(record, staging / "report.json")
    return Applied(slim, planned.plan, record, folder)


def _plan_path(plan: Path) -> Path:
    path = plan / "plan.json" if plan.is_dir() else plan
    if not path.is_file() or path.suffix != ".json":
        raise InputError(
            f"a plan is a folder that slimnet compress wrote, or the plan.json of one; {plan} is "
            "not: slimnet apply slim/plan.json model.pt --out FOLDER"
        )
    return path


def _output(out: Path, plan: Path) -> Path:
    """Return the output folder, once it is sure that it may be replaced."""
    if out.resolve() == plan.parent.resolve():
        raise InputError(
            f"the output folder is replaced whole, and the plan comes from {out}: choose another"
        )
    export.check_output_folder(out)
    return out


def _require_fit(planned: PlanFile, model: nn.Module) -> None:
    """Refuse a plan of another network, or of one that is slim already.

    Raises:
        InputError: it is; the message says in which layer they differ.
    """
    here = groups.channels_of(model, planned.plan)
    for name, counts in here.items():
        for side, count in counts.items():
            wanted = planned.channels.get(name, {}).get(side, count)
            if count != wanted:
                left = wanted - len(planned.plan[name][side])
                already = (
                    "the plan was applied to it already; give the network before slimming"
                    if count == left
                    else "it is another; give one of the architecture that the plan was made for"
                )
                raise InputError(
                    f"the plan is of a network whose layer {name!r} has {wanted:,} {side}put "
                    f"channels; in this one it has {count:,}: {already}"
                )


def _record(
    planned: PlanFile,
    loaded: LoadedModel,
    slim: nn.Module,
    example: Tensor,
    proven: Parity,
    artefacts: Artefacts,
    guessed: bool,
) -> Application:
    return Application(
        schema_version=SCHEMA_VERSION,
        slimnet_version=version("slimnet"),
        source=loaded.source,
        source_sha256=loaded.sha256,
        plan_sha256=export.plan_sha256(planned.plan),
        plan_source_sha256=planned.source_sha256,
        input_shape=tuple(example.shape[1:]),
        input_shape_guessed=guessed,
        original_size=measure_size(loaded.model, example),
        slim_size=measure_size(slim, example),
        masked_slim=proven,
        artefacts=artefacts,
        notes=(*loaded.notes, *_notes(planned, loaded)),
        environment=report.environment(),
    )


def _notes(planned: PlanFile, loaded: LoadedModel) -> Iterator[str]:
    if not any(indices for sides in planned.plan.values() for indices in sides.values()):
        yield "The plan removes nothing: the slim network is the original."
        return
    yield OWN_WEIGHTS
    if loaded.sha256 is not None and loaded.sha256 == planned.source_sha256:
        yield (
            "This is the very file that the plan was made for: the slim network of that run has "
            "repaired weights, unless that was switched off, and should be the better one."
        )
