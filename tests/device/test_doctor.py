"""hired-edge doctor: what it says of recorded boards and of this machine."""

from __future__ import annotations

import json

import pytest

from hired_edge.cli import main
from hired_runtime.board.readings import read
from hired_runtime.board.rules import Finding, findings
from hired_runtime.board.software import MODULES, PROVIDERS
from hired_runtime.commands.doctor import describe
from tests.device.recorded.machine import FOLDER, Recorded
from tests.tiny.commands import Capture, accepted, refused


def recorded(name: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings(read(Recorded(name)))}


@pytest.mark.parametrize("folder", sorted(path.name for path in FOLDER.iterdir() if (path / "commands").is_dir()))
def test_every_recorded_board_is_read(folder: str) -> None:
    found = recorded(folder)
    assert found["machine"].level == "ok"
    assert describe(list(found.values()), 100)


def test_a_recorded_orin_nano_super() -> None:
    found = recorded("orin-nano-super-r36.4.3")
    assert found["machine"].found.startswith("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super")
    assert found["JetPack"].found == "JetPack 6.2 (L4T 36.4.3)"
    assert found["power mode"] == Finding("power mode", "MAXN_SUPER (2)")
    assert found["sensors"].found == "4.6 W (VDD_IN), hottest 49 degrees C"
    assert found["TensorRT"].level == "problem"  # its packages were not recorded: as on a board without them
    assert found["TensorRT"].fix == "sudo apt-get install -y python3-libnvinfer"


def test_a_recorded_thor_has_its_jetpack() -> None:
    found = recorded("agx-thor-r38.2.0")
    assert found["machine"].found.startswith("Jetson AGX Thor (p3834-0008, tegra264, SM 11.0)")
    assert found["JetPack"] == Finding("JetPack", "JetPack 7.0 (L4T 38.2.0)")


def test_a_recorded_agx_orin_with_jetpack_7_2() -> None:
    found = recorded("agx-orin-r39.2.0")
    assert found["JetPack"] == Finding("JetPack", "JetPack 7.2 (L4T 39.2.0)")
    assert "contiguous memory" not in found  # a matter of JetPack 6's builder


def test_doctor_on_this_machine(capsys: Capture) -> None:
    status = main(["doctor", "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out.splitlines()[-1])
    listed = {finding["name"]: finding for finding in report["findings"]}
    assert listed["CPU provider"]["level"] == "ok"
    assert status == int(report["status"] == "problem")
    assert (report["status"] == "problem") == any(finding["level"] == "problem" for finding in report["findings"])
    assert report["readings"]["memory"]["total"] > 2**28
    assert report["readings"]["modules"]["onnxruntime"]["version"]


def test_the_exit_status_is_1_with_a_problem(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    board = read(Recorded("orin-nano-super-r36.4.3"))
    monkeypatch.setattr("hired_runtime.commands.doctor.read", lambda machine, on_step: board)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem  TensorRT" in out
    assert "-> sudo apt-get install -y python3-libnvinfer" in out
    assert out.splitlines()[-1] == "1 problem, no warnings"


def test_the_exit_status_is_0_without_one(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pc = read(Recorded("pc-two-gpus"))
    monkeypatch.setattr("hired_runtime.commands.doctor.read", lambda machine, on_step: pc)
    assert accepted(capsys, "doctor").splitlines()[-1] == "no problems, no warnings"


def test_a_page_keeps_commands_whole() -> None:
    page = describe([Finding("memory", "word " * 40, "warning", "sudo " + "x" * 150)], 60)
    assert all(len(line) <= 60 for line in page.splitlines() if "->" not in line)
    assert "sudo " + "x" * 150 in page


def test_an_unknown_option(capsys: Capture) -> None:
    assert "unrecognized arguments: --now" in refused(capsys, "doctor", "--now")


def test_reading_says_what_takes_a_while() -> None:
    steps: list[str] = []
    read(Recorded("agx-thor-power-mode"), steps.append)
    assert steps == [*MODULES, "the CUDA driver", *PROVIDERS]
