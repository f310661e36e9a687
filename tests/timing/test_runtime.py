"""The processor that a measurement is true of."""

from __future__ import annotations

import pytest

from slimnet.timing import runtime
from slimnet.timing.runtime import is_arm, knows_vnni, processor


@pytest.fixture
def listing(tmp_path, monkeypatch):
    """A listing of the processor that Linux does not give yet."""
    monkeypatch.setattr(runtime, "CPU_LISTING", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_one_name_for_several_generations_is_told_apart_by_the_instructions(listing, monkeypatch):
    monkeypatch.setattr(runtime.torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    name, _, instructions = processor().rpartition(", ")
    assert name, "a processor without a listing"
    assert instructions == "AVX512"
    listing.write_text("processor\t: 0\nmodel name\t: Fast One\n")
    assert processor() == "Fast One, AVX512"


def test_int8_without_saturation_is_read_from_the_flags(listing):
    assert not knows_vnni()
    listing.write_text("model name\t: vnni\nflags\t\t: fpu avx2\n")
    assert not knows_vnni()
    listing.write_text("model name\t: Fast One\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert knows_vnni()


@pytest.mark.parametrize(
    ("name", "arm"), [("aarch64", True), ("arm64", True), ("x86_64", False), ("AMD64", False)]
)
def test_an_arm_is_known_by_its_name(monkeypatch, name, arm):
    monkeypatch.setattr(runtime.platform, "machine", lambda: name)
    assert is_arm() == arm
