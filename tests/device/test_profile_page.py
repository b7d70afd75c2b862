"""The page of a profile: it opens offline, is the same from its JSON, and none of its labels meet."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from hired_edge import strict
from hired_runtime.profiling import Plan, Profile, plots, profile, read
from hired_runtime.profiling.page import page
from hired_runtime.profiling.spread import statistics_of
from tests.tiny.commands import Capture, accepted, refused

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
VOID = {"meta", "br", "hr", "img", "link", "input", "use", "path"}


class Page(HTMLParser):
    """What a page holds. Every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags = Counter[str]()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def profiled(picture: Path) -> Profile:
    prompt = 'What is "<script src=x>" & $a_b$?'
    plan = Plan(BUNDLE, (str(picture),), ("100%", "20%"), prompt=prompt, new_tokens=3, warmup=0, iterations=2)
    return profile(plan)


def many(profiled: Profile) -> Profile:
    """Eleven budgets of up to a thousand times the time, one of them with a figure of 0."""
    first = profiled.budgets[0]
    budgets = []
    for number in range(11):
        times = {name: statistics_of([3.7**number, 4**number]) for name in first.timings_ms}
        memory = replace(first.memory, gpu_base_bytes=2**30, gpu_peak_bytes=2**30 + 2 ** (24 + number))
        rate = statistics_of([0.0, 1e-3 * 3**number])
        more = {"timings_ms": times, "memory": memory, "tokens_per_s": rate, "decode_tokens_per_s": rate}
        budgets.append(replace(first, budget=f"{10 * number}%", **more))
    return replace(profiled, budgets=tuple(budgets))


def one(profiled: Profile) -> Profile:
    """One budget, one token: no decode step, no time for one."""
    budget = replace(profiled.budgets[1], time_per_output_token_ms=None, decode_tokens_per_s=None)
    return replace(profiled, budgets=(budget,))


PROFILES = {"as measured": lambda profiled: profiled, "many budgets": many, "one budget": one}


@pytest.fixture(params=PROFILES)
def shown(request: pytest.FixtureRequest, profiled: Profile) -> Profile:
    return PROFILES[request.param](profiled)


def test_it_refers_to_nothing_outside(shown: Profile) -> None:
    text = page(shown)
    found = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "image", "base"} & set(found.tags)
    assert "://" not in text
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value for _, name, value in found.attributes if name in {"href", "xlink:href", "src"}]
    inner = re.findall(r"url\((#[^)]+)\)", text)
    assert {*targets, *inner} <= {f"#{each}" for each in ids}
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes


def test_it_holds_every_figure(shown: Profile) -> None:
    found = Page(page(shown))
    words = " ".join(" ".join(found.text).split())
    assert found.tags["svg"] == 3
    assert found.tags["figcaption"] == 3
    assert shown.request.prompt in words  # as text, whatever is in it
    for budget in shown.budgets:
        assert f"{budget.timings_ms['ttft'].stddev:.2f}" in words
        assert f"{budget.cache_bytes} bytes for {budget.max_sequence_length} positions" in words
    for name in (*shown.budgets[0].timings_ms, "p95", "stddev", shown.versions.engine, shown.machine.system):
        assert name in words


def test_from_its_json_it_is_the_same_page(shown: Profile, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "profile.json"
    path.write_text(strict.dumps(shown))
    assert read(path) == shown
    assert accepted(capsys, "profile", "--render", path) == f"{tmp_path / 'profile.html'}\n"
    assert (tmp_path / "profile.html").read_text() == page(shown)
    out = accepted(capsys, "profile", "--render", path, "-o", tmp_path / "else/where", "--json")
    assert json.loads(out) == {"page": str(tmp_path / "else/where/profile.html")}
    assert (tmp_path / "else/where/profile.html").read_bytes() == (tmp_path / "profile.html").read_bytes()


def test_without_matplotlib_the_json_is_written_and_a_line_says_how_to_draw(
    picture: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # whoever imports it is told that there is none
    (tmp_path / "profile.html").write_text("of an earlier profile")
    options = ("--budgets", "20%", "--warmup", 0, "--iterations", 1, "--max-new-tokens", 1, "-o", tmp_path)
    from hired_edge.cli import main

    assert main([str(each) for each in ("profile", BUNDLE, "--image", picture, *options)]) == 0
    captured = capsys.readouterr()
    assert "throughput, tokens/s" in captured.out
    assert captured.err.count("\n") == 1
    assert captured.err.endswith(f"run: hired-edge profile --render {tmp_path / 'profile.json'}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    line = refused(capsys, "profile", "--render", tmp_path / "profile.json")
    assert line.endswith("run: pip install 'hired-edge[eval]'")
    monkeypatch.undo()
    accepted(capsys, "profile", "--render", tmp_path / "profile.json")
    assert (tmp_path / "profile.html").is_file()


def spoiled(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """JSON texts that are no profile, and what is said of each."""

    def changed(**fields: Any) -> str:
        return json.dumps({**data, **fields})

    budget = data["budgets"][0]
    ttft = {**budget["timings_ms"], "ttft": {**budget["timings_ms"]["ttft"], "mean": 1e6}}
    stages = {name: value for name, value in budget["timings_ms"].items() if name != "vision"}
    fewer = {**budget, "tokens_per_s": {**budget["tokens_per_s"], "values": budget["tokens_per_s"]["values"][:1]}}
    empty = {**budget, "tokens_per_s": {**budget["tokens_per_s"], "values": []}}
    yield "{", "is not JSON"
    yield "[]", "profile is a list"
    yield changed(more=1), "profile has an unknown key 'more'"
    yield changed(format_version=2), "format_version is 2; expected 1"
    yield changed(budgets=[]), "budgets is empty"
    yield changed(versions={}), "profile.versions.hired_edge is missing"
    yield changed(budgets=[{**budget, "timings_ms": ttft}]), "timings_ms['ttft']: mean is 1000000.0; expected "
    yield changed(budgets=[{**budget, "timings_ms": stages}]), "timings_ms has "
    yield changed(budgets=[{**budget, "budget": "101%"}]), "a visual-token budget of '101%'"
    yield changed(budgets=[{**budget, "cache_bytes": "1"}]), "cache_bytes is '1'"
    yield changed(budgets=[fewer]), "profile.budgets[0].tokens_per_s: "
    yield changed(budgets=[empty]), "statistics of no value"
    yield changed(request={**data["request"], "iterations": 3}), "2 values at 100%; expected 3, one an iteration"
    yield json.dumps(data).replace('"load_average": ', '"load_average": NaN, "x": '), "holds NaN"


def test_a_json_that_is_no_profile_is_refused(profiled: Profile, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "profile.json"
    for text, said in spoiled(strict.to_json(profiled)):
        path.write_text(text)
        line = refused(capsys, "profile", "--render", path)
        assert said in line
        assert line.endswith("; pass a profile.json as this version of hired-edge profile writes it")
    path.write_bytes(b"\xff")
    assert "is not text" in refused(capsys, "profile", "--render", path)
    assert "No such file" in refused(capsys, "profile", "--render", tmp_path / "none.json")
    assert "Is a directory" in refused(capsys, "profile", "--render", tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["profile.json"]


def labels(figure: Figure) -> Iterator[Text]:
    """Every text that is drawn; of the ticks, those inside the axis."""
    for legend in figure.legends:
        yield from legend.get_texts()
    for panel in figure.axes:
        yield from (*panel.texts, panel.xaxis.label)
        for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, sorted(panel.get_ylim()))):
            ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            yield from (text for at, text in ticks if low <= at <= high and text.get_text())


def test_no_two_labels_meet(shown: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Figure] = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (saved.append(self), original(self, *args, **kw)))
    for draw in (plots.stages, plots.speed, plots.memory):
        draw(shown)
    for figure in saved:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in labels(figure)]
        for (name, box), (other, against) in combinations(boxes, 2):
            assert not box.overlaps(against), (name, other)
        for name, box in boxes:
            assert -1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1, name
            assert -1 <= box.y0 < box.y1 <= figure.bbox.y1 + 1, name
    assert len(saved) == 3
