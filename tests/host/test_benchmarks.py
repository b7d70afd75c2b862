"""Do the sides of `python -m benchmarks.gpu` compute the same? On the CPU with tiny models, of the same weights.

Here in this process; what a user meets is in test_benchmarks_command.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import agreement, pytorch, witness
from benchmarks.comparison import Plan, compare
from benchmarks.research import Hooks, Research
from benchmarks.results import Cell, Results
from benchmarks.stock import Stock
from hired_edge.selection import select
from hired_runtime.prompt import question
from tests.host.bundles import Bundles
from tests.host.comparisons import BUDGETS, NEW_TOKENS, PROMPT, here, job, plan_of, quiet
from tests.host.near_ties import MAPS_TOLERANCE, TOLERANCE
from tests.host.reference import Reference


@pytest.fixture(scope="module")
def plan(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_of(bundles("next-llama"), "next-llama", tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def found(plan: Plan) -> Results:
    """Every cell of a small comparison."""
    return compare(plan, quiet, quiet, here)


def test_the_sides_keep_the_same_tokens_and_answer_alike(found: Results) -> None:
    assert found.disagreement is None
    assert [each.against for each in found.agreements] == ["stock", "research", "research"]
    for each in found.agreements:
        assert each.same_visual_tokens == each.visual_tokens > 0
        assert each.same_tokens == each.tokens == NEW_TOKENS
        assert each.gap is None
        assert (each.maps_error is None) == (each.against == "stock")
        assert each.maps_error is None or each.maps_error < 1e-4
    tokens = [each.visual_tokens for each in found.agreements]
    assert tokens[0] > tokens[1] > tokens[2]


def test_every_cell_is_measured_on_the_same_request(found: Results) -> None:
    cells = {row.cell: row for row in found.rows}
    assert len(cells) == 2 * len(BUDGETS) * 2
    for budget in BUDGETS:
        for batch in (1, 2):
            theirs = cells[Cell(Plan.reference(budget), "fp32", budget, batch)]
            ours = cells[Cell("ours", "fp32", budget, batch)]
            assert theirs.figures is not None
            assert ours.figures is not None
            assert theirs.least == ours.least
            assert theirs.figures.visual_tokens == ours.figures.visual_tokens
            assert theirs.figures.text_tokens == ours.figures.text_tokens
            for row in (theirs, ours):
                assert row.figures is not None
                assert len(row.figures.ttft_ms.values) == 2
                assert 0 < row.figures.preparation_ms.min < row.figures.ttft_ms.min
                assert row.figures.tokens_per_s.min > 0


def test_stock_feeds_what_transformers_processor_gives(plan: Plan) -> None:
    model, reference = pytorch.load(job(plan)), Reference(plan.files.checkpoint)
    ours = Stock(model)([model.preparation.row(job(plan).asked.request)] * 2, job(plan, batch=2)).arguments
    expected = reference.inputs(question(PROMPT, 1), [Image.open(plan.files.picture)])
    assert torch.equal(ours["input_ids"], expected["input_ids"].repeat(2, 1))
    assert torch.equal(ours["pixel_values"], expected["pixel_values"].repeat(2, 1, 1, 1, 1))
    assert torch.equal(ours["image_sizes"], expected["image_sizes"].repeat(2, 1))


@torch.inference_mode()
def test_hooks_see_transformers_own_attention(plan: Plan) -> None:
    model, reference = pytorch.load(job(plan)), Reference(plan.files.checkpoint)
    row = model.preparation.row(job(plan).asked.request)
    research = Research(model)
    research([row], job(plan, "20%"))
    inputs = {"pixel_values": torch.from_numpy(row.pixels)[None]}
    vision, maps = model.preparation.manifest.vision, reference.vision(inputs)[1]
    expected = [maps[layer].sum(1) for layer in (vision.allocation_layer, vision.selection_layer)]
    for got, right in zip(research.maps[0], expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-6)
    (theirs,) = select([row.tiling], [expected[0]], [expected[1]], "20%")
    assert research.selections[0].gather.tolist() == theirs.gather.tolist()
    layers = {name for name, _ in model.net.model.vision_tower.named_modules() if name.endswith("self_attn")}
    assert len(layers) == vision.layers
    with pytest.raises(ValueError, match="not enough values"):
        Hooks(model.net.model.vision_tower, vision.layers)


def test_rows_of_a_batch_are_the_row_alone(plan: Plan) -> None:
    model = pytorch.load(job(plan))
    rows = [model.preparation.row(job(plan).asked.request)] * 3
    for side, budget in ((Stock(model), "100%"), (Research(model), "40%")):
        with torch.inference_mode():
            one, three = side(rows[:1], job(plan, budget)), side(rows, job(plan, budget, 3))
            answers = [model.net.generate(**each.arguments, max_new_tokens=6)[:, -6:] for each in (one, three)]
        assert one.visual_tokens == three.visual_tokens
        assert answers[1].tolist() == answers[0].repeat(3, 1).tolist()


def test_fp16_graphs_agree_up_to_near_ties(bundles: Bundles, tmp_path: Path) -> None:
    """As on a GPU, where graphs are fp16 and tokens may part: what is reported then."""
    exported = bundles("cuda-fp16")
    plan = plan_of(exported, "cuda-fp16", tmp_path)
    asked = job(plan)
    theirs = witness.theirs((asked, BUDGETS), quiet)
    ours = witness.ours((asked, BUDGETS), quiet)
    for budget, mine, other in zip(BUDGETS, ours, theirs, strict=True):
        told = agreement.compare("fp16", budget, mine, other)
        assert told.same_visual_tokens >= 0.9 * told.visual_tokens
        assert told.maps_error is None or told.maps_error <= MAPS_TOLERANCE
        assert told.gap is None or told.same_visual_tokens < told.visual_tokens or told.gap <= 2 * TOLERANCE


def test_where_two_answers_part() -> None:
    logits = np.array([[0, 4, 0, 1], [8, 0, 6, 0], [0, 0, 0, 2]], np.float32)
    theirs = witness.Witness("research", [1, 0, 3], np.array([0, 5, -1, 7]), 4, None, logits)
    ours = replace(theirs, side="ours", tokens=[1, 2, 2], gather=np.array([0, 6, -1, 7, -1]), visual_tokens=5)
    told = agreement.compare("fp16", "20%", ours, theirs)
    assert (told.same_visual_tokens, told.visual_tokens) == (3, 4)
    assert (told.same_tokens, told.tokens, told.gap) == (1, 3, 0.25)
