"""Two commands that write to one place: the second is refused in words, and the first one's result is as if alone.

Both are processes. The first one is stopped (SIGSTOP) on its way, so that it is there for as long as it takes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny.batches import noise_requests
from tests.tiny.commands import Capture, finish, refused, start
from tests.tiny.processes import PATIENCE_S
from tests.tiny.questions import write_questions

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
FEW = ("--max-new-tokens", 2, "--threads", 1)
Command = tuple[object, ...]


def evaluation(folder: Path) -> tuple[Command, Path, Path, str]:
    """The command, what shows that it has begun, its result, and how it is refused."""
    write_questions(folder / "questions", pictures=1, prompts=1)
    report = folder / "report"
    asked = ("eval", BUNDLE, folder / "questions", "--report", report, "--budgets", "20%", *FEW)
    return asked, report / "answers.jsonl", report / "report.json", "one run for each --report; wait for it"


def batch(folder: Path) -> tuple[Command, Path, Path, str]:
    output = folder / "answers.jsonl"
    asked = ("batch", BUNDLE, noise_requests(folder / "noise"), "-o", output, *FEW)
    return asked, folder / ".answers.jsonl.journal", output, "one run for each -o; wait for it"


@pytest.mark.parametrize("prepare", [evaluation, batch])
def test_the_second_is_refused(
    prepare: Callable[[Path], tuple[Command, Path, Path, str]], tmp_path: Path, capsys: Capture
) -> None:
    asked, begun, result, refusal = prepare(tmp_path)
    first, patience = start(*asked), time.monotonic() + PATIENCE_S
    while not begun.exists() or not begun.stat().st_size:  # its first line is written behind its lock
        assert first.poll() is None, finish(first)
        assert time.monotonic() < patience
        time.sleep(0.001)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        assert not result.exists(), "it was too late"
        line = refused(capsys, *asked)
        assert f"another process is writing {begun}; expected {refusal}" in line
        assert not result.exists()
    finally:
        os.killpg(first.pid, signal.SIGCONT)
        status, _, stderr = finish(first)
    assert status == 0, stderr
    assert result.exists()
