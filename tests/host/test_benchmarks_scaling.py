"""docs/scaling.md: its arithmetic against its own formulae, its table against the command, places for its figures."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import ray_batch, ray_driver, scaling
from benchmarks.figures import put
from benchmarks.ray_page import draw
from benchmarks.ray_runs import Rate
from benchmarks.ray_waiting import waited
from benchmarks.scaling import Assumptions, fleet
from hired_runtime.batch.requests_file import Row
from tests.tiny.commands import Capture

PAGE = Path(__file__).parents[2] / "docs/scaling.md"
some = st.floats(1e-3, 1e6)


@given(some, some, st.floats(0.01, 1), some, some, some, some, some, some)
def test_a_fleet_answers_in_a_day_what_there_is_and_costs_what_it_runs(
    seconds: float,
    pictures: float,
    utilisation: float,
    watts: float,
    price: float,
    years: float,
    kwh: float,
    size: float,
    answer: float,
) -> None:
    found = fleet(seconds, Assumptions(pictures, utilisation, watts, price, years, kwh, size, answer))
    capacity = found.pictures_per_board
    assert found.boards * capacity >= pictures * (1 - 1e-9)
    assert (found.boards - 1) * capacity < pictures * (1 + 1e-9)
    life = capacity * 365 * years  # pictures of a board
    assert math.isclose(found.hardware_per_million * life, price * 1e6, rel_tol=1e-9)
    hours = 24 * 1e6 / capacity  # of one board for a million pictures
    assert math.isclose(found.kwh_per_million, hours * watts / 1000, rel_tol=1e-9)
    assert math.isclose(found.megabits_per_s * 1e6 * 86_400, 8 * pictures * (size + answer), rel_tol=1e-9)
    assert found.cost_per_million == found.hardware_per_million + found.kwh_per_million * kwh


def test_the_page_shows_what_the_command_prints(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin = text.rindex("```sh\n") + len("```sh\n")
    command = text[begin : text.index("```", begin)].replace("\\\n", " ")
    python, module, name, *arguments = shlex.split(command)
    assert (python, module, name) == ("python", "-m", "benchmarks.scaling")
    monkeypatch.setattr(sys, "argv", ["scaling", *arguments])
    assert scaling.main() == 0
    *shown, last = capsys.readouterr().out.strip().splitlines()
    assert "\n".join(shown[2:]).strip() in text
    assert len(json.loads(last)["fleets"]) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--utilisation 1.1", "--utilisation 1.1; expected"),
        ("--seconds 0", "--seconds 0"),
        ("--labels a,b", "2 labels"),
    ],
)
def test_what_is_no_assumption_is_refused(changed: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("pictures-per-day", "watts", "board-price", "years", "kwh-price", "picture-bytes", "answer-bytes")
    sound = ["--seconds", "1", "--utilisation", "1", *(part for name in names for part in (f"--{name}", "1"))]
    monkeypatch.setattr(sys, "argv", ["scaling", *sound, *changed.split()])
    with pytest.raises(scaling.InputError, match=message):
        scaling.main()


def test_the_page_has_a_place_for_the_figures_of_both_benchmarks(tmp_path: Path) -> None:
    page = tmp_path / "scaling.md"
    page.write_bytes(PAGE.read_bytes())
    rates = [asdict(Rate(workers, 10.0 + workers, 1.0, 2.0, 3.0, 4.0, 100.0)) for workers in range(4)]
    found = {"machine": "m", "load": 0.1, "rows": 8, "pictures": 2, "picture_bytes": 5, "rounds": 1, "rates": rates}
    shown = ray_batch.page(found, ["command"])
    assert "| none: one process | 10 |  | 1.0 | 2.0 | 3.0 | 4.0 |" in shown
    assert "| 3 | 13 | 1.18 |" in shown
    runs = [{"workers": 2, "steady_rows_per_s": 150.0, "worker_ms": 1.0, "driver_ms": 0.5, "ray_ms": 0.25}]
    idle = ray_driver.page({"machine": "m", "load": 0.1, "wait_s": 0.01, "runs": runs}, ["command"])
    assert "| 2 | 150 | 75 % | 1.00 | 0.50 | 0.25 |" in idle
    assert "0.50 ms a row in the last of these runs, the start among them, are 2,000 rows a second" in idle
    for name, text in (("workers", shown), ("driver", idle)):
        put(page, name, text)
        put(page, name, text)
        assert page.read_text(encoding="utf-8").count(text) == 1
    with pytest.raises(scaling.InputError, match="has no place for nothing"):
        put(page, "nothing", "")
    draw(tmp_path / "plot.png", [1, 2], [9.0, 17.0], "on a cluster", (9.0, "as many times"), (10.0, "one process"))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_steady_rate_is_of_the_middle(tmp_path: Path) -> None:
    """Eleven parts of ten rows, a second apart, but for the first ones and the last, which came late."""
    for number, second in enumerate([0, 40, 60, 70, 78, 80, 81, 82, 83, 84, 99]):
        path = tmp_path / f"part-{number:06d}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"row": range(10)}), path)
        os.utime(path, (second, second))
    assert ray_driver.steady(tmp_path) == 10


def test_a_worker_that_waits_says_a_row_each_time() -> None:
    begin = time.monotonic()
    rows = [Row(number, f"id {number}", (), "?") for number in range(1, 6)]
    found = list(waited(0.01, None, rows, {}))
    assert time.monotonic() - begin >= 0.05
    assert [(number, line["id"]) for number, line in found] == [(row.number, row.id) for row in rows]
    assert {name for _, line in found for name in line} == {"id", "text", "finish_reason", "usage"}
