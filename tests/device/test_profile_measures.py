"""What a profile is measured with: statistics, memory, the machine, a GPU's memory, a board's power."""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired_edge.errors import HiredEdgeError, InputError
from hired_runtime.board.machine import Machine, Output
from hired_runtime.board.rails import board_power_mw
from hired_runtime.board.tegrastats import Sampler, parse_line
from hired_runtime.profiling import Plan, board_power, gpu_memory, profile, table
from hired_runtime.profiling.gpu_memory import GpuMemory
from hired_runtime.profiling.machine import machine
from hired_runtime.profiling.memory import MemorySampler, process_bytes, process_high_water_bytes, system_bytes
from hired_runtime.profiling.schema import Board
from hired_runtime.profiling.spread import Statistics, statistics_of
from tests.tiny.processes import running

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
RECORDED = Path(__file__).parent / "recorded"
TOTAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@given(st.lists(st.integers(0, 10**9).map(lambda number: number / 1000), min_size=1, max_size=50))
def test_statistics_are_numpys_and_the_standard_librarys(values: list[float]) -> None:
    found = statistics_of(values)
    expected = {
        "mean": np.mean(values),
        "median": statistics.median(values),
        "p95": np.percentile(values, 95),
        "min": min(values),
        "max": max(values),
        "stddev": statistics.stdev(values) if len(values) > 1 else 0,
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-4), name
    assert found.values == tuple(values)


def test_statistics_that_are_not_of_their_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"p95 is 5\.0; expected 1\.95, by the values"):
        Statistics(mean=1.5, median=1.5, p95=5.0, min=1.0, max=2.0, stddev=0.7071, values=(1.0, 2.0))


def test_memory_is_what_the_kernel_says() -> None:
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    here = 1024 * int(rows["VmRSS"].split()[0])
    assert process_bytes() == pytest.approx(here, rel=0.05)
    assert process_high_water_bytes() >= 0.95 * here
    assert process_bytes() < system_bytes() < TOTAL


def test_a_peak_is_seen_while_it_lasts_and_counts_from_the_mark() -> None:
    size = 2**27
    threads = threading.active_count()
    with MemorySampler(interval_s=0.005) as sampler:
        block = np.ones(size, np.uint8)
        time.sleep(0.2)
        del block
        sampler.mark()
        time.sleep(0.05)
        found = sampler.result()
    assert found.process_peak_bytes - found.process_base_bytes > 0.9 * size
    assert found.process_requests_peak_bytes - found.process_base_bytes < 0.5 * size
    assert found.system_peak_bytes >= found.system_base_bytes
    assert found.samples > 3
    assert threading.active_count() == threads


def test_the_machine_is_this_one() -> None:
    found = machine()
    assert found.memory_bytes == TOTAL
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.processor
    assert found.architecture in {"x86_64", "aarch64"}


class RecordedMachine(Machine):
    """A board's recorded files and outputs in a machine's place."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "root")
        self._commands = folder / "commands"

    def command(self, *argv: str, timeout_s: float = 10.0) -> Output | None:
        path = self._commands / argv[0]
        return Output(0, path.read_text()) if path.is_file() else None


@pytest.mark.parametrize(
    ("folder", "board"),
    [
        ("orin-nano-super-r36.4.3", Board("NVIDIA Jetson Orin Nano", "36.4.3", "MAXN_SUPER")),
        ("agx-orin-r36.4.4", Board(None, "36.4.4", None)),
        ("pc-two-gpus", None),
    ],
)
def test_a_recorded_board_says_what_it_is(folder: str, board: Board | None) -> None:
    found = machine(RecordedMachine(RECORDED / folder)).board
    if board is None or found is None:
        assert found is board
    else:
        assert (found.l4t, found.power_mode) == (board.l4t, board.power_mode)
        assert (found.model or "").startswith(board.model or "")


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "LIBRARY", "libnvidia-ml-that-is-not-there.so.1")
    gpus = GpuMemory()
    assert (gpus.found, gpus.used_bytes()) == (0, 0)
    gpus.close()


def test_a_faked_driver_of_three_gpus_one_of_which_tells_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Faked:
        """NVML's functions, with the arguments that its reference gives them."""

        def nvmlInit_v2(self) -> int:
            return 0

        def nvmlShutdown(self) -> int:
            calls.append("shutdown")
            return 0

        def nvmlDeviceGetCount_v2(self, count: Any) -> int:
            count._obj.value = 3
            return 0

        def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
            device._obj.value = index + 1
            return 0

        def nvmlDeviceGetMemoryInfo(self, device: ctypes.c_void_p, info: Any) -> int:
            info._obj.used = 2**30 * (device.value or 0)
            return 3 if device.value == 2 else 0  # NVML_ERROR_NOT_SUPPORTED

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Faked())
    with MemorySampler() as sampler:
        found = sampler.result()
    assert (found.gpu_base_bytes, found.gpu_peak_bytes) == (4 * 2**30, 4 * 2**30)
    assert calls == ["shutdown"]


def replayed(folder: Path, recording: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Puts a `tegrastats` on the path that prints a recording again and again; returns its samples."""
    lines = RECORDED / recording / "commands/tegrastats"
    script = folder / "tegrastats"
    loop = f"while :; do while read -r line; do echo \"$line\"; sleep 0.02; done <'{lines}'; done"
    script.write_text(f"#!/bin/sh\n{loop}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return [parse_line(line) for line in lines.read_text().splitlines()]


def test_power_of_a_recorded_board(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = replayed(tmp_path, "agx-orin-r36.4.4", monkeypatch)
    watts = [(board_power_mw(sample.power_mw) or 0) / 1000 for sample in samples]
    plan = Plan(BUNDLE, (str(picture),), ("20%",), batch=2, new_tokens=40, warmup=0, iterations=20, power=True)
    found = profile(plan)
    (budget,) = found.budgets
    power = budget.power
    assert power is not None
    assert min(watts) - 0.01 <= power.mean_w <= power.peak_w <= max(watts) + 0.01
    seconds = sum(budget.timings_ms["total"].values) / 1000
    assert power.energy_per_answer_j == pytest.approx(power.mean_w * seconds / 40, rel=0.2, abs=0.05)
    assert power.peak_temperature_c == max(value for sample in samples for value in sample.temperatures_c.values())
    assert power.samples > 0
    assert power.rails
    rows = {row[0]: row[1] for row in table.rows(found)}
    assert rows["energy per answer, J"] == f"{power.energy_per_answer_j:.2f}"
    assert rows["mean power, W"] == f"{power.mean_w:.2f}"
    assert running(str(tmp_path / "tegrastats")) == []


def test_a_recorded_board_without_rails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "tegrastats"
    script.write_text("#!/bin/sh\nwhile :; do echo 'RAM 1/2MB (lfb 1x4MB) CPU [0%@345]'; sleep 0.02; done\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with board_power.sampler() as sampler:
        assert isinstance(sampler, Sampler)
        start = time.monotonic()
        time.sleep(0.2)
        with pytest.raises(HiredEdgeError, match="tegrastats reported no power in the 0"):
            board_power.power(sampler, (start, time.monotonic()), 1)
