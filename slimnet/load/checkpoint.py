"""Find the weights in what a training saved, and load them onto their network, strictly."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from slimnet.errors import InputError
from slimnet.load.importing import first_line, listed, shown

# timm and Ultralytics, too, take the average before the last weights: it is what is evaluated
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")
PLAIN = ("state_dict", "model_state_dict", "model", "module", "network", "net", "params")
NESTED_UNDER = (*AVERAGED, *PLAIN)
DEEPEST = 8  # a guess; a checkpoint that holds itself must end somewhere
USUAL_PREFIXES = ("module.", "model.", "_orig_mod.")  # of wrappers, which nobody needs to hear of
# of batch norms; files from before torch 0.4.1 lack it, and inference does not read it
COUNTER = "num_batches_tracked"
Weights = nn.Module | dict[str, Tensor]


def find_weights(found: Any, source: str) -> tuple[Weights, tuple[str, ...]]:
    """Return the network or the state dict that a loaded file holds, and notes for the report.

    A training checkpoint may hold either under one of ``NESTED_UNDER``; the first of these is
    taken, so that a moving average comes before the last weights. A note says which one it was,
    where the file has several or it is an average.

    Raises:
        InputError: it holds neither.
    """
    nested = _nested(found)
    if nested is None:
        raise InputError(
            f"{source} must hold a network, a state dict, or a checkpoint with one under "
            f"{', '.join(NESTED_UNDER)}; got {_described(found)}"
        )
    weights, path = nested
    here = found if isinstance(found, Mapping) else {}
    others = [repr(key) for key in NESTED_UNDER
              if path and key != path[0] and _nested(here.get(key)) is not None]  # fmt: skip
    if not others and not set(path) & set(AVERAGED):
        return weights, ()
    taken = "".join(f"[{key!r}]" for key in path)
    left = f", not those under {' or '.join(others)}" if others else ""
    return weights, (f"the weights are those under {taken} of the file{left}",)


def _nested(found: Any, depth: int = 0) -> tuple[Weights, tuple[str, ...]] | None:
    """Return a network or state dict and the keys that lead to it, or None where there is none."""
    if isinstance(found, nn.Module):
        return found, ()
    if not isinstance(found, Mapping):
        return None
    if _is_state_dict(found):
        return dict(found), ()
    for key in NESTED_UNDER if depth < DEEPEST else ():
        inner = _nested(found.get(key), depth + 1)
        if inner is not None:
            return inner[0], (key, *inner[1])
    return None


def _is_state_dict(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith("_extra_state"))
        for key, value in found.items()
    )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Change the model: copy the tensors of a state dict into it; return notes for the report.

    Whatever stands before the names of all of the model's tensors, such as ``module.`` or
    ``net.``, is dropped. What the file holds beside a whole network under such a name, such as
    the weights of a loss, is left out. A note says so.

    Raises:
        InputError: a key is missing, unexpected, or has another shape; the first 5 are named.
            Or the state dict holds the network several times.
    """
    wanted = model.state_dict()
    needed = {key for key in wanted if not key.endswith(COUNTER)}
    prefix = _prefix(state, needed, source)
    fitted = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    for key in wanted:
        if key.endswith(COUNTER):
            fitted.setdefault(key, wanted[key])
    others = [key for key in state if not key.startswith(prefix)]
    problems = _problems(wanted, fitted)
    if problems:
        raise InputError(f"{source} does not fit the architecture: {'; '.join(problems)}")
    try:
        model.load_state_dict(fitted, strict=True)
    except Exception as error:  # a module's own loading hook may raise anything
        raise InputError(
            f"{source} cannot be loaded onto the architecture: {first_line(error)}"
        ) from error
    left = f"; left out: {listed(others)}" if others else ""
    if not left and prefix.removeprefix("_orig_mod.") in ("", *USUAL_PREFIXES):
        return ()
    return (f"the weights are those named {shown(prefix)}* in the file{left}",)


def _prefix(state: Mapping[str, Tensor], wanted: set[str], source: str) -> str:
    """Return what stands before the names of all wanted tensors, or of most and of all others.

    Raises:
        InputError: all of them are there more than once, and none of these is a moving average.
    """
    hits = Counter({"": len(wanted & set(state))})
    for key in state:
        name = key
        for _ in range(DEEPEST):  # a hostile name may have a million dots
            _, dot, name = name.partition(".")
            if dot and name in wanted:
                hits[key[: len(key) - len(name)]] += 1
    whole = [prefix for prefix, count in hits.items() if count == len(wanted)]
    if len(whole) > 1 and whole[0] != "":
        whole = [name for name in whole if "ema" in name or "average" in name] or whole
        if len(whole) > 1:
            raise InputError(
                f"{source} holds the network {len(whole)} times, under {listed(whole)}: save the "
                "state dict of one of them"
            )
    shared = [one for one in hits if all(key.startswith(one) for key in state)]
    return whole[0] if whole else max(shared, key=hits.__getitem__)


def _problems(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    shapes = [
        f"{shown(key)} {_shape(given[key])} instead of {_shape(wanted[key])}"
        for key in wanted
        if key in given and _shape(given[key]) != _shape(wanted[key])
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(keys)} {kind} ({listed(keys)})" for kind, keys in kinds if keys]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _described(found: Any) -> str:
    if isinstance(found, Mapping):
        keys = listed(found)
        return f"a dict with the keys {keys}" if keys else "an empty dict"
    return f"a {type(found).__name__}"
