"""The rules of hired-edge doctor on faked boards: all is well but for one thing, faked or recorded."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from hired_runtime.board import release
from hired_runtime.board.clocks import Clock
from hired_runtime.board.module import MODULES
from hired_runtime.board.module import Module as Board
from hired_runtime.board.nvidia_smi import Gpu
from hired_runtime.board.power_mode import PowerMode
from hired_runtime.board.readings import Readings, read
from hired_runtime.board.rules import Finding, findings
from hired_runtime.board.software import Cuda, Device, Module, Provider
from tests.device.recorded.machine import FOLDER, Recorded

ORIN_NX = Board(MODULES["p3767-0000"], "p3767-0000", "tegra234", "8.7")
MISSING = Module(False, None, "No module named 'x'")
NO_CUDA = Cuda(False, None, (), "libcuda.so.1: cannot open shared object file")
GPU = Cuda(True, "12.6", (Device("Orin", "8.7", 8 << 30),), None)
ORT = Module(True, "1.23.2", None, {"onnxruntime": "1.23.2"})
RAN = Provider(True, True, "onnxruntime 1.23.2")


def board(**changes: object) -> Readings:
    """An Orin NX on which everything is as it should be, with changes."""
    good = Readings(
        python="3.10.12",
        release=release.release("36.4.4"),
        module=ORIN_NX,
        power_mode=PowerMode("MAXN", 0),
        packages={"libnvinfer10": "10.3.0.30-1+cuda12.5", "python3-libnvinfer": "10.3.0.30-1+cuda12.5"},
        cuda=GPU,
        modules={
            "onnxruntime": ORT,
            "tensorrt": Module(True, "10.3.0", None),
            "cuda-bindings": Module(True, "12.9.4", None),
        },
        providers={"CPUExecutionProvider": RAN, "CUDAExecutionProvider": Provider(False, False, "not in it")},
    )
    return dataclasses.replace(good, **changes)


def by_name(readings: Readings) -> dict[str, Finding]:
    found = findings(readings)
    assert len({finding.name for finding in found}) == len(found)
    assert all((finding.level == "ok") == (finding.fix is None) for finding in found)
    return {finding.name: finding for finding in found}


def levels(readings: Readings) -> dict[str, str]:
    return {name: finding.level for name, finding in by_name(readings).items() if finding.level != "ok"}


def test_jetpack_7_0_on_an_orin_is_impossible() -> None:
    thor_only = release.parse((FOLDER / "agx-thor-r38.2.0/root/etc/nv_tegra_release").read_text())
    finding = by_name(board(release=thor_only))["JetPack"]
    assert finding.level == "problem"
    assert finding.found == "JetPack 7.0 (L4T 38.2.0) on Jetson Orin NX 16GB: JetPack 7.0 and 7.1 are for Thor alone"


def test_jetpack_5_is_too_old_and_an_unknown_release_is_taken() -> None:
    assert levels(board(release=release.release("35.4.1"))) == {"JetPack": "problem"}
    assert (
        by_name(board(release=release.release("36.9.9")))["JetPack"].found
        == "JetPack of an unknown number (L4T 36.9.9)"
    )


def test_the_recorded_reserve_of_contiguous_memory_under_a_faked_release() -> None:
    readings = dataclasses.replace(read(Recorded("orin-nano-8gb-memory")), release=release.release("36.4.3"))
    finding = by_name(readings)["contiguous memory"]
    assert finding.level == "warning"
    assert finding.found == (
        "256 MiB reserved (CMA), largest free block elsewhere 4 MiB; building an fp16 LM head of 250 MiB takes 375"
    )
    assert finding.fix is not None
    assert "cma=512M" in finding.fix


@pytest.mark.parametrize(
    ("before", "after"), [("root=/dev/nvme0n1p1", None), ("root=/dev/x cma=256M quiet", "cma=256M")]
)
def test_the_mend_of_contiguous_memory_changes_a_faked_extlinux_conf(
    before: str, after: str | None, tmp_path: Path
) -> None:
    memory = read(Recorded("orin-nano-8gb-memory")).memory
    fix = by_name(board(memory=memory, cma_argument=after))["contiguous memory"].fix
    assert fix is not None
    conf = tmp_path / "extlinux.conf"
    conf.write_text(f"LABEL primary\n      LINUX /boot/Image\n      APPEND ${{cbootargs}} {before}\n#  APPEND old\n")
    command = fix.partition(" && ")[0].removeprefix("sudo ").replace("/boot/extlinux/extlinux.conf", str(conf))
    subprocess.run(command, shell=True, check=True)
    label, linux, append, old = conf.read_text().splitlines()
    assert (label, linux, old) == ("LABEL primary", "      LINUX /boot/Image", "#  APPEND old")
    assert append.count("cma=") == 1
    assert "cma=512M" in append.split()


def test_a_larger_reserve_is_enough() -> None:
    memory = read(Recorded("orin-nano-8gb-memory")).memory
    assert memory is not None
    assert levels(board(memory=dataclasses.replace(memory, cma_total=512 << 20))) == {}


def test_recorded_modes_say_which_number_is_the_fastest() -> None:
    modes = read(Recorded("orin-nx-16gb-power-modes")).power_modes
    finding = by_name(board(power_modes=modes, power_mode=PowerMode("15W", 2)))["power mode"]
    assert finding == Finding("power mode", "15W (2); the fastest is MAXN", "warning", "sudo nvpmodel -m 0")
    assert by_name(board(power_modes=modes))["power mode"].found == "MAXN (0), the fastest of 4"


def test_a_power_mode_without_a_table() -> None:
    finding = by_name(board(power_mode=PowerMode("25W", 3)))["power mode"]
    assert finding.level == "warning"
    assert "grep POWER_MODEL /etc/nvpmodel.conf" in (finding.fix or "")


def test_clocks_that_are_not_held() -> None:
    free, held = Clock("gpu", 306, 918, 306, False), Clock("cpu0", 1984, 1984, 1984, True)
    finding = by_name(board(clocks=(held, free)))["clocks"]
    assert finding == Finding("clocks", "not held: gpu 306-918 MHz", "warning", "sudo jetson_clocks")
    assert by_name(board(clocks=(held,)))["clocks"].level == "ok"


def test_a_graphical_session_and_little_memory() -> None:
    memory = read(Recorded("orin-nano-8gb-memory")).memory
    assert memory is not None
    low = dataclasses.replace(memory, available=memory.total // 3, cma_total=512 << 20)
    assert levels(board(memory=low, desktop=700 << 20)) == {"memory": "warning", "desktop": "warning"}


def test_swap_says_nothing_about_contiguous_memory() -> None:
    memory = read(Recorded("orin-nano-8gb-memory")).memory
    assert memory is not None
    none = dataclasses.replace(memory, swap_total=0, swap_free=0)
    finding = by_name(board(memory=none))["swap"]
    assert finding.level == "ok"
    assert finding.found.startswith("none; it helps exports, never the GPU")


@pytest.mark.parametrize(
    ("changes", "found", "fix"),
    [
        ({"isolated": True, "environment": "/home/me/v"}, "hidden from this venv (/home/me/v)", "pyvenv.cfg"),
        ({"packages": {}}, "not installed", "sudo apt-get install -y python3-libnvinfer"),
        ({"python": "3.11.9"}, "not for Python 3.11.9", "--system-site-packages"),
    ],
)
def test_tensorrts_python_module_is_missing(changes: dict[str, object], found: str, fix: str) -> None:
    modules = {**board().modules, "tensorrt": MISSING}
    finding = by_name(board(modules=modules, **changes))["TensorRT"]
    assert finding.level == "problem"
    assert found in finding.found
    assert fix in (finding.fix or "")


def test_the_mend_of_a_hidden_tensorrt_opens_a_venv(tmp_path: Path) -> None:
    config = tmp_path / "pyvenv.cfg"
    config.write_text("home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.10.12\n")
    modules = {**board().modules, "tensorrt": MISSING}
    fix = by_name(board(modules=modules, isolated=True, environment=str(tmp_path)))["TensorRT"].fix
    assert fix is not None
    subprocess.run(fix, shell=True, check=True)
    assert config.read_text() == "home = /usr/bin\ninclude-system-site-packages = true\nversion = 3.10.12\n"


def test_the_recorded_packages_against_another_tensorrt() -> None:
    packages = read(Recorded("orin-r36.4.7-packages")).packages
    assert levels(board(packages=packages)) == {}
    modules = {**board().modules, "tensorrt": Module(True, "10.16.2.10", None)}
    finding = by_name(board(packages=packages, modules=modules))["TensorRT"]
    assert finding.level == "problem"
    assert finding.found == "the Python module is 10.16.2.10, JetPack's library 10.3.0.30"


def test_two_onnx_runtimes() -> None:
    both = Module(True, "1.23.2", None, {"onnxruntime": "1.23.2", "onnxruntime-gpu": "1.23.2"})
    finding = by_name(board(modules={**board().modules, "onnxruntime": both}))["ONNX Runtime"]
    assert finding.level == "problem"
    assert (finding.fix or "").startswith("pip uninstall -y onnxruntime onnxruntime-gpu;")


def test_bindings_that_are_too_new_for_the_driver() -> None:
    modules = {**board().modules, "cuda-bindings": Module(True, "13.5.0", None)}
    finding = by_name(board(modules=modules))["CUDA bindings"]
    assert (finding.level, finding.fix) == ("problem", "pip install 'cuda-bindings==12.*'")


def test_a_provider_that_is_compiled_in_and_does_not_run() -> None:
    broken = Provider(True, False, "libcudnn.so.9: cannot open shared object file")
    finding = by_name(board(providers={"CPUExecutionProvider": RAN, "CUDAExecutionProvider": broken}))["CUDA provider"]
    assert finding.level == "problem"
    assert "libcudnn.so.9" in finding.found
    wrong = Provider(True, False, "wrong numbers")
    assert levels(board(providers={"CPUExecutionProvider": wrong})) == {"CPU provider": "problem"}


def test_a_driver_that_does_not_answer() -> None:
    silent = Cuda(True, None, (), "cuInit: initialization error (3)")
    assert levels(board(cuda=silent, modules={"onnxruntime": ORT, "tensorrt": board().modules["tensorrt"]})) == {
        "CUDA": "problem"
    }


def test_a_pc_without_anything_of_nvidia() -> None:
    plain = Readings(
        architecture="x86_64",
        cuda=NO_CUDA,
        modules={"onnxruntime": ORT, "tensorrt": MISSING, "tensorrt_rtx": MISSING, "cuda-bindings": MISSING},
        providers={"CPUExecutionProvider": RAN, "CUDAExecutionProvider": Provider(False, False, "not in it")},
    )
    assert levels(plain) == {}
    assert by_name(plain)["CUDA"].found == "no driver: the CPU is used"
    assert "no NVIDIA GPU" in by_name(plain)["machine"].found


def test_a_pc_with_recorded_gpus_and_the_cpus_onnx_runtime() -> None:
    gpus = read(Recorded("pc-two-gpus")).gpus
    assert gpus[1] == Gpu("NVIDIA RTX 5880 Ada Generation", "570.86.15", "8.9", None)
    cuda = Cuda(True, "12.8", (Device("NVIDIA RTX 5880 Ada Generation", "8.9", 48 << 30),), None)
    readings = dataclasses.replace(board(cuda=cuda), release=None, module=None, power_mode=None, packages={}, gpus=gpus)
    assert levels(readings) == {"CUDA provider": "warning"}
