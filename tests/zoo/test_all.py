"""Every network of the zoo, as the benchmark runs it; minutes to hours: pytest -m slow_zoo."""

from __future__ import annotations

import pytest
import zoo
from zoo_networks import NETWORKS


@pytest.mark.slow_zoo
@pytest.mark.timeout(zoo.LIMIT_SECONDS + 60)
@pytest.mark.parametrize("name", NETWORKS)
def test_all_checks_pass(name):
    found = zoo.run_apart(name, zoo.LIMIT_SECONDS)
    assert "error" not in found, found["error"]
