"""`make demo`, as its user meets it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "demo.run", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_three_questions_at_four_budgets() -> None:
    done = demo()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    (head,) = (line for line in lines if line.startswith("budget"))
    assert head.split() == ["budget", "100%", "40%", "20%", "10%", "truth"]
    assert sum("?" in line for line in lines) == 3
    for name in ("visual tokens", "time to first token, ms", "key-value cache, KiB"):
        (row,) = (line for line in lines if line.startswith(name))
        figures = [float(figure) for figure in row.removeprefix(name).split()]
        assert len(figures) == 4
        assert figures == sorted(figures, reverse=True) or name.startswith("time")
    assert (ROOT / "demo/output/kept.png").is_file()


def test_ones_own_picture_and_question() -> None:
    done = demo("--image", str(ROOT / "demo/pictures/coffee.jpg"), "--prompt", "How many cards are there?")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"How many cards are there\?( +\S+){4}\n", done.stdout)


def test_a_missing_picture_is_one_line() -> None:
    done = demo("--image", "nowhere.jpg")
    assert done.returncode == 1
    assert done.stderr.startswith("demo: nowhere.jpg")
    assert done.stderr.count("\n") == 1
