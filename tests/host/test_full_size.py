"""`python -m benchmarks.full_size`, all of it, with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import full_size
from benchmarks.shapes import TINY
from hired_edge import strict


@pytest.mark.slow
def test_a_tiny_shape_goes_through_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = tmp_path / "tiny.json", tmp_path / "page.md"
    config.write_text(json.dumps(TINY))
    options = "--precision int4 --max-text-tokens 128 --max-new-tokens 32"
    words = ["--shape", str(config), "--export", options, "--requests", "12", "--threads", "1"]
    assert full_size.main([*words, "--work", str(tmp_path / "work"), "--out", str(out)]) == 0
    run = strict.from_json(full_size.Run, json.loads(capsys.readouterr().out.splitlines()[-1]), "the run")
    assert run.profile is not None
    assert run.soak is not None
    assert [each.budget for each in run.profile.budgets] == ["100%", "40%", "20%"]
    assert len(run.soak.resident) == 12
    assert "(graphs " in run.exported
    text = out.read_text()
    assert text == f"{full_size.HEAD}\n{full_size.section(run)}"
    assert "weights and cache" in text
    assert "12 requests in one process at 5 %:" in text
