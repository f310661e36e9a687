"""The fast layer of the tests: its lists name files that exist, and CI runs both layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent


@pytest.fixture(scope="module")
def conftest(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin(str(TESTS / "conftest.py"))


def test_every_listed_file_exists(conftest):
    listed = (*conftest.SLOW, *conftest.LINUX_ONLY)
    assert [name for name in listed if not (TESTS / name).exists()] == []
    assert list(conftest.SLOW) == sorted(set(conftest.SLOW))


def test_this_test_is_fast(request):
    assert request.node.get_closest_marker("fast")


def test_ci_runs_everything_on_the_oldest_python_and_fast_tests_elsewhere():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = re.search(r'requires-python = ">=([\d.]+)"', project)[1]
    assert f'python: ["{oldest}", ' in workflow
    assert "run: bash .ci/run\n" in workflow
    assert "os: [windows-latest, macos-latest]\n" in workflow
    assert "pytest -m fast\n" in workflow
