"""A machine's files and commands, and what is tried in processes of its own: real ones, on this machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import onnxruntime
import pytest

from hired_runtime.board import onnx_graph, software
from hired_runtime.board.machine import TIMED_OUT, Machine, Output
from tests.device.recorded.machine import Recorded

ALIVE = "import time; print('first', flush=True); time.sleep(600)"


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/model").write_bytes(b"nvidia,p3767-0000\0nvidia,tegra234\0")
    (tmp_path / "etc/latin").write_bytes(b"caf\xe9")
    machine = Machine(tmp_path)
    assert machine.text("/etc/model") == "nvidia,p3767-0000\nnvidia,tegra234\n"
    assert machine.text("/etc/latin") == "caf\ufffd"
    assert machine.text("/etc") is None
    assert machine.text("/etc/none") is None
    assert machine.names("/etc") == ["latin", "model"]
    assert machine.names("/none") == []


def test_commands() -> None:
    machine = Machine()
    assert machine.command("no-such-command-here") is None
    done = machine.command(sys.executable, "-c", "import sys; print('out'); sys.exit('err')")
    assert done == Output(1, "out\n", "err\n")


def test_a_command_that_does_not_end_leaves_what_it_wrote() -> None:
    begin = time.monotonic()
    output = Machine().command(sys.executable, "-c", ALIVE, timeout_s=2)
    assert output == Output(TIMED_OUT, "first\n", "no answer within 2 s")
    assert time.monotonic() - begin < 30


def test_the_cpu_provider_really_runs() -> None:
    tried = software.provider(Machine(), "CPUExecutionProvider")
    assert tried is not None
    assert (tried.compiled, tried.ran) == (True, True), tried.detail


def test_a_provider_that_is_compiled_in_but_cannot_run_the_graph_does_not_count() -> None:
    """PyPI's wheels have Azure's, which runs no MatMul: ONNX Runtime would quietly use the CPU in its place."""
    for name in set(onnxruntime.get_available_providers()) - set(software.PROVIDERS):
        tried = software.provider(Machine(), name)
        assert tried is not None
        assert (tried.compiled, tried.ran) == (True, False)
        assert tried.detail


@pytest.mark.parametrize(
    ("right", "wrong", "detail"),
    [(b"MatMul", b"MatMum", "MatMum"), (b"\x01a\x0a\x01b", b"\x01b\x0a\x01a", "wrong numbers")],
    ids=["an operator that does not exist", "b @ a"],
)
def test_a_faked_graph_that_fails_or_gives_other_numbers(
    right: bytes, wrong: bytes, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx_graph.matmul()
    assert right in graph
    monkeypatch.setattr(onnx_graph, "matmul", lambda: graph.replace(right, wrong, 1))
    tried = software.provider(Machine(), "CPUExecutionProvider")
    assert tried is not None
    assert (tried.compiled, tried.ran) == (True, False)
    assert detail in tried.detail


def test_a_provider_that_is_not_there() -> None:
    tried = software.provider(Machine(), "NoSuchExecutionProvider")
    assert tried is not None
    assert (tried.compiled, tried.ran) == (False, False)


def test_a_module_of_this_interpreter() -> None:
    found = software.module(Machine(), "onnxruntime")
    assert found is not None
    assert found.version is not None
    assert found.version == next(iter(found.distributions.values()))


def tensorrt() -> software.Module:
    found = software.module(Machine(), "tensorrt")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("source", "installed", "error"),
    [
        (None, False, "No module named 'tensorrt'"),
        ("import no_such_library", True, "No module named 'no_such_library'"),
        ("raise ImportError('libnvinfer.so.10: cannot open')", True, "ImportError: libnvinfer.so.10: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", True, "its process ended with signal 11: "),
        ("import sys; print('noise'); sys.exit('gone')", True, "its process ended with status 1: gone"),
        ("import sys; print('noise'); sys.exit(0)", True, "its process ended without an answer: noise"),
    ],
)
def test_a_faked_tensorrt_that_is_missing_broken_or_crashes(
    source: str | None, installed: bool, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is None and tensorrt().installed:
        source, error = "import no_such_library", "No module named 'no_such_library'"  # a machine that has the real one
        installed = True
    if source is not None:
        (tmp_path / "tensorrt.py").write_text(source + "\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = tensorrt()
    assert (found.installed, found.version, found.error) == (installed, None, error)


def test_a_faked_module_that_prints_while_it_is_imported_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bye = "import atexit; atexit.register(print, '[TRT] bye')"
    (tmp_path / "tensorrt.py").write_text(f"print('[TRT] hello')\n__version__ = '10.3.0'\n{bye}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert tensorrt().version == "10.3.0"


def test_the_cuda_driver_answers_or_says_why_not() -> None:
    found = software.cuda(Machine())
    assert found is not None
    assert bool(found.devices) == (found.error is None)
    assert found.installed or "libcuda" in (found.error or "")


@pytest.mark.gpu
def test_the_cuda_driver_names_its_devices() -> None:
    found = software.cuda(Machine())
    assert found is not None
    assert found.error is None
    assert found.version is not None
    assert all(device.memory > 2**30 and "." in device.capability for device in found.devices)


def test_nothing_is_tried_on_a_recorded_machine() -> None:
    machine = Recorded("orin-nano-super-r36.4.3")
    assert all(software.module(machine, name) is None for name in software.MODULES)
    assert software.provider(machine, "CPUExecutionProvider") is None
    assert software.cuda(machine) is None
