"""`python -m benchmarks.cpu`: its arithmetic, its page, its workers; and all of it, with a tiny model and no llama.cpp.

What llama.cpp does is measured by `make bench` alone: it takes ten minutes to compile.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import Page
from benchmarks.cpu import __main__ as command
from benchmarks.cpu import measuring, page, peers
from benchmarks.cpu.results import (
    LLAMA,
    OURS,
    OURS_BESIDE_TORCH,
    TORCH,
    Ceilings,
    Peak,
    Run,
    Series,
    Share,
    Where,
    on_line,
    ratio,
)
from benchmarks.cpu.workers import Worker
from benchmarks.shapes import TINY
from hired_edge import strict
from hired_edge.errors import HiredEdgeError, InputError
from hired_edge.planner.published import PUBLISHED, Published

GOLDEN = Path(__file__).parents[1] / "golden/bundle"


def example() -> Run:
    """A run that nobody measured: times that are easy to reckon with."""

    def series(side: str, what: str, few: float, many: float) -> list[Series]:
        return [Series(side, what, layers, (s, 9.0, 0.1)) for layers, s in ((1, few), (3, many))]

    prompts = [
        ("prefill 640", 1.0, 2.0),
        ("prefill 2992", 4.0, 8.0),
        ("decode 640", 0.5, 0.6),
        ("decode 2992", 0.5, 0.7),
    ]
    return Run(
        written="2000-01-01",
        command="python -m benchmarks.cpu",
        minutes=1.0,
        shape="llava-v1.6-mistral-7b",
        depth=32,
        layers=(1, 3),
        block_size=128,
        vision="int8",
        where=Where("a processor", 2, 2**34, 2, "3.11.7", ("an engine 1.0",)),
        ceilings=Ceilings(1e11, 1e10, 2e10, (640, 4096, 14336), 2**28),
        series=(
            *(each for what, few, many in prompts for each in series(OURS, what, few, many)),
            *(each for what, few, many in prompts for each in series(LLAMA, what, 2 * few, 2 * many)),
            *series(OURS_BESIDE_TORCH, "prefill 640", 1.1, 2.5),
            *series(TORCH, "prefill 640", 4.0, 8.0),
            Series(TORCH, "see 20%", 1, (30.0,)),
            *(
                Series(OURS, f"see {budget} {stage}", 1, (seconds,))
                for budget in ("100%", "20%")
                for stage, seconds in (("preprocess", 0.1), ("vision", 10.0), ("select", 0.02), ("splice", 0.03))
            ),
        ),
        policies={"hired": (0.001, 0.002, 0.003)},
        shares={
            "prefill 640": (Share("MatMulNBits", 0.9), Share("other", 0.1)),
            "decode 640": (Share("MatMulNBits", 0.9),),
        },
        peaks=(
            Peak(TORCH, "20%", 1, 1, 2**30, 2**33),
            Peak(OURS, "20%", 1, 1, 2**29, 2**30),
        ),
        left_out=("memory of PyTorch (no time left)",),
    )


def test_full_depth_lies_on_the_line() -> None:
    run = example()
    assert on_line((1, 3), (1.0, 2.0), 32) == 16.5
    assert run.full(OURS, "prefill 640") == 16.5
    assert run.full(LLAMA, "prefill 640") == 33
    assert run.full(OURS, "prefill 40") is None
    assert ratio(run.full(LLAMA, "prefill 640"), run.full(OURS, "prefill 640")) == 2


def test_the_page_tells_what_was_measured_and_what_was_not() -> None:
    text = page.section(example())
    assert "| prefill of 640 | 2000 | 4000 | 2.00 | 2.00 | 8000 | 2500 | 3.20 |" in text
    assert "| hired-edge, 20 % (640 tokens) | 26.6 |  |" in text, "16.5 s of prefill and 10.15 of the picture"
    assert "| HiRED in PyTorch, float32, 20 % (640 tokens) | 96.0 | 2.91 |" in text
    assert "what hired-edge took in those rounds, 33.0 s." in text, "1.1 + 31 * 0.7 of prefill"
    assert "preprocess 100 ms, select 20 ms, splice 30 ms: 0.56 %" in text
    assert "| hired | 2 |" in text
    assert "MatMulNBits 90.0 %, other 10.0 %" in text
    assert "which PyTorch holds, are 28.14 GiB alone." in text, "7.554 thousand million parameters"
    assert "| decode behind 640 | MatMulNBits 100.0 % | 13 % of the bytes read, 27 % of the copy's |" in text, (
        "135 MB of a layer in 50 ms"
    )
    assert "| 0.50 | 1.00 | 50 % |" in text
    assert "Left out: memory of PyTorch (no time left)." in text
    nothing = page.section(replace(example(), series=(), policies={}, shares={}, peaks=()))
    assert "| prefill of 640 |  |  |  |  |  |  |  |" in nothing


def test_a_new_run_comes_on_top_of_the_older_ones(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    Page(path, page.HEAD).add(page.section(example()))
    Page(path, f"{page.HEAD}And a new sentence.\n").add(page.section(replace(example(), written="2000-01-02")))
    text = path.read_text()
    assert text.startswith(page.HEAD)
    assert 0 < text.index("And a new sentence.") < text.index("2000-01-02") < text.index("2000-01-01")
    assert text.count("# On a CPU") == 1


def test_another_file_is_not_taken_for_the_page(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("mine")
    for path in (notes, tmp_path, tmp_path / "nowhere/page.md"):
        with pytest.raises(InputError):
            Page(path, page.HEAD)
    assert notes.read_text() == "mine"


def test_a_worker_answers_until_it_is_closed() -> None:
    with Worker("ours", None, "benchmarks.cpu.ours", [str(GOLDEN), "1", "20%"]) as worker:
        assert worker.ask("version").startswith("onnxruntime ")
        assert worker.ask("prefill", tokens=9) > 0
        assert len(worker.ask("decode", cache=9, steps=3)) == 3
        found = worker.ask("policies", budget="20%", names=["hired", "uniform"], repeats=2)
        assert [len(seconds) for seconds in found.values()] == [2, 2]
        shares = worker.ask("profile", tokens=9)
        assert list(shares) == ["prefill 9", "decode 9"]
        assert shares["prefill 9"]["MatMul"] > 0


def test_a_worker_that_dies_is_told_in_one_line() -> None:
    with pytest.raises(HiredEdgeError, match=r"the worker ours ended with status 1 .*does not exist") as caught:
        Worker("ours", None, "benchmarks.cpu.ours", ["/nowhere", "1", "20%"])
    assert "\n" not in caught.value.got


def test_a_peer_that_cannot_be_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PACKAGES", ("./no-such-folder",))
    interpreter, told = peers.found(tmp_path / "peers", False)
    assert interpreter is None
    assert told
    assert "cannot be installed" in told[0]
    assert not (tmp_path / "peers" / peers.INSTALLED).exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layers", "3"], "two numbers"),
        (["--layers", "3,1"], "rising"),
        (["--shape", "llava-1.5-7b"], "llava-v1.6-mistral-7b"),
        (["--without", "vLLM"], "llama.cpp or PyTorch"),
        (["--out", "/nowhere/page.md"], "no folder"),
        (["--minutes", "nan"], "--minutes nan; expected 1 or more"),
        (["--threads", "0"], "--threads 0; expected 1 or more"),
        (["--work", "/dev/null/work"], "--work /dev/null/work"),
    ],
)
def test_what_is_asked_wrongly(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_all_of_it_with_a_tiny_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Published("made up", {**TINY, "text_config": {**TINY["text_config"], "num_hidden_layers": 4}})
    monkeypatch.setitem(PUBLISHED, "tiny", tiny)
    monkeypatch.setattr(measuring, "PROMPTS", (40, 120))
    monkeypatch.setattr(command, "PROMPTS", (40, 120))
    monkeypatch.setattr(page, "PROMPTS", (40, 120))
    out = tmp_path / "page.md"
    words: list[Any] = ["--shape", "tiny", "--layers", "1,2", "--without", "llama.cpp", "--minutes", "20"]
    assert command.main([*words, "--work", str(tmp_path / "work"), "--out", str(out)]) == 0
    run = strict.from_json(Run, json.loads(capsys.readouterr().out.splitlines()[-1]), "the run")
    assert run.left_out == ("llama.cpp (not asked for)",)
    for side in (OURS, TORCH):
        seconds = run.full(side, "prefill 40")
        assert seconds is not None
        assert seconds > 0
    assert {peak.batch for peak in run.peaks} == {1, 2, 4}
    written = f"{page.HEAD}\n{page.section(run)}"  # JSON's keys are sorted: so are policies and operators in it
    assert sorted(out.read_text().replace(",", "").split()) == sorted(written.replace(",", "").split())
