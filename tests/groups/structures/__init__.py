"""Small networks, one a structure that is easy to get wrong, and what must be said of each."""

from structures import (
    attention,
    blocks,
    convolutions,
    gates,
    heads,
    norms,
    parts,
    reshapes,
    sharing,
    streams,
    unseen,
)
from structures.registry import ALL, OUTPUT, Structure

__all__ = [
    "ALL",
    "OUTPUT",
    "Structure",
    "attention",
    "blocks",
    "convolutions",
    "gates",
    "heads",
    "norms",
    "parts",
    "reshapes",
    "sharing",
    "streams",
    "unseen",
]
