"""The two networks of a comparison: ONNX files, or folders that slimnet wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slimnet.errors import InputError
from slimnet.records import NetworkFile, OnnxInput, Skipped

MOST_ELEMENTS = 2**28  # of a batch


def find_pair(original: str | Path, slim: str | Path | None) -> tuple[NetworkFile, NetworkFile]:
    """Return what two names stand for; one alone is a folder with both networks.

    Raises:
        InputError: there is no such file or folder, or it holds no ONNX network.
    """
    if slim is not None:
        return _network(Path(original)), _network(Path(slim))
    if Path(original).is_file():
        raise InputError(
            f"two networks are compared; got {original} alone: slimnet bench original.onnx "
            "slim.onnx, or one folder that slimnet wrote"
        )
    return _network(Path(original), is_original=True), _network(Path(original))


def _network(path: Path, is_original: bool = False) -> NetworkFile:
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    folder = path if path.is_dir() else None
    file = path if folder is None else path / ("original.onnx" if is_original else "slim.onnx")
    if not file.is_file():
        raise InputError(f"a folder that slimnet wrote holds {file.name}; {path} does not")
    if file.suffix != ".onnx":
        raise InputError(
            f"ONNX files and folders that slimnet wrote can be timed; got {path}: slimnet compress "
            "or slimnet apply make them of a model file"
        )
    return NetworkFile(str(path if folder is None else file), file, folder, is_original)


def possible_batch_sizes(
    wanted: Sequence[OnnxInput], asked: Sequence[int]
) -> tuple[tuple[int, ...], list[Skipped]]:
    """Return the batch sizes that the files take, and which others were asked for.

    Raises:
        InputError: they take none of those asked for, or a batch would be too large.
    """
    fixed = {one.shape[0] for one in wanted} - {None}
    sizes = [size for size in dict.fromkeys(asked) if fixed <= {size}]
    if not sizes:
        only = " and ".join(map(str, sorted(size for size in fixed if size)))
        raise InputError(f"the files take batches of {only} images only: --batch {only}")
    elements = sum(_elements(one) for one in wanted)
    if max(sizes) * elements > MOST_ELEMENTS:
        raise InputError(
            f"a batch may have {MOST_ELEMENTS:,} elements; {max(sizes):,} images have "
            f"{max(sizes) * elements:,}: give a smaller --batch"
        )
    reason = f"the files take batches of {sizes[0]} only"
    return tuple(sizes), [Skipped(f"batch {size}", reason) for size in asked if size not in sizes]


def _elements(wanted: OnnxInput) -> int:
    elements = 1
    for axis in wanted.shape[1:]:
        elements *= axis or 1
    return elements
