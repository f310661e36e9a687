"""What a measurement is true of."""

from __future__ import annotations

from slimnet.measure import machine
from slimnet.measure.machine import cpu_model, is_arm, knows_vnni, measured_on, processor


def test_processor_without_a_listing(tmp_path):
    assert cpu_model(tmp_path / "absent")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast One\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Fast One"


def test_one_name_for_several_generations_is_told_apart_by_the_instructions(monkeypatch):
    monkeypatch.setattr(machine, "cpu_model", lambda: "Fast One")
    monkeypatch.setattr(machine.torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert processor() == "Fast One, AVX512"


def test_what_a_processor_can_do_with_int8(tmp_path, monkeypatch):
    listing = tmp_path / "cpuinfo"
    assert not knows_vnni(listing)
    listing.write_text("model name\t: vnni\nflags\t\t: fpu avx2\n")
    assert not knows_vnni(listing)
    listing.write_text("model name\t: Fast One\nflags\t\t: fpu avx2 avx512_vnni\n")
    assert knows_vnni(listing)
    for name, arm in (("aarch64", True), ("arm64", True), ("x86_64", False), ("AMD64", False)):
        monkeypatch.setattr(machine.platform, "machine", lambda name=name: name)
        assert is_arm() == arm


def test_another_runtime_thread_library_or_processor_is_another_machine(monkeypatch):
    monkeypatch.setattr(machine, "cpu_model", lambda: "Fast One")
    monkeypatch.setattr(machine.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(machine.torch.cuda, "get_device_name", lambda: "Big GPU")
    monkeypatch.setattr(machine.torch, "__version__", "2.9")
    monkeypatch.setattr(machine.onnxruntime, "__version__", "1.23")
    told = [measured_on(f"onnxruntime-{device}", 2) for device in ("cpu", "cuda")]
    assert told == [
        "onnxruntime-cpu, threads 2, onnxruntime 1.23, Fast One, AVX2",
        "onnxruntime-cuda, threads 2, onnxruntime 1.23, Big GPU",
    ]
    assert measured_on("torch-cuda", 1) == "torch-cuda, threads 1, torch 2.9, Big GPU"
