"""The arithmetic of docs/scaling.md: against its own formulae, and the page against the command."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import ray_batch, scaling
from benchmarks.scaling import Assumptions, fleet
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


def test_the_page_has_a_place_for_the_figures(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(ray_batch._PLACE.findall(text)) == 1
    rates = [ray_batch.Rate(workers, 10.0 + workers, 1.0, 2.0, 3.0, 100.0).__dict__ for workers in range(4)]
    found = {"machine": "m", "rows": 8, "pictures": 2, "picture_bytes": 5, "rounds": 1, "options": [], "rates": rates}
    shown = ray_batch.page(found, ["command"])
    assert "| none: one process | 10 |  | 1.0 | 2.0 | 3.0 |" in shown
    assert "| 3 | 13 | 1.18 |" in shown
    ray_batch.draw(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
