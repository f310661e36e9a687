"""Load a trained network from a file, or copy a live one, in the form every stage relies on."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from slimnet.errors import InputError
from slimnet.load.architecture import build_architecture
from slimnet.load.attributes import copied
from slimnet.load.canonical import may_change, use_plain_layers
from slimnet.load.checkpoint import find_weights, load_weights
from slimnet.load.files import entries, require_file, require_held, require_uncompressed, sha256_of
from slimnet.load.importing import first_line, listed
from slimnet.load.safe_pickle import read_pickle
from slimnet.options import ModelOptions
from slimnet.records import LoadedModel

# torch.save before 1.6 pickles this number first
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# how other files begin that are given for models, and what to say of them
OTHER_FILES = {
    b"version https": "is a Git LFS pointer, not the file itself; get it with git lfs pull",
    b"<": "is a web page, most often of a failed download; download the file again",
    b"\x1f\x8b": "is compressed; unpack it with gunzip or tar",
    b"\x89HDF": "is an HDF5 file, as Keras writes them; slimnet takes PyTorch's networks",
    b"TFL3": "is a TensorFlow Lite file; slimnet takes PyTorch's networks",
    b"\x80": "is not a model file: pickle wrote it; save the state dict with torch.save",
}
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
MAX_WRAPPERS = 8  # a guess; a wrapper that holds itself must end somewhere


def load_model(source: str | Path | nn.Module, options: ModelOptions) -> LoadedModel:
    """Return the network of a file, or a copy of a live one, which is not changed.

    It is in eval mode, on the CPU, in float32, with gradients on for its weights. A file holds a
    network, a state dict or a training checkpoint as torch.save writes them, or safetensors.
    Nothing in the file is executed unless ``options.trust_pickle``.

    Raises:
        InputError: the file cannot be read, is not safe, or does not fit ``options.arch``.
    """
    if isinstance(source, nn.Module):
        return _from_live(source, options)
    if not isinstance(source, (str, Path)):
        kind = source.__name__ if isinstance(source, type) else type(source).__name__
        raise InputError(
            f"the model is a network (an instance of its class) or the path of a file; got {kind}"
        )
    path = Path(source).expanduser()
    name = str(path)
    weights, taken = find_weights(_read_model_file(path, options), name)
    with _in_one_line(name):
        if isinstance(weights, nn.Module):
            weights = _unwrapped(weights)
            _require_unscripted(weights, name)
            if options.arch is not None:
                weights = weights.state_dict()
        notes = _precision_notes(weights)
        if not isinstance(weights, nn.Module):
            weights, fitted = _onto_architecture(weights, options, name)
            taken += fitted
        notes = (*taken, *notes)
        return _in_plain_layers(_prepare(weights, name), name, sha256_of(path), notes)


def _from_live(source: nn.Module, options: ModelOptions) -> LoadedModel:
    if options.arch is not None:
        raise InputError("arch is for model files; got a live network too: leave arch out")
    inner = _unwrapped(source)
    name = type(inner).__name__
    _require_unscripted(inner, name)
    try:
        network = copied(inner)
    except Exception as error:  # a module's own __deepcopy__ may raise anything
        raise InputError(f"the network {name} cannot be copied: {first_line(error)}") from error
    with _in_one_line(name):
        return _in_plain_layers(_prepare(network, name), name, None, _precision_notes(inner))


def _in_plain_layers(
    model: nn.Module, source: str, sha256: str | None, notes: tuple[str, ...]
) -> LoadedModel:
    """Return the record of the model, which changes: see ``use_plain_layers``."""
    given = copied(model) if may_change(model) else None
    changed = use_plain_layers(model) if given is not None else {}
    if not changed:
        return LoadedModel(model, source, sha256, notes)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    kinds = listed(sorted(set(changed.values())))
    note = (
        f"{len(changed)} layers compute their weights, or pad or scale by themselves ({kinds}). "
        "Plain layers that give the same stand in their places, also in the slim network: use "
        "slim.onnx or slim.pt2, or slimnet.load_slim, which puts them into your own class too."
    )
    return LoadedModel(model, source, sha256, (*notes, note), given)


@contextmanager
def _in_one_line(source: str) -> Iterator[None]:
    """Turn any failure in the block into one line: a hostile file may make anything fail."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{source} is no whole network ({first_line(error)}): it is damaged; save it again"
        ) from error


def _onto_architecture(
    state: Mapping[str, Tensor], options: ModelOptions, source: str
) -> tuple[nn.Module, tuple[str, ...]]:
    if options.arch is None:
        raise InputError(
            f"{source} holds weights without the network; say which network with --arch, such as "
            "--arch torchvision:resnet18 --arch-arg num_classes=10 or --arch path/net.py:Net"
        )
    network = _unwrapped(build_architecture(options.arch, options.arch_arg))
    _require_unscripted(network, options.arch)
    return network, load_weights(network, state, source)


def _read_model_file(path: Path, options: ModelOptions) -> Any:
    """Return the content of a model file: a network, a state dict, or anything else.

    Raises:
        InputError: it is not a model file, or not safe to read.
    """
    require_file(path)
    with path.open("rb") as file:
        start = file.read(len(LEGACY_START))
    if _is_safetensors(start, path.stat().st_size):
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        _require_plain_archive(path)
        return read_pickle(path, options.allow, options.trust_pickle)
    if start == LEGACY_START:
        return read_pickle(path, options.allow, options.trust_pickle, legacy=True)
    known = [text for mark, text in OTHER_FILES.items() if mark in (start[: len(mark)], start[4:8])]
    known += ["is ONNX; give the network that it was exported from"] * (path.suffix == ".onnx")
    known += [
        "is not a model file: it holds neither what torch.save writes nor safetensors, "
        "or it is truncated; save the network or its state dict again"
    ]
    raise InputError(f"{path} {known[0]}")


def _is_safetensors(start: bytes, file_bytes: int) -> bool:
    header_bytes = int.from_bytes(start[:8], "little")
    return len(start) > 8 and start[8:9] == b"{" and header_bytes < 1 << 27 and file_bytes > 8


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except Exception as error:  # its own error type, OSError, or a dtype torch lacks
        raise InputError(f"{path} is a damaged safetensors file: {first_line(error)}") from error


def _require_plain_archive(path: Path) -> None:
    names = [entry.filename.partition("/")[2] for entry in entries(path)]
    if "constants.pkl" in names:  # TorchScript compresses parts, so this comes first
        raise InputError(_scripted_message(str(path)))
    if any(name.startswith("models/") for name in names) or "serialized_exported_program.json" in (
        names
    ):
        raise InputError(
            f"{path} is an exported program; its layers cannot be pruned: give the original "
            "network, or its state dict with --arch"
        )
    require_uncompressed(path)
    if "data.pkl" not in names:
        arrays = any(entry.filename.endswith(".npy") for entry in entries(path))
        hint = ": it holds arrays, as data do; the model comes first" if arrays else ""
        raise InputError(f"{path} is an archive, but not one that torch.save wrote{hint}")


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside torch.compile's, data-parallel and averaging wrappers."""
    for _ in range(MAX_WRAPPERS):
        if isinstance(model, WRAPPERS):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            break
    return model


def _prepare(model: nn.Module, source: str) -> nn.Module:
    """Change the model and return it: eval mode, CPU, float32, gradients on for every weight.

    Raises:
        InputError: no parameters, or a tensor without finite values.
    """
    if not any(True for _ in model.parameters()):
        raise InputError(f"{source} has no parameters, so there is nothing to make smaller")
    for name, tensor in _tensors(model):
        if is_lazy(tensor) or tensor.is_meta:
            raise InputError(
                f"{source}: tensor {name} has no values yet (lazy or on the meta device); "
                "run the network once or load its weights, then save it"
            )
    require_held([tensor for _, tensor in _tensors(model)], source)
    model = model.cpu().float().eval()
    for name, tensor in _tensors(model):
        _require_finite(name, tensor, source)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
            parameter.grad = None
    return model


def _precision_notes(weights: nn.Module | Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return notes for the report on weights that will become float32."""
    given = weights.parameters() if isinstance(weights, nn.Module) else weights.values()
    tensors = [value for value in given if isinstance(value, Tensor)]
    kinds = {str(t.dtype) for t in tensors if t.is_floating_point()} - {"torch.float32"}
    return (
        (f"the weights came as {' and '.join(sorted(kinds))}; all results are of float32",)
        if kinds
        else ()
    )


def _require_unscripted(model: object, source: str) -> None:
    """Refuse TorchScript: its layers cannot be replaced by smaller ones.

    Raises:
        InputError: the model is a TorchScript module.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(_scripted_message(source))


def _scripted_message(source: str) -> str:
    """Return why a TorchScript model cannot be slimmed."""
    return (
        f"{source} is TorchScript; scripted models cannot be pruned: give the original network, "
        "or its state dict with --arch"
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _require_finite(name: str, tensor: Tensor, source: str) -> None:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    # a buffer may be an attention mask, which holds -inf on purpose
    may_be_mask = not isinstance(tensor, nn.Parameter) and ".running_" not in f".{name}"
    bad = tensor.isnan() if may_be_mask else ~tensor.isfinite()
    if bool(bad.any()):
        raise InputError(
            f"{source}: tensor {name} holds NaN or infinite values ({int(bad.sum())} of "
            f"{tensor.numel()}); give a network that was trained to the end"
        )
