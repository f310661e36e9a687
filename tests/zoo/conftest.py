"""Put the folder of the benchmarks on the path: the networks and the checks are there."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
