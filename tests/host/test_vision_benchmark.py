"""`python -m benchmarks.vision`: what it compares is the same work, and what it prints is what it measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cpu.page import HEAD
from benchmarks.cpu.results import Where
from benchmarks.shapes import TINY
from benchmarks.vision import __main__ as command
from benchmarks.vision.agreement import agreement
from benchmarks.vision.results import BUDGETS, MAPS, MTMD, STOCK, Agreement, Run, Side, section
from hired_edge import strict
from hired_edge.tiling import TilingRules, tile

WHERE = Where("a processor", 2, 2**34, 2, "3.10", ("x 1",))
SAME = Agreement(1.0, 1.0, dict.fromkeys(BUDGETS, 1.0))


def test_ratios_are_of_medians() -> None:
    sides = (
        Side(MAPS, (9.0, 8.0, 30.0), SAME),
        Side(STOCK, (4.0,), replace(SAME, kept={})),
        Side("ours", (2.0, 1.5, 99.0), SAME),
    )
    text = section(Run("2026-11-22", "a command", "a shape", 5, WHERE, sides, ("a peer",)))
    assert "| ours | 2.00 | 4.50 | 2.00 | 1.00000 (1.00000) | 100.0 / 100.0 / 100.0 % |" in text
    assert "Left out: a peer." in text
    assert text.endswith("\n\n")


def test_a_peer_with_other_weights_has_no_agreement() -> None:
    sides = (Side(MAPS, (8.0,), SAME), Side("ours", (2.0,), SAME), Side(MTMD["F16"], (6.0,), None))
    run = Run("2026-11-22", "a command", "a shape", 5, WHERE, sides, ())
    text = section(run)
    assert f"times the speed of {MTMD['F16']} |" in text
    assert "| ours | 2.00 | 4.00 |  | 3.00 | 1.00000 (1.00000) |" in text
    assert f"| {MTMD['F16']} | 6.00 | 1.33 |  | 1.00 |  |  |" in text
    assert "random weights of its own" in text
    assert strict.to_json(run)["sides"][2]["agreement"] is None
    assert "mtmd" not in section(replace(run, sides=sides[:2]))


def test_agreement_counts_patches_and_kept_tokens() -> None:
    cut = tile(112, 112, TilingRules(**_rules()))
    random = np.random.default_rng(0)
    features = random.standard_normal((cut.tiles, 16, 8), np.float32)
    maps = random.random((2, cut.tiles, 16), np.float32)
    outputs = {"features": features, "allocation": maps[0], "selection": maps[1]}
    same = agreement(outputs, outputs, cut)
    assert (same.cosine, same.least_cosine) == pytest.approx((1, 1))
    assert same.kept == dict.fromkeys(BUDGETS, 1.0)
    other = agreement({**outputs, "features": -features, "selection": 1 - maps[1]}, outputs, cut)
    assert (other.cosine, other.least_cosine) == pytest.approx((-1, -1))
    assert max(other.kept.values()) < 0.5
    assert agreement({"features": features}, outputs, cut).kept == {}


def _rules() -> dict:
    pinpoints = tuple((a, b) for a, b in TINY["image_grid_pinpoints"])
    return {"kind": "anyres", "image_size": 56, "patch_size": 14, "pinpoints": pinpoints}


@pytest.mark.slow
def test_a_tiny_shape_goes_through_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = tmp_path / "tiny.json"
    shape.write_text(json.dumps(TINY))
    page = tmp_path / "page.md"
    arguments = ["--shape", str(shape), "--rounds", "1", "--work", str(tmp_path / "work"), "--out", str(page)]
    arguments += ["--without", "llama.cpp"]
    assert command.main(arguments) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert page.read_text().startswith(HEAD)
    assert str(tmp_path) not in page.read_text()
    sides = {side["name"]: side["agreement"] for side in last["sides"]}
    assert len(sides) == 7
    assert last["left_out"] == ["llama.cpp (not asked for)"]
    for name, found in sides.items():
        assert found["least_cosine"] > (0.99 if "int8" in name else 0.99999), name
        assert set(found["kept"]) == (set(BUDGETS) if name == MAPS or "hired-edge" in name else set())
