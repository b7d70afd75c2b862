"""Parsers of what boards say, on recorded outputs of real ones (recorded/SOURCES.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hired_runtime.board import clocks, desktop, meminfo, module, nvidia_smi, packages, power_mode, release
from hired_runtime.board.machine import Machine
from tests.device.recorded.machine import FOLDER, Recorded


def text(name: str, path: str) -> str:
    return (FOLDER / name / path).read_text()


@pytest.mark.parametrize(
    ("name", "l4t", "jetpack"),
    [
        ("orin-nano-super-r36.4.3", "36.4.3", "6.2"),
        ("agx-orin-r36.4.4", "36.4.4", "6.2.1"),
        ("orin-nx-devicetree-r36.4.4", "36.4.4", "6.2.1"),
        ("agx-thor-r38.2.0", "38.2.0", "7.0"),
        ("agx-thor-r38.4.0", "38.4.0", "7.1"),
        ("agx-orin-r39.2.0", "39.2.0", "7.2"),
    ],
)
def test_recorded_releases(name: str, l4t: str, jetpack: str) -> None:
    found = release.parse(text(name, "root/etc/nv_tegra_release"))
    assert found == release.Release(l4t, jetpack)
    assert release.Release(l4t, jetpack).major == int(l4t[:2])


def test_releases_of_packages_and_of_the_future() -> None:
    assert release.release("36.4.4-20250616085344") == release.Release("36.4.4", "6.2.1")
    assert release.release("39.9.0") == release.Release("39.9.0", None)
    assert release.release("39.2") == release.Release("39.2", "7.2")
    assert release.parse("") is None
    assert release.parse("Ubuntu 24.04") is None


def test_recorded_modules() -> None:
    orin = Recorded("agx-orin-r39.2.0")
    found = module.parse(text_of(orin, "compatible"), text_of(orin, "model"))
    assert found == module.Module("Jetson AGX Orin", "p3701-0000", "tegra234", "8.7")
    thor = Recorded("agx-thor-r38.2.0")
    found = module.parse(text_of(thor, "compatible"), text_of(thor, "model"))
    assert found == module.Module("Jetson AGX Thor", "p3834-0008", "tegra264", "11.0")
    nano = Recorded("orin-nano-super-r36.4.3")
    found = module.parse("", text_of(nano, "model"))  # its `compatible` was not recorded
    assert found is not None
    assert found.name == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert (found.part, found.soc, found.capability) == (None, None, None)


def text_of(machine: Machine, name: str) -> str:
    return machine.text(f"/proc/device-tree/{name}") or ""


@pytest.mark.parametrize(("compatible", "model"), [("", ""), ("raspberrypi,5-model-b\nbrcm,bcm2712", "Raspberry Pi 5")])
def test_other_machines_are_no_jetson(compatible: str, model: str) -> None:
    assert module.parse(compatible, model) is None


def test_recorded_power_modes() -> None:
    assert power_mode.parse_query(text("orin-nano-super-r36.4.3", "commands/nvpmodel")) == power_mode.PowerMode(
        "MAXN_SUPER", 2
    )
    assert power_mode.parse_query(text("agx-thor-power-mode", "commands/nvpmodel")) == power_mode.PowerMode("MAXN", 0)
    shown = text("orin-nx-devicetree-r36.4.4", "commands/jetson_clocks")  # its last line has the name alone
    assert power_mode.parse_query(shown) == power_mode.PowerMode("MAXN_SUPER", None)
    assert power_mode.parse_query("NVPM ERROR: no mode") is None


def test_the_recorded_table_of_an_orin_nx() -> None:
    table = power_mode.parse_table(text("orin-nx-16gb-power-modes", "root/etc/nvpmodel.conf"))
    assert table == {0: "MAXN", 1: "10W", 2: "15W", 3: "25W"}
    assert power_mode.fastest(table) == 0


@pytest.mark.parametrize(
    ("table", "best"),
    [
        ({0: "15W", 1: "25W", 2: "MAXN_SUPER", 3: "7W"}, 2),
        ({0: "MAXN_SUPER", 4: "40W"}, 0),
        ({0: "MAXN", 1: "MAXN_SUPER"}, 1),
        ({0: "15W", 1: "7W"}, 0),
        ({0: "MODE_15W_2CORE", 3: "MODE_30W_ALL"}, 3),
        ({0: "QUIET"}, None),
        ({}, None),
    ],
)
def test_the_fastest_mode_goes_by_its_name(table: dict[int, str], best: int | None) -> None:
    assert power_mode.fastest(table) == best


def test_recorded_memory() -> None:
    found = meminfo.parse(text("orin-nano-8gb-memory", "root/proc/meminfo"))
    assert found == meminfo.Memory(
        total=7802736 * 1024,
        available=6245596 * 1024,
        swap_total=3901344 * 1024,
        swap_free=3608100 * 1024,
        cma_total=256 * 2**20,
        cma_free=0,
    )
    assert meminfo.parse("") is None


def test_the_memory_of_this_machine() -> None:
    found = meminfo.parse(Machine().text("/proc/meminfo") or "")
    assert found is not None
    assert 0 < found.available < found.total


def test_recorded_clocks() -> None:
    found = clocks.parse_show(text("orin-nx-devicetree-r36.4.4", "commands/jetson_clocks"))
    assert [clock.name for clock in found] == [*(f"cpu{index}" for index in range(6)), "gpu", "emc"]
    assert not any(clock.held for clock in found)
    assert found[0] == clocks.Clock("cpu0", 729.6, 1510.4, 1510.4, held=False)
    assert found[6] == clocks.Clock("gpu", 306, 624.75, 306, held=False)
    assert found[7] == clocks.Clock("emc", 204, 2133, 2133, held=False)  # at its highest, but free to leave it


def test_clocks_of_a_faked_sysfs(tmp_path: Path) -> None:
    written = {
        "sys/class/devfreq/17000000.gpu/min_freq": "918000000",
        "sys/class/devfreq/17000000.gpu/max_freq": "918000000",
        "sys/class/devfreq/17000000.gpu/cur_freq": "918000000",
        "sys/class/devfreq/13e40000.host1x:nvdec/min_freq": "1",
        "sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq": "729600",
        "sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq": "1984000",
        "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "1190400",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "<unsupported>",
    }
    for path, value in written.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(value + "\n")
    assert clocks.read(Machine(tmp_path)) == (
        clocks.Clock("gpu", 918, 918, 918, held=True),
        clocks.Clock("cpu4", 729.6, 1984, 1190.4, held=False),
    )
    assert clocks.read(Machine(tmp_path / "nothing")) == ()


def test_recorded_packages() -> None:
    found = packages.parse(text("orin-r36.4.7-packages", "commands/dpkg-query"))
    assert found["python3-libnvinfer"] == "10.3.0.30-1+cuda12.5"
    assert packages.tensorrt(found) == "10.3.0.30"
    assert packages.cuda(found) is None  # no runtime package in what was recorded
    assert packages.tensorrt({}) is None


def test_faked_packages_with_an_architecture_and_of_several_versions() -> None:
    rows = "ii  libnvinfer10:arm64  10.9.0.1-1+cuda12.8 arm64\nii  libnvinfer8  8.5.2-1 arm64\n"
    rows += "rc  libnvinfer7  7.1-1 arm64\n"  # removed
    assert packages.parse(rows) == {"libnvinfer10": "10.9.0.1-1+cuda12.8", "libnvinfer8": "8.5.2-1"}
    assert packages.tensorrt(packages.parse(rows)) == "10.9.0.1"
    assert packages.cuda({"cuda-cudart-12-6": "12.6.68-1", "cuda-cudart-13-2": "13.2.1-1"}) == "13.2"


def test_recorded_nvidia_smi() -> None:
    gpus = nvidia_smi.parse_query(text("pc-two-gpus", "commands/nvidia-smi.csv"))
    assert [(gpu.name, gpu.driver, gpu.capability, gpu.memory) for gpu in gpus] == [
        ("NVIDIA TITAN V", "570.86.15", "7.0", None),
        ("NVIDIA RTX 5880 Ada Generation", "570.86.15", "8.9", None),
    ]
    assert nvidia_smi.parse_banner(text("orin-nano-8gb-memory", "commands/nvidia-smi")) == ("540.4.0", "12.6")
    assert nvidia_smi.parse_banner(text("agx-orin-nvidia-smi", "commands/nvidia-smi")) == ("540.4.0", None)
    assert nvidia_smi.parse_query("") == ()
    assert nvidia_smi.parse_query('Field "compute_cap" is not a valid field to query.\n') == ()
    assert nvidia_smi.parse_banner("NVIDIA-SMI has failed") is None


def test_a_graphical_session_of_a_faked_proc(tmp_path: Path) -> None:
    for number, (name, resident) in {"10": ("gnome-shell", 300), "11": ("Xorg", 100), "12": ("python3", 9000)}.items():
        folder = tmp_path / "proc" / number
        folder.mkdir(parents=True)
        (folder / "comm").write_text(name + "\n")
        (folder / "status").write_text(f"Name:\t{name}\nVmRSS:\t{resident:8d} kB\n")
    (tmp_path / "proc/13").mkdir()  # gone since
    assert desktop.memory(Machine(tmp_path)) == 400 * 1024
    assert desktop.memory(Machine(tmp_path / "proc/13")) == 0
