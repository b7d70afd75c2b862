"""Builds side by side; commands that are killed or find the disk full, by tests.crashes with few moments."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.figures import filled
from tests.crashes import page
from tests.crashes.cases import NOTHING, OLD
from tests.crashes.processes import ROOT
from tests.crashes.trials import MIXED, NEW
from tests.host.bundles import Bundles
from tests.tiny.commands import Capture, finish, refused_in_the_end, start
from tests.tiny.processes import PATIENCE_S


def test_the_second_of_two_builds_is_refused_and_the_first_one_ends_well(
    bundles: Bundles, tmp_path: Path, capsys: Capture
) -> None:
    """Two processes; the first one is stopped while it builds, so that it is there for as long as it takes."""
    bundle = Path(shutil.copytree(bundles("jp7-int4").bundle, tmp_path / "bundle"))
    asked = ("build", bundle, "--sm", 86, "--visual-tokens", "20%")
    first, patience = start(*asked), time.monotonic() + PATIENCE_S
    while not list(bundle.glob("engines/.*.partial")):
        assert first.poll() is None, finish(first)
        assert time.monotonic() < patience
        time.sleep(0.001)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        line = refused_in_the_end(capsys, *asked)
        assert line == f"another build is writing into {bundle}; expected one at a time; wait until it has ended"
    finally:
        os.killpg(first.pid, signal.SIGCONT)
        status, _, stderr = finish(first)
    assert status == 0, stderr
    (engines,) = (bundle / "engines").iterdir()
    assert sorted(path.suffix for path in engines.iterdir()) == [".engine", ".engine", ".json"]


def test_the_page_has_a_place_for_each_table_and_keeps_the_rest() -> None:
    row = page.Row("build", OLD, finished=3)
    row.found.update([OLD, OLD, NEW])
    table = page.table([row], "kills")
    assert table.splitlines()[0].split(" | ")[2:] == ["kills", NOTHING, OLD, NEW, MIXED, "the same command finished |"]
    assert table.splitlines()[2] == f"| build | {OLD} | 3 |  | 2 | 1 |  | 3 |"
    text = page.PAGE.read_text()
    for name in ("crashes", "disk full"):
        shown = filled(text, name, page.framed(table))
        assert shown.count(table) == 1
        assert filled(shown, name, "") == filled(text, name, "")
        assert len(shown.split("<!-- figures: ")) == len(text.split("<!-- figures: "))


def carried_out(*words: object) -> list[list[str]]:
    """The rows of the table."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.crashes", *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
    assert "; 0 broke something" in process.stdout
    return [line.strip("| ").split(" | ") for line in process.stdout.splitlines() if line.startswith("| ")][2:]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--kills", 20), ("--disk-full", "--every", 8)], ids=["kills", "full disks"])
def test_the_old_result_or_the_new_one_is_there_and_the_same_command_finishes(words: tuple[object, ...]) -> None:
    rows = carried_out(*words)
    commands = ["export", "build", "build", "eval", "eval", "batch", "sign", "sign", "pack", "unpack"]
    assert [row[0] for row in rows] == commands
    for row in rows:
        assert int(row[2]) == int(row[-1]) > 0
        assert sum(map(int, filter(None, row[3:-1]))) == int(row[2])


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    """Runs tests.crashes on `pack` with a line of the library replaced by another."""

    def run(line: str, other: str) -> subprocess.CompletedProcess[str]:
        whole = ROOT / "runtime/hired_runtime/whole.py"
        text = whole.read_text()
        assert text.count(line) == 1
        (tmp_path / "sitecustomize.py").write_text(
            "import importlib.util, sys\n"
            f"source = {text.replace(line, other)!r}\n"
            f"spec = importlib.util.spec_from_loader('hired_runtime.whole', None, origin={str(whole)!r})\n"
            "module = importlib.util.module_from_spec(spec)\n"
            "exec(compile(source, 'whole.py', 'exec'), module.__dict__)\n"
            "sys.modules['hired_runtime.whole'] = module\n"
        )
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        return subprocess.run(
            [sys.executable, "-m", "tests.crashes", "pack", "--kills", "240"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "other", "complaint"),
    [
        (
            "        partial.replace(path)\n        synchronise(path.parent)",
            "        path.write_bytes(b'half'); partial.replace(path); synchronise(path.parent)",
            "neither",
        ),
        ("    _clean(path.parent, name)\n", "", "the same command leaves"),
    ],
    ids=["written in place", "never cleaned"],
)
def test_a_library_that_does_it_badly_is_found_out(
    line: str, other: str, complaint: str, broken: Callable[[str, str], subprocess.CompletedProcess[str]]
) -> None:
    process = broken(line, other)
    assert process.returncode == 1, process.stderr
    assert complaint in process.stdout
