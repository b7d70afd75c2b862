"""The demo's training code: its labels, its packed batches, its optimiser and its going on after an interruption."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from demo.scenes.compose import COLOURS, MARKERS
from demo.training import language, pool, stage, tower
from demo.training.architecture import PATCH, make_model
from demo.training.labels import IGNORE, label
from demo.training.optimiser import Optimiser, orthogonalise
from demo.training.words import VOCABULARY, make_tokenizer


@pytest.fixture(scope="module")
def samples() -> list[pool.Sample]:
    return [pool.make_sample(3, number) for number in range(8)]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return make_model(VOCABULARY, 4, 1, 2).eval()


def painted(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Coverage of each pixel by each box, in quarters of a pixel: (boxes, height, width)."""
    y, x = (np.arange(4 * size) / 4 + 0.125 for size in (height, width))
    inside = [
        ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None] for left, top, right, bottom in boxes
    ]
    return np.array(inside).reshape(len(boxes), height, 4, width, 4).mean(axis=(2, 4))


def test_scenes_that_were_kept_are_those_that_were_drawn(
    samples: list[pool.Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CHUNK", 3)
    pool.ensure(tmp_path, 3, 5, workers=1)
    kept = pool.load(tmp_path, 3, 5)
    assert [sample.scene for sample in kept] == [sample.scene for sample in samples[:5]]
    for one, other in zip(kept, samples, strict=False):
        assert one.tiling == other.tiling
        for view, drawn in ((one.base, other.base), (one.mosaic, other.mosaic)):
            np.testing.assert_array_equal(view.pixels, drawn.pixels)
            for name, values in vars(drawn.annotation).items():
                np.testing.assert_array_equal(getattr(view.annotation, name), values)


def test_labels_are_what_painting_the_boxes_says(samples: list[pool.Sample]):
    seen_digits = 0
    for sample in samples:
        view, side = sample.mosaic, 8 * PATCH
        got = label(view.annotation, (0, 0), (8, 8), legible=True)
        height, width = view.pixels.shape[:2]
        glyphs = painted(view.annotation.glyphs, height, width)
        cards = painted(view.annotation.cards, height, width)
        for patch in range(64):
            rows = slice(patch // 8 * PATCH, patch // 8 * PATCH + PATCH)
            columns = slice(patch % 8 * PATCH, patch % 8 * PATCH + PATCH)
            shares = glyphs[:, rows, columns].sum(axis=(1, 2)) / np.maximum(glyphs.sum(axis=(1, 2)), 1e-9)
            for glyph, share in enumerate(shares):
                digit, slot = view.annotation.digits[glyph] + 1, view.annotation.slots[glyph]
                if share > 0.35:
                    assert got.digits[patch, slot] == digit
                    seen_digits += 1
                elif share < 0.25 and got.digits[patch, slot] == digit:
                    same = (view.annotation.slots == slot) & (view.annotation.digits + 1 == digit)
                    assert shares[same].max() >= 0.25
            covered = cards[:, rows, columns].mean(axis=(1, 2))
            best = int(covered.argmax())
            if covered[best] > 0.45:
                assert got.colour[patch] == 1 + view.annotation.colours[best]
            elif covered[best] < 0.35:
                assert got.colour[patch] == 0
        for colour, code in enumerate(got.codes):
            card = np.flatnonzero(view.annotation.colours == colour)
            if code[0] != IGNORE:
                assert len(card) == 1
                mine = view.annotation.glyphs[view.annotation.owners == card[0]]
                assert mine[:, :2].min() >= -3
                assert mine[:, 2:].max() <= side + 3
                text = "".join(str(digit - 1) for digit in code if digit > 0)
                assert text == sample.scene.cards[card[0]].code
    assert seen_digits > 10


def test_codes_are_not_asked_of_the_base_picture(samples: list[pool.Sample]):
    got = label(samples[0].base.annotation, (0, 0), (8, 8), legible=False)
    assert (got.digits == IGNORE).all()
    assert (got.codes == IGNORE).all()
    assert set(got.cards) <= {IGNORE, 0, 1}
    assert got.colour.max() <= len(COLOURS)
    assert got.marker.max() <= len(MARKERS)


def test_the_tower_of_training_is_that_of_transformers(samples: list[pool.Sample], model: Any):
    pixels = tower.normalise(np.concatenate([language.cut(sample) for sample in samples[:2]]))
    with torch.no_grad():
        got = tower.Tower(model.model.vision_tower)(pixels)
        expected = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_packed_questions_give_what_transformers_gives_for_each_alone(samples: list[pool.Sample], model: Any):
    """The whole LlavaNextForConditionalGeneration, pictures and all, against the sequence with several questions."""
    tokenizer = make_tokenizer()
    seen = language.encode(tower.Tower(model.model.vision_tower), samples)
    chosen = [0, 3]
    answerer = language.Answerer(model)
    batch = language.make_batch([seen[i] for i in chosen], tokenizer, random.Random(5), 3)
    with torch.no_grad():
        logits, targets = answerer(batch)
    rng, expected = random.Random(5), []
    rows = [language.ask(seen[i].scene, tokenizer, rng, 3) for i in chosen]
    for i, row in zip(chosen, rows, strict=True):
        for ids, answer, _ in row:
            picture = [4] * len(seen[i].gather)
            tokens = torch.tensor([[*tokenizer.encode("<s>USER: ", add_special_tokens=False), *picture, *ids]])
            with torch.no_grad():
                out = model(
                    input_ids=tokens,
                    pixel_values=tower.normalise(language.cut(samples[i]))[None],
                    image_sizes=torch.tensor([[samples[i].tiling.height, samples[i].tiling.width]]),
                ).logits[0]
            expected.append(out[-answer - 1 : -1])
    assert targets.tolist() == [token for row in rows for ids, answer, _ in row for token in ids[-answer:]]
    # The features in between are kept in float16.
    torch.testing.assert_close(logits, torch.cat(expected), rtol=0, atol=5e-3)


def test_muon_steps_along_orthogonal_matrices():
    """Singular vectors stay, singular values of 0.1 to 1 all come near 1."""
    torch.manual_seed(0)
    for rows, columns in ((40, 40), (20, 80), (80, 20)):
        u, _, v = torch.linalg.svd(torch.randn(3, rows, columns), full_matrices=False)
        values = torch.linspace(0.1, 1, min(rows, columns))
        got = u.mT @ orthogonalise(u * values @ v, steps=5) @ v.mT
        diagonal = got.diagonal(dim1=1, dim2=2)
        assert (got - torch.diag_embed(diagonal)).abs().max() < 1e-3
        assert diagonal.min() > 0.5
        assert diagonal.max() < 1.4


def test_training_goes_on_after_an_interruption_as_if_there_had_been_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stage, "LOGS", tmp_path)
    monkeypatch.setattr(stage, "EVERY", 2)

    def train(folder: Path, stop_at: int | None = None) -> torch.Tensor:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(1)
        layer = nn.Linear(6, 6)
        net = nn.Sequential(layer, nn.LayerNorm(6))
        optimiser = Optimiser([net], 8, muon=1e-2, adam=1e-2, warmup=2)

        def step(number: int) -> dict[str, float]:
            if number == stop_at:
                raise KeyboardInterrupt
            loss = net(torch.randn(4, 6, generator=torch.Generator().manual_seed(number))).square()[:, 0].mean()
            loss.backward()
            return {"loss": loss.item()}

        stage.run("toy", folder, 8, {"net": net}, optimiser, step, dict)
        return layer.weight.detach()

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_at=5)
    assert torch.equal(train(tmp_path / "parts"), whole)
    lines = [json.loads(line) for line in (tmp_path / "toy.jsonl").read_text().splitlines()]
    assert [line.get("step") for line in lines] == [None, 2, 4, 6, 8]
