"""A function in a process of its own: what it reports, how it ends, and which errors come back as they were."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hired_edge.child import call, call_reporting
from hired_edge.errors import HiredEdgeError
from tests.tiny.children import count
from tests.tiny.processes import all_gone


def died(status: int) -> HiredEdgeError:
    return HiredEdgeError(f"it ended with {status}", expected="an answer", fix="try again")


def test_reports_come_in_order_before_the_answer() -> None:
    seen: list[int] = []
    assert call_reporting(count, (5, -1), seen.append, died=died) == "done"
    assert seen == [0, 1, 2, 3, 4]


def test_what_was_reported_before_a_death_has_come() -> None:
    seen: list[int] = []
    with pytest.raises(HiredEdgeError, match="it ended with 3; expected an answer; try again"):
        call_reporting(count, (5, 3), seen.append, died=died)
    assert seen == [0, 1, 2]


def test_a_missing_module_is_named_here() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        call(importlib.import_module, "no_such_engine", died=died)
    assert caught.value.name == "no_such_engine"


CALLER = """
from pathlib import Path
from hired_edge.child import call
from tests.tiny.children import note_and_wait
if __name__ == "__main__":
    call(note_and_wait, Path(__import__("sys").argv[1]), died=lambda status: AssertionError(status))
"""


def test_it_ends_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    """Otherwise it would go on writing into a folder that the next export takes over."""
    program, noted = tmp_path / "caller.py", tmp_path / "pid"
    program.write_text(CALLER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, program, noted], env=environment) as caller:
        end = time.monotonic() + 60
        while not noted.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        caller.kill()
    assert all_gone([int(noted.read_text())])
