"""`hired-edge eval` on the committed bundle: what it writes and prints, what it refuses, and how it survives a kill."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hired_edge import __version__, cli
from hired_edge.budget import parse_budget
from hired_edge.bundle import read_manifest, write_manifest
from hired_edge.limits import derive_limits
from hired_edge.policies import POLICIES
from hired_runtime.commands import eval as command
from hired_runtime.evaluation import runner
from hired_runtime.evaluation.record import ANSWERS
from tests.tiny.children import largest_file
from tests.tiny.commands import Capture, accepted, finish, refused, slow_steps, start
from tests.tiny.processes import PATIENCE_S
from tests.tiny.questions import write_questions, write_rows

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
FILES = {"accuracy.png", "answers.jsonl", "report.json", "report.md"}
SETTING = ["policy", "budget", "alpha", "newlines", "partitions", "positions"]
ROW = ["policy", "budget", "task", "n", "accuracy", "low", "high", *SETTING[2:], "visual_tokens"]
DIFFERENCE = [*SETTING, "task", "against", "n", "difference", "low", "high"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_questions(tmp_path / "questions")
    return tmp_path / "questions"


def asked() -> list[tuple[str, float | None, str]]:
    """The settings of the report below."""
    hired = [("hired", a, b) for a in (0.5, 0.3) for b in ("40%", "20.0%")]
    return [("full", None, "100%"), *hired, ("random", None, "40%"), ("random", None, "20.0%")]


def test_the_report(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = write_questions(tmp_path / "bad|set")
    write_rows(tmp_path / "bad|set", [*rows, b"{", {**rows[0], "image": "a|b.png"}])
    folder = tmp_path / "new" / "report"
    options = ("--policies", "full, hired,random", "--budgets", "40%,20.0%", "--alpha", "0.5,0.3")
    arguments = (BUNDLE, tmp_path / "bad|set", "--report", folder, "--max-new-tokens", 4, *options)
    assert cli.main(["eval", *map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == "2 bad rows, not asked:"
    assert captured.err.splitlines()[2] == "  line 14: 'a|b.png' is not there"
    lines = captured.out.splitlines()
    assert lines[0].startswith(
        "all tasks: accuracy in %, 95 % interval (12 questions about 4 pictures, 84 of 84 answers"
    )
    assert lines[1].split() == ["policy", "100%", "40%", "20.0%"]
    assert [line.split("  ")[0] for line in lines[2:]] == ["full", "hired", "hired, alpha 0.3", "random"]
    assert {path.name for path in folder.iterdir()} == FILES

    report = json.loads((folder / "report.json").read_text())
    assert list(report) == ["rows", "differences", "all_tasks", "bad_rows", "run"]
    for row, (policy, alpha, budget) in zip(report["all_tasks"]["rows"], asked(), strict=True):
        assert (row["task"], row["n"], row["policy"], row["alpha"], row["budget"]) == (None, 12, policy, alpha, budget)
        found = [each for each in report["rows"] if all(each[name] == row[name] for name in SETTING)]
        assert row["accuracy"] == pytest.approx(sum(each["n"] * each["accuracy"] for each in found) / 12)
    for row in report["all_tasks"]["differences"]:
        assert list(row) == DIFFERENCE
        assert (row["task"], row["n"]) == (None, 12)
    named = [(row["task"], row["policy"], row["alpha"], row["budget"]) for row in report["rows"]]
    assert named == [(task, *each) for task in ("read", "find") for each in asked()]
    for row in report["rows"]:
        assert list(row) == ROW
        assert row["n"] == {"read": 8, "find": 4}[row["task"]]
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert (row["newlines"], row["partitions"], row["positions"]) == (None, "all", "compact")
        used, most = row["visual_tokens"], {"100%": 320 + 16, "40%": 128, "20.0%": 64}[row["budget"]]
        assert 0 < used["least"] <= used["mean"] <= used["most"] <= most
    compared = [
        [(each["policy"], each["alpha"], each["budget"]) for each in (row, row["against"])]
        for row in report["differences"]
        if row["task"] == "find"
    ]
    stock = [[each, asked()[0]] for each in asked()[1:]]
    hired = [[("random", None, b), ("hired", a, b)] for b in ("40%", "20.0%") for a in (0.5, 0.3)]
    alphas = [[("hired", 0.3, b), ("hired", 0.5, b)] for b in ("40%", "20.0%")]
    assert sorted(compared, key=str) == sorted(stock + hired + alphas, key=str)
    assert all(list(row) == DIFFERENCE for row in report["differences"])
    assert [row["line"] for row in report["bad_rows"]] == [13, 14]
    run = report["run"]
    assert (run["bundle"], run["manifest_digest"]) == ("bundle", read_manifest(BUNDLE).digest)
    assert (run["questions"], run["pictures"], run["metric"], run["max_new_tokens"]) == (12, 4, "exact", 4)
    assert run["hired_edge"] == __version__
    assert run["engine"].startswith("onnxruntime ")

    page = (folder / "report.md").read_text()
    assert "![Accuracy against budget, a panel for each task](accuracy.png)" in page
    for heading in ("## read (8 questions)", "## find (4 questions)", "## all tasks (12 questions)", "## Bad rows: 2"):
        assert heading in page
    assert "| 14 | 'a\\|b.png' is not there |" in page
    for text in (page, (folder / "report.json").read_text(), (folder / ANSWERS).read_text()):
        assert str(tmp_path) not in text
        assert os.uname().nodename not in text
    with Image.open(io.BytesIO((folder / "accuracy.png").read_bytes())) as drawn:
        drawn.load()
        assert min(drawn.size) > 300
        assert len(drawn.convert("RGB").getcolors(2**20) or []) > 50


def test_json_is_the_report(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = ("eval", BUNDLE, dataset, "--report", tmp_path / "report", "--policies", "hired", "--budgets", "20%")
    line = accepted(capsys, *arguments, "--max-new-tokens", 2, "--json")
    assert line.count("\n") == 1
    assert json.loads(line) == json.loads((tmp_path / "report" / "report.json").read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policies", "best"], f"selection policy 'best'; expected {', '.join(POLICIES)}; pass"),
        (["--policies", "hired,,full"], "the list 'hired,,full'"),
        (["--policies", ""], "the list ''"),
        (["--budgets", "20%,many"], "a visual-token budget of 'many'"),
        (["--budgets", "673"], "673 visual tokens asked for; expected at most 672"),
        (["--alpha", "0.5,2"], "alpha of 2"),
        (["--metric", "bleu"], "argument --metric"),
        (["--policies", "hired,prumerge"], "policy 'prumerge' with a bundle whose vision graph gives no keys"),
        (["--newlines", "none,some"], "newline policy 'some'"),
        (["--newlines", "kept-rows", "--partitions", "base"], "for one tile"),
        (["--positions", "original,mine"], "positions 'mine'; expected compact, original"),
        (["--partitions", "tiles"], "argument --partitions"),
        (["--batch", "0"], "--batch 0; expected 1 or more"),
        (["--batch", "3"], "3 batch rows asked for; expected at most 2"),
        (["--max-new-tokens", "49"], "49 new tokens asked for; expected at most 48"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--threads", "0"], "--threads 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_any_work(
    options: list[str], message: str, dataset: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = refused(capsys, "eval", BUNDLE, dataset, "--report", tmp_path / "report", *options)
    assert message in line
    assert not (tmp_path / "report").exists()


def test_a_budget_that_was_not_exported(bundle: Path, dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    manifest = read_manifest(bundle)
    limits = derive_limits(manifest.vision.tiling, [parse_budget("20%")], text_tokens=64, new_tokens=32)
    write_manifest(bundle, dataclasses.replace(manifest, limits=limits))
    arguments = ("eval", bundle, dataset, "--report", tmp_path / "report", "--max-new-tokens", 2)
    for options in (("--policies", "full,hired", "--budgets", "20%"), ("--policies", "hired", "--budgets", "40%")):
        assert f"expected at most {limits.visual_tokens}" in refused(capsys, *arguments, *options)
    assert not (tmp_path / "report").exists()
    accepted(capsys, *arguments, "--policies", "hired", "--budgets", "20%")


def test_data_sets_bundles_and_folders_that_are_none(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    report = ("--report", tmp_path / "report")
    assert "questions.jsonl cannot be read" in refused(capsys, "eval", BUNDLE, tmp_path, *report)
    assert "does not exist" in refused(capsys, "eval", tmp_path / "nowhere", dataset, *report)
    few = ("--policies", "hired", "--budgets", "20%", "--max-new-tokens", 1)
    (tmp_path / "file").touch()
    line = refused(capsys, "eval", BUNDLE, dataset, "--report", tmp_path / "file", *few)
    assert "cannot be written" in line


@pytest.mark.parametrize("missing", ["matplotlib", "tqdm"])
def test_a_missing_extra_is_named_first(
    missing: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == missing else find_spec(name))
    line = refused(capsys, "eval", tmp_path / "nowhere", tmp_path / "nothing", "--report", tmp_path / "report")
    assert line == f"no module named {missing}; expected the 'eval' extra; run: pip install 'hired-edge[eval]'"


def test_a_report_that_does_not_fit_leaves_an_older_one_alone(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "report"
    arguments = ("eval", BUNDLE, dataset, "--report", folder, "--policies", "hired", "--budgets", "20%")
    accepted(capsys, *arguments, "--max-new-tokens", 1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with largest_file(5000):
        line = refused(capsys, *arguments, "--max-new-tokens", 1)
    assert "accuracy.png cannot be written (File too large)" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_data_set_needs_another_folder_or_a_restart(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "report"
    few = ("--report", folder, "--policies", "hired", "--budgets", "20%", "--max-new-tokens", 1)
    accepted(capsys, "eval", BUNDLE, dataset, *few)
    write_questions(tmp_path / "other", prompts=2)
    line = refused(capsys, "eval", BUNDLE, tmp_path / "other", *few)
    assert "holds answers of another run (questions " in line
    assert line.endswith("pass another --report, or --restart to throw its answers away")
    assert "8 of 8 answers made now" in accepted(capsys, "eval", BUNDLE, tmp_path / "other", *few, "--restart")


def test_no_old_report_stays_beside_the_answers_of_a_restart(
    dataset: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "report"
    few = ("--report", folder, "--policies", "hired", "--budgets", "20%", "--max-new-tokens", 1)
    accepted(capsys, "eval", BUNDLE, dataset, *few)
    assert {path.name for path in folder.iterdir()} == FILES
    answer, asked = runner.answer, []

    def interrupted(*args: Any, **options: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer(*args, **options)

    monkeypatch.setattr(runner, "answer", interrupted)
    assert cli.main(["eval", *map(str, (BUNDLE, dataset, *few, "--restart"))]) == 130
    assert {path.name for path in folder.iterdir()} == {ANSWERS}
    assert "6 of 12 answers made now" in accepted(capsys, "eval", BUNDLE, dataset, *few)
    assert {path.name for path in folder.iterdir()} == FILES


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(
    dataset: Path, tmp_path: Path, capsys: Capture
) -> None:
    def arguments(folder: str) -> tuple[Any, ...]:
        options = ("--policies", "hired,random", "--budgets", "20%,10%", "--max-new-tokens", 6)
        return ("eval", BUNDLE, dataset, "--report", tmp_path / folder, *options)

    accepted(capsys, *arguments("whole"))
    process = start(*arguments("killed"), options=["-c", slow_steps(0.05)])
    answers, begin = tmp_path / "killed" / ANSWERS, time.monotonic()
    while not answers.exists() or answers.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = answers.read_bytes().count(b"\n") - 1
    assert 0 < kept < 48
    assert {path.name for path in answers.parent.iterdir()} == {ANSWERS}
    out = accepted(capsys, *arguments("killed"))
    assert f"{48 - kept} of 48 answers made now" in out
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "killed")]
    for report in reports:
        del report["run"]["seconds"], report["run"]["answers_made_now"]
    assert reports[0] == reports[1]
    assert sorted(answers.read_bytes().splitlines()) == sorted((tmp_path / "whole" / ANSWERS).read_bytes().splitlines())


def test_ctrl_c_keeps_what_was_answered(dataset: Path, tmp_path: Path) -> None:
    process = start("eval", BUNDLE, dataset, "--report", tmp_path / "report", options=["-c", slow_steps(0.05)])
    answers, begin = tmp_path / "report" / ANSWERS, time.monotonic()
    while not answers.exists():
        assert time.monotonic() - begin < PATIENCE_S
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process) == (130, "", "hired-edge: interrupted\n")
    assert {path.name for path in answers.parent.iterdir()} == {ANSWERS}


def test_a_bar_is_shown_on_a_terminal_only(dataset: Path, tmp_path: Path) -> None:
    few = ("--policies", "hired", "--budgets", "20%", "--max-new-tokens", 2)
    process = start("eval", BUNDLE, dataset, "--report", tmp_path / "quiet", *few)
    assert process.communicate(timeout=PATIENCE_S)[1] == ""
    main, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    arguments = ["eval", BUNDLE, dataset, "--report", tmp_path / "shown", *few]
    process = subprocess.Popen(
        [sys.executable, "-m", "hired_edge", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    assert process.wait(PATIENCE_S) == 0
    shown = os.read(main, 2**16).decode()
    os.close(main)
    assert "picture" in shown
    assert "answers/s" in shown
    assert "questions/s" not in shown
