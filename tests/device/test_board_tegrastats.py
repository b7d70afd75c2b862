"""tegrastats: lines that real boards wrote, and the sampler on a child that replays them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired_edge.errors import HiredEdgeError
from hired_runtime.board import tegrastats
from hired_runtime.board.rails import board_power_mw, counted
from hired_runtime.board.tegrastats import Sample, Sampler, available, parse_line
from tests.device.recorded.machine import FOLDER

RECORDED = sorted(FOLDER.glob("*/commands/tegrastats"))
REPLAY = """
import sys, time
for line in open(sys.argv[1]):
    print(line, end="", flush=True)
    time.sleep(int(sys.argv[3]) / 1000)
time.sleep(600)  # tegrastats never ends by itself
"""


def lines(name: str) -> list[str]:
    return (FOLDER / name / "commands/tegrastats").read_text().splitlines()


def sample(name: str, index: int = 0) -> Sample:
    parsed = parse_line(lines(name)[index], 1.5)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parents[1].name)
def test_every_recorded_line_has_memory_temperatures_and_power(path: Path) -> None:
    for line in path.read_text().splitlines():
        parsed = parse_line(line)
        assert parsed is not None
        assert parsed.ram_used_mb is not None
        assert parsed.ram_total_mb is not None
        assert 0 < parsed.ram_used_mb < parsed.ram_total_mb
        assert parsed.free_block_mb is not None
        assert len(parsed.cpu_percent) == line.partition("CPU [")[2].partition("]")[0].count(",") + 1
        assert len(parsed.temperatures_c) == line.count("@") - line.count("%@") - line.count(" @")
        assert all(15 < value < 110 for value in parsed.temperatures_c.values())
        assert board_power_mw(parsed.power_mw)
        assert parsed.power_mw.keys() == parsed.average_power_mw.keys()


def test_a_recorded_line_of_jetpack_6() -> None:
    parsed = sample("orin-nx-16gb-jetpack6.2")
    assert (parsed.time_s, parsed.ram_used_mb, parsed.ram_total_mb) == (1.5, 1224, 15656)
    assert (parsed.swap_used_mb, parsed.swap_total_mb, parsed.free_block_mb) == (0, 7828, 4)
    assert parsed.gpu_percent == 0
    assert parsed.cpu_percent == (1, 0, 0, 0, 0, 0, 0, 0)
    assert (parsed.temperatures_c["gpu"], parsed.temperatures_c["tj"], len(parsed.temperatures_c)) == (
        43.406,
        45.843,
        9,
    )
    assert parsed.power_mw == {"VDD_IN": 4304, "VDD_CPU_GPU_CV": 573, "VDD_SOC": 1218}
    assert counted(parsed.power_mw) == ("VDD_IN",)


def test_a_recorded_line_of_jetpack_7_2_gives_now_then_average_then_peak() -> None:
    parsed = sample("agx-orin-jetpack7.2-averages")
    assert parsed.power_mw == {"VDD_GPU_SOC": 3034, "VDD_CPU_CV": 1137, "VIN_SYS_5V0": 4939}
    assert parsed.average_power_mw == {"VDD_GPU_SOC": 3049, "VDD_CPU_CV": 1296, "VIN_SYS_5V0": 4924}
    assert parsed.temperatures_c["cpu"] == 47.906
    assert board_power_mw(parsed.power_mw) == 3034 + 1137 + 4939  # an AGX Orin has no rail for the whole


def test_recorded_gpu_loads_in_each_of_their_forms() -> None:
    assert sample("orin-nano-jetpack7.2").gpu_percent == 12  # 12%
    assert sample("agx-orin-r39.2-tegrastats").gpu_percent == 12  # 12%@[1300,1300]
    assert sample("tx2-tegrastats").gpu_percent == 0  # 0%@114
    assert sample("agx-thor-r38.4.0").gpu_percent is None  # @[0,0,0]


def test_recorded_lines_of_other_boards() -> None:
    old = sample("tx2-tegrastats", 1)
    assert old.power_mw["VDD_IN"] == 4095  # without a unit
    assert old.cpu_percent == (44, None, None, 1, 2, 4)
    assert counted(old.power_mw) == ("VDD_IN",)
    no_swap = sample("agx-orin-r39.2-tegrastats")
    assert (no_swap.swap_used_mb, no_swap.swap_total_mb) == (None, None)


@pytest.mark.parametrize("line", ["", "tegrastats: not found", "RAM", "Kernel panic - not syncing"])
def test_other_lines_are_no_sample(line: str) -> None:
    assert parse_line(line) is None


def test_rails_that_are_part_of_another_are_not_added() -> None:
    rails = {"VDD_GPU_SOC": 2000.0, "VIN_SYS_5V0": 4000.0, "VDDQ_VDD2_1V8AO": 300.0, "NC": 0.0}
    assert board_power_mw(rails) == 6000
    assert board_power_mw({}) is None


@pytest.fixture
def recorded_child(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "replay.py").write_text(REPLAY)
    log = FOLDER / "orin-nx-16gb-out-of-memory/commands/tegrastats"
    return (sys.executable, str(tmp_path / "replay.py"), str(log))


def until(sampler: Sampler, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(sampler.samples) < count:
        assert time.monotonic() < deadline, len(sampler.samples)
        time.sleep(0.01)


def test_a_sampler_of_a_recorded_child_keeps_what_came_and_ends_it(recorded_child: tuple[str, ...]) -> None:
    sampler = Sampler(20, recorded_child)
    start = time.monotonic()
    with sampler:
        until(sampler, 6)
        end = time.monotonic()
    assert [sample.ram_used_mb for sample in sampler.samples] == [6567, 6238, 9686, 12591, 14305, 15451]
    times = [sample.time_s for sample in sampler.samples]
    assert times == sorted(times)
    assert start < times[0]
    assert times[-1] <= end
    assert sampler.rails == ("VDD_IN",)
    power, energy = sampler.power_w(times[0], times[-1]), sampler.energy_j(times[0], times[-1])
    assert power is not None
    assert 8.4 < power < 12.7
    assert energy == pytest.approx(power * (times[-1] - times[0]))
    assert sampler.peak_power_w(start, end) == 12.673
    assert sampler.peak_temperature_c(start, end) == 58.937
    assert ended(sampler)


def ended(sampler: Sampler) -> bool:
    child = sampler._child
    assert child is not None
    try:
        os.kill(child.pid, 0)
    except ProcessLookupError:
        return child.returncode is not None
    return False


def test_the_recorded_child_ends_when_the_work_fails(recorded_child: tuple[str, ...]) -> None:
    sampler = Sampler(20, recorded_child)
    with pytest.raises(ZeroDivisionError), sampler:
        _ = 1 / 0
    assert ended(sampler)


def test_a_faked_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tegrastats, "_PATIENCE_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    sampler = Sampler(20, (sys.executable, "-c", f"{deaf}; print('RAM 1/2MB', flush=True); time.sleep(600)"))
    with sampler:
        until(sampler, 1)
    assert ended(sampler)
    assert sampler._child is not None
    assert sampler._child.returncode == -signal.SIGKILL


def test_a_machine_without_tegrastats() -> None:
    assert not available(("no-such-tegrastats",))
    with pytest.raises(HiredEdgeError, match="no-such-tegrastats cannot be run"), Sampler(100, ("no-such-tegrastats",)):
        pass


def made(*points: tuple[float, float]) -> Sampler:
    """A sampler with these times (s) and powers (W)."""
    sampler = Sampler(100)
    sampler.samples = [Sample(time_s, power_mw={"VDD_IN": watts * 1000}) for time_s, watts in points]
    return sampler


def test_energy_is_the_area_under_the_samples() -> None:
    sampler = made((0, 10), (1, 20), (2, 10))
    assert sampler.energy_j(0, 2) == pytest.approx(30)
    assert sampler.energy_j(0.5, 1.5) == pytest.approx(17.5)
    assert sampler.energy_j(0.2, 0.3) == pytest.approx(0.1 * 12.5)  # between two samples
    assert sampler.power_w(0, 2) == pytest.approx(15)
    assert sampler.energy_j(-0.4, 0) == pytest.approx(4)  # the nearest sample's power


def test_energy_is_unknown_where_no_sample_is_near() -> None:
    sampler = made((0, 10), (1, 10), (5, 10))
    assert sampler.energy_j(0, 1) == pytest.approx(10)
    assert sampler.energy_j(0, 5) is None  # four seconds without a sample
    assert sampler.energy_j(-2, 1) is None
    assert sampler.energy_j(1, 1) is None
    assert made().power_w(0, 1) is None
    assert made().peak_power_w(0, 1) is None
    assert made().peak_temperature_c(0, 1) is None
    silent = Sampler(100)
    silent.samples = [Sample(0.0, 100, 200), Sample(0.1, 100, 200)]
    assert silent.energy_j(0, 0.1) is None
    assert silent.rails == ()


@given(st.lists(st.floats(0, 60), min_size=3, max_size=9), st.data())
def test_energies_of_neighbouring_intervals_add_up(watts: list[float], data: st.DataObject) -> None:
    sampler = made(*((0.1 * index, value) for index, value in enumerate(watts)))
    last = 0.1 * (len(watts) - 1)
    start, middle, end = sorted(data.draw(st.lists(st.floats(0, last), min_size=3, max_size=3)))
    whole, first, second = sampler.energy_j(start, end), sampler.energy_j(start, middle), sampler.energy_j(middle, end)
    assert (whole or 0) == pytest.approx((first or 0) + (second or 0), abs=1e-9)
