"""The networks with branches stand with the tests of the groups."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "groups"))
