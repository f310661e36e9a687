"""Batches in the form in which ONNX Runtime's quantiser reads them."""

from __future__ import annotations

from collections.abc import Sequence

from onnxruntime.quantization import CalibrationDataReader

from slimnet.measure import input_tensors
from slimnet.records import Inputs


class BatchReader(CalibrationDataReader):  # type: ignore[misc]
    """Batches as the quantiser reads them: some at a time, by ``set_range``."""

    def __init__(self, names: Sequence[str], inputs: Sequence[Inputs]) -> None:
        self._names, self._inputs = names, inputs
        self._left = iter(inputs)

    def __len__(self) -> int:
        """Return how many batches there are."""
        return len(self._inputs)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these batches next."""
        self._left = iter(self._inputs[start_index:end_index])

    def get_next(self) -> dict[str, object] | None:
        """Return the next batch, arrays (images, ...) by input name; None where none is left."""
        batch = next(self._left, None)
        if batch is None:
            return None
        arrays = (tensor.contiguous().numpy() for tensor in input_tensors(batch))
        return dict(zip(self._names, arrays, strict=True))
