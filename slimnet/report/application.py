"""What ``slimnet apply`` did, in lines below its table."""

from __future__ import annotations

from slimnet.records import Application


def application_lines(application: Application) -> list[str]:
    """Return what to print below the table; does not change the record."""
    shape = ", ".join(map(str, application.input_shape))
    guessed = " (guessed)" if application.input_shape_guessed else ""
    return [
        f"Masked = slim to {application.masked_slim.relative_error:.1e} of the output's scale, in "
        f"float64, on noise of the shape ({shape}){guessed}; ONNX Runtime = PyTorch.",
        *application.notes,
    ]
