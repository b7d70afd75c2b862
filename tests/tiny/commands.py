"""Runs `hired-edge` as a user does, and holds its refusals to their form. Knows nothing about any command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from hired_edge.cli import main
from tests.tiny.processes import PATIENCE_S

Capture = pytest.CaptureFixture[str]


def check_refusal(status: int, stdout: str, stderr: str) -> str:
    """One line with its three parts, status 2, nothing on stdout: returns the line without `hired-edge: error: `."""
    assert stdout == ""
    return check_line(status, stderr)


def check_line(status: int, stderr: str) -> str:
    assert status == 2, stderr
    assert stderr.startswith("hired-edge: error: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    line = stderr.strip().removeprefix("hired-edge: error: ")
    got, expected, fix = line.split("; expected ")[0], *line.split("; expected ")[1].rsplit("; ", 1)
    assert all((got, expected, fix)), line
    assert len(line) < 1000, line
    return line


def refused(capsys: Capture, *argv: object) -> str:
    """The line with which `hired-edge argv...` refuses, run in this process."""
    capsys.readouterr()
    status = main([str(part) for part in argv])
    captured = capsys.readouterr()
    return check_refusal(status, captured.out, captured.err)


def refused_in_the_end(capsys: Capture, *argv: object) -> str:
    """As `refused`, by a command that has reported what it found before."""
    capsys.readouterr()
    status = main([str(part) for part in argv])
    return check_line(status, capsys.readouterr().err)


def accepted(capsys: Capture, *argv: object) -> str:
    """What `hired-edge argv...` prints on stdout, run in this process."""
    capsys.readouterr()
    status = main([str(part) for part in argv])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def start(*argv: object, options: Sequence[str] = (), **popen: Any) -> subprocess.Popen[str]:
    """`python -m hired_edge argv...` in a process group of its own, as a terminal starts it."""

    def as_a_terminal() -> None:  # a test that runs in the background may have inherited SIGINT as ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, *options, "-m", "hired_edge", *map(str, argv)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=as_a_terminal,
        **popen,
    )


def slow_steps(seconds: float) -> str:
    """A program for `start(..., options=["-c", program])`: as `hired-edge`, but every step takes this much longer.

    The answers of a small model are too short to be interrupted.
    """
    return f"""
import sys, time
from hired_edge.cli import main
from hired_runtime import ort

step = ort.OrtLanguage.step

def slow(*arguments):
    time.sleep({seconds})
    return step(*arguments)

ort.OrtLanguage.step = slow
sys.exit(main(sys.argv[3:]))
"""


def finish(process: subprocess.Popen[str], timeout: float = PATIENCE_S) -> tuple[int, str, str]:
    """Exit status, stdout, stderr. What takes longer is killed, with its children, and raises."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, stdout, stderr
