"""`hired-edge batch` as a process: what becomes of a run that is killed or interrupted, and what it shows."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.tiny.batches import DONE, names, noise_requests, read_rows, without_cached, write_rows
from tests.tiny.commands import Capture, accepted, finish, slow_steps, start
from tests.tiny.processes import PATIENCE_S
from tests.tiny.terminals import OnTerminal

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests/golden/bundle"


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    return noise_requests(tmp_path / "noise")


def killed(requests: Path, output: Path, number: signal.Signals, *options: object) -> tuple[int, int, str]:
    """Rows that the journal holds whole, the exit status and stderr of a run that gets this signal on its way."""
    process = start("batch", BUNDLE, requests, "-o", output, *options, options=["-c", slow_steps(0.05)])
    journal, begin = output.with_name(f".{output.name}.journal"), time.monotonic()
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.01)
    os.killpg(process.pid, number)
    status, _, stderr = finish(process)
    assert names(output.parent) == {journal.name}
    return journal.read_bytes().count(b"\n") - 1, status, stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_run_that_is_stopped_goes_on_and_ends_as_if_nothing_had_happened(
    number: signal.Signals, temperature: float, requests: Path, tmp_path: Path, capsys: Capture
) -> None:
    options = ("--max-new-tokens", 4, "--threads", 1, "--temperature", temperature)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole, output = tmp_path / "whole" / "answers.jsonl", tmp_path / "stopped" / "answers.jsonl"
    accepted(capsys, "batch", BUNDLE, requests, "-o", whole, *options)
    kept, status, stderr = killed(requests, output, number, *options)
    assert 3 <= kept < 12
    if number == signal.SIGINT:
        line = f"hired-edge: interrupted: {kept} of 12 rows are answered; the same command goes on from there\n"
        assert (status, stderr) == (130, line)
    summary = json.loads(accepted(capsys, "batch", BUNDLE, requests, "-o", output, *options, "--batch", 1, "--json"))
    assert {**summary, "seconds": 0, "rows_per_second": 0} == {
        "rows": 12,
        "answers": 12,
        "errors": 0,
        "asked_now": 12 - kept,
        "seconds": 0,
        "rows_per_second": 0,
    }
    assert without_cached(read_rows(output)) == without_cached(read_rows(whole))
    assert names(output.parent) == DONE


NO_TQDM = """
import sys
from hired_edge.cli import main
from hired_runtime.batch import progress

progress.find_spec = lambda name: None
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("program", [None, NO_TQDM], ids=["tqdm", "a plain line"])
def test_progress_is_shown_on_a_terminal(program: str | None, requests: Path, tmp_path: Path) -> None:
    rows = [*read_rows(requests), b"{"]
    arguments = ("batch", BUNDLE, write_rows(requests, rows), "-o", tmp_path / "answers.jsonl", "--max-new-tokens", 2)
    with OnTerminal(*arguments, program=program) as terminal:
        assert terminal.ended() == 0, terminal.shown
    assert "13/13" in terminal.shown
    assert "1 error" in terminal.shown
    assert "row/s" in terminal.shown or "rows/s" in terminal.shown
    assert terminal.shown.splitlines()[-1].endswith(" a second)")
    process = start(*arguments[:-4], "-o", tmp_path / "quiet.jsonl", "--max-new-tokens", 2)
    assert finish(process)[2] == ""
