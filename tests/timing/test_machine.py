"""The processor that a measurement is true of."""

from __future__ import annotations

from slimnet.timing import machine
from slimnet.timing.machine import cpu_model, is_arm, knows_vnni, processor


def test_processor_without_a_listing(tmp_path):
    assert cpu_model(tmp_path / "absent")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast One\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Fast One"


def test_one_name_for_several_generations_is_told_apart_by_the_instructions(monkeypatch):
    monkeypatch.setattr(machine, "cpu_model", lambda: "Fast One")
    monkeypatch.setattr(machine.torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert processor() == "Fast One, AVX512"


def test_int8_without_saturation_is_read_from_the_flags(tmp_path, monkeypatch):
    listing = tmp_path / "cpuinfo"
    assert not knows_vnni(listing)
    listing.write_text("model name\t: vnni\nflags\t\t: fpu avx2\n")
    assert not knows_vnni(listing)
    listing.write_text("model name\t: Fast One\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert knows_vnni(listing)
    for name, arm in (("aarch64", True), ("arm64", True), ("x86_64", False), ("AMD64", False)):
        monkeypatch.setattr(machine.platform, "machine", lambda name=name: name)
        assert is_arm() == arm
