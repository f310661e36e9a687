"""Apply a plan to another model file of the same network, for example a retrained one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from slimnet import data, export, groups, load, report
from slimnet.errors import InputError
from slimnet.execution import measure_size
from slimnet.groups import require_float64, require_unchanged
from slimnet.options import Options, options_from
from slimnet.records import Application, Applied, Artefacts, Inputs, LoadedModel, Parity, PlanFile

SCHEMA_VERSION = 2
OWN_WEIGHTS = (
    "Nothing was repaired: the slim network holds the model's own weights, without those that the "
    "plan removes. No accuracy was measured."
)


def apply(
    plan: str | Path,
    model: str | Path | nn.Module,
    *,
    out: str | Path | None = None,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    options: Options | Mapping[str, Any] | None = None,
    **changes: Any,
) -> Applied:
    """Remove a plan's channels from a model, prove it, and write it as ``compress`` would.

    The model handed in is not changed; the result holds a slim copy with the model's own weights.
    Nothing is searched or repaired, and no data is needed. (``apply_plan`` cuts a network in place
    and proves nothing.)

    Args:
        plan: a folder that ``compress`` wrote, or a plan.json alone.
        model: a module of the network that the plan was made for, or the path of a model file.
        out: folder for the artefacts; None writes nothing.
        input_shape: the shape of one input, such as (3, 224, 224), or one for each of several
            inputs; None takes the plan's, or guesses it if the plan has none.
        options: all options at once; ``changes`` go on top. Only arch, arch_arg, allow,
            trust_pickle, opset, dynamic_size and seed matter here.
        **changes: any field of Options, by name.

    Raises:
        InputError: the plan or the model cannot be used, or the plan is of another network;
            nothing is written.
        ProofError: the slim network is not the model without these channels; nothing is written.
    """
    options = options_from(options, changes)
    source = _plan_path(Path(plan))
    folder = None if out is None else _output(Path(out), source)
    planned = export.read_plan_file(source)
    loaded = load.load_model(model, options)
    _require_fit(planned, loaded.model)
    shape = planned.input_shape if input_shape is None else input_shape
    example = data.made_up_inputs(loaded.model, shape, options.seed)
    require_float64(loaded.model, example)
    require_unchanged(loaded, example)
    slim = groups.slim_copy(loaded.model, planned.plan)
    proven = groups.prove_slim(loaded.model, slim, planned.plan, example)
    with export.WorkFolder(folder) as work:
        work.claim()
        with work.staging() as staging:
            note = export.provenance(loaded.sha256, planned.plan)
            original = export.translate(loaded.model, example, options.opset, options.dynamic_size)
            artefacts = export.write_artefacts(staging, original, slim, planned.plan, example, note)
            record = _record(planned, loaded, slim, example, proven, artefacts, shape is None)
            report.save_report(record, staging / "report.json")
    return Applied(slim, planned.plan, record, folder)


def _plan_path(plan: Path) -> Path:
    path = plan / "plan.json" if plan.is_dir() else plan
    if not path.is_file() or path.suffix != ".json":
        raise InputError(
            f"a plan is a folder that slimnet compress wrote, or the plan.json in it; {plan} is "
            "neither: slimnet apply slim/plan.json model.pt --out FOLDER"
        )
    return path


def _output(out: Path, plan: Path) -> Path:
    """Return the output folder, after the check that it may be replaced."""
    if out.resolve() == plan.parent.resolve():
        raise InputError(
            f"the output folder would be replaced, and the plan comes from {out}: choose another"
        )
    export.check_output_folder(out)
    return out


def _require_fit(planned: PlanFile, model: nn.Module) -> None:
    """Check that the plan was made for this network, and is not applied to it yet.

    Raises:
        InputError: it was not; the message names a layer that differs.
    """
    for name, counts in groups.channels_of(model, planned.plan).items():
        for direction, count in counts.items():
            expected = planned.channels.get(name, {}).get(direction, count)
            if count == expected:
                continue
            advice = "it is another; give one of the architecture that the plan was made for"
            if count == expected - len(planned.plan[name][direction]):
                advice = "the plan was applied to it already; give the network before slimming"
            raise InputError(
                f"the plan is of a network whose layer {name!r} has {expected:,} {direction}put "
                f"channels; in this one it has {count:,}: {advice}"
            )


def _record(
    planned: PlanFile,
    loaded: LoadedModel,
    slim: nn.Module,
    example: Inputs,
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
        input_shape=data.shapes_of(example),
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
            "This is the file that the plan was made for. The slim network of that run has "
            "repaired weights, unless repair was switched off, and should be more accurate."
        )
