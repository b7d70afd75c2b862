"""`hired-edge profile` as processes: Ctrl-C, a kill of either, a full disk, and the line that says how far it is."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.tiny.children import largest_file
from tests.tiny.commands import Capture, accepted, check_refusal, finish, refused, start
from tests.tiny.processes import PATIENCE_S, all_gone, children

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
LONG = ("--budgets", "20%", "--warmup", 0, "--iterations", 10**6)
SHORT = ("--budgets", "20%", "--warmup", 0, "--iterations", 1, "--max-new-tokens", 2, "--threads", 1)


def profiling(picture: Path, folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A profile that never ends, and the process of its budget once that has loaded its engine."""
    process = start("profile", BUNDLE, "--image", picture, "-o", folder, *LONG)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        for child in children(process.pid):
            if "onnxruntime" in Path(f"/proc/{child}/maps").read_text():
                time.sleep(0.5)
                return process, child
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("it never came to that")


def test_ctrl_c_leaves_nothing(picture: Path, tmp_path: Path) -> None:
    process, _ = profiling(picture, tmp_path / "report")
    family = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process) == (130, "", "hired-edge: interrupted\n")
    assert family
    assert all_gone(family)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_is_told_with_its_budget(picture: Path, tmp_path: Path) -> None:
    process, child = profiling(picture, tmp_path / "report")
    os.kill(child, signal.SIGKILL)
    line = check_refusal(*finish(process))
    assert line.startswith("the process of budget 20% was killed by SIGKILL; expected it to end with its measurements")
    assert list(tmp_path.iterdir()) == []


def test_no_process_outlives_a_profile_that_is_killed(picture: Path, tmp_path: Path) -> None:
    process, child = profiling(picture, tmp_path / "report")
    process.kill()
    process.communicate()
    assert all_gone([child])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_earlier_report(picture: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = ("profile", BUNDLE, "--image", picture, "-o", tmp_path / "report", *SHORT)
    with largest_file(1000):
        line = refused(capsys, *arguments)
    assert "profile.json cannot be written (File too large)" in line
    assert list((tmp_path / "report").iterdir()) == []
    accepted(capsys, *arguments)
    before = {path: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    with largest_file(1000):
        refused(capsys, *arguments)
    assert {path: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_says_how_far_it_is_on_a_terminal_only(terminal: bool, picture: Path, tmp_path: Path) -> None:
    main, other = os.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    arguments = ["profile", BUNDLE, "--image", picture, "-o", tmp_path / "report", *SHORT]
    process = subprocess.Popen(
        [sys.executable, "-m", "hired_edge", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=other,
    )
    os.close(other)
    assert process.wait(PATIENCE_S) == 0
    try:
        shown = os.read(main, 2**16).decode()
    except OSError:  # a terminal that nobody holds any more
        shown = ""
    os.close(main)
    assert ("20%: iteration 1 of 1" in shown) is terminal
    assert shown.endswith("\r\033[K") is terminal
