"""Stage "language": projector and text model learn to answer, on features of the finished tower.

Several questions about one picture share its tokens in one sequence: each question sees the picture and itself, at the
positions that it would have alone. Exactly what `transformers` computes for one question at a time, at a fraction of
the cost. Every picture is seen whole: nothing is dropped in training.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from demo.scenes.compose import Scene
from demo.scenes.questions import TASKS, sample
from demo.training import stage
from demo.training.architecture import DEVICE, TILE
from demo.training.optimiser import Optimiser
from demo.training.pool import Sample
from demo.training.tower import Heads, Tower, normalise
from hired_edge.packing import stock_gather

TASK_WEIGHTS = {"read": 0.27, "find": 0.2, "count": 0.06, "presence": 0.12, "compare": 0.35}
QUESTIONS, BATCH, WARM_STEPS = 10, 16, 600


@dataclass(frozen=True)
class Seen:
    """A scene as the tower sees it: features (T*N, D) float16 and the order in which they are spliced (V,), on CPU."""

    scene: Scene
    features: Tensor
    gather: Tensor

    @property
    def patches(self) -> int:
        return len(self.features)


def features(tower: Tower, samples: list[Sample], file: Path) -> list[Seen]:
    """What `encode` gives, kept in `file` for the next time."""
    if not file.exists():
        seen = encode(tower, samples)
        partial = file.with_suffix(".partial")
        torch.save([each.features for each in seen], partial)
        partial.replace(file)
    stored = torch.load(file, weights_only=True)
    return [
        Seen(each.scene, kept, torch.from_numpy(stock_gather(each.tiling)))
        for each, kept in zip(samples, stored, strict=True)
    ]


@torch.no_grad()
def encode(tower: Tower, samples: list[Sample]) -> list[Seen]:
    """The features that LLaVA reads, for every sample."""
    seen = []
    for start in tqdm(range(0, len(samples), 16), desc="features", unit_scale=16, disable=None):
        chunk = samples[start : start + 16]
        pixels = [cut(each) for each in chunk]
        features = tower(normalise(np.concatenate(pixels)))[:, 1:].half().cpu().split([len(each) for each in pixels])
        for each, part in zip(chunk, features, strict=True):
            gather = torch.from_numpy(stock_gather(each.tiling))
            seen.append(Seen(each.scene, part.flatten(0, 1).clone(), gather))
    return seen


def cut(one: Sample) -> np.ndarray:
    """Base picture and tiles, uint8 (T, 112, 112, 3)."""
    rows, columns = one.tiling.grid
    tiles = one.mosaic.pixels.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    return np.concatenate([one.base.pixels[None], tiles])


class Answerer(nn.Module):
    """Projector, newline and text model of a LlavaNextForConditionalGeneration."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.newline = model.model.image_newline
        self.text = model.model.language_model
        self.head = model.lm_head

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> logits (answer tokens, V) and what they should be, over the whole batch."""
        visual = self.projector(batch.features.float())
        visual = torch.where(batch.newline[..., None], self.newline, visual)
        embed = self.text.embed_tokens
        prefix = embed(batch.prefix).expand(len(visual), -1, -1)
        hidden = self.text(
            inputs_embeds=torch.cat([prefix, visual, embed(batch.text)], dim=1),
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state[:, -batch.text.shape[1] :]
        asked = batch.targets >= 0
        return self.head(hidden[asked]), batch.targets[asked]


@dataclass(frozen=True)
class Batch:
    """B pictures, each with its questions one after another.

    Args:
        prefix: tokens before the picture, (P,).
        features: unprojected, in splice order, zeros after the last, (B, V, D).
        newline: where `image_newline` stands, (B, V).
        text: questions and answers, (B, S).
        targets: the next token where it belongs to an answer, else -100, (B, S).
        positions: (B, P + V + S).
        mask: additive, (B, 1, P + V + S, P + V + S).
        tasks: of each answer; in the order in which answers stand, row by row.
        lengths: of each answer, how many targets it has.
    """

    prefix: Tensor
    features: Tensor
    newline: Tensor
    text: Tensor
    targets: Tensor
    positions: Tensor
    mask: Tensor
    tasks: list[str]
    lengths: list[int]

    def to(self, device: torch.device) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: each.to(device) for name, each in values.items() if isinstance(each, Tensor)})


def make_batch(seen: list[Seen], tokenizer: Any, rng: random.Random, count: int = QUESTIONS) -> Batch:
    """Sampled questions about each picture."""
    prefix = tokenizer.encode("<s>USER: ", add_special_tokens=False)
    rows = [ask(each.scene, tokenizer, rng, count) for each in seen]
    visual = max(len(each.gather) for each in seen)
    length = max(sum(len(ids) for ids, _, _ in row) for row in rows)
    total = len(prefix) + visual + length
    features = torch.zeros(len(seen), visual, seen[0].features.shape[1], dtype=torch.float16)
    newline = torch.zeros(len(seen), visual, dtype=torch.bool)
    text = torch.zeros(len(seen), length, dtype=torch.long)
    targets = torch.full((len(seen), length), -100)
    positions = torch.zeros(len(seen), total, dtype=torch.long)
    group = torch.full((len(seen), total), -1)  # 0: what every question sees; n: question n; -1: padding
    tasks, lengths = [], []
    for i, (each, row) in enumerate(zip(seen, rows, strict=True)):
        spliced = len(each.gather)
        features[i, :spliced] = each.features[each.gather]
        newline[i, :spliced] = each.gather < 0
        before = len(prefix) + spliced
        positions[i, : len(prefix) + visual] = torch.arange(len(prefix) + visual)
        group[i, :before] = 0
        at = 0
        for number, (ids, answer, task) in enumerate(row, start=1):
            n, first = len(ids), len(prefix) + visual + at
            text[i, at : at + n] = torch.tensor(ids)
            targets[i, at + n - answer - 1 : at + n - 1] = torch.tensor(ids[n - answer :])
            positions[i, first : first + n] = before + torch.arange(n)
            group[i, first : first + n] = number
            at += n
            tasks.append(task)
            lengths.append(answer)
    mask = _mask(group)
    return Batch(torch.tensor(prefix), features, newline, text, targets, positions, mask, tasks, lengths).to(DEVICE)


def _mask(group: Tensor) -> Tensor:
    """(B, L) -> additive (B, 1, L, L): causal, each group sees itself and group 0."""
    key, query = group[:, None, :], group[:, :, None]
    seen = ((key == 0) | (key == query)).tril()  # padding sees padding: no row is empty
    return torch.zeros(seen.shape, device=group.device).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None]


def ask(scene: Scene, tokenizer: Any, rng: random.Random, count: int) -> list[tuple[list[int], int, str]]:
    """Token ids of a question with its answer, how many of them are the answer's, and the task."""
    row = []
    for each in sample(rng, scene, TASK_WEIGHTS, count):
        question = tokenizer.encode(f"\n{each.prompt} ASSISTANT:", add_special_tokens=False)
        answer = tokenizer.encode(f" {each.answer}</s>", add_special_tokens=False)
        row.append((question + answer, len(answer), each.task))
    return row


def accuracy(answerer: Answerer, batches: list[Batch]) -> dict[str, float]:
    """Share of answers of which every token is the likeliest: what greedy decoding would get right."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for batch in batches:
        with torch.no_grad():
            logits, targets = answerer(batch)
        hits = (logits.argmax(-1) == targets).split(batch.lengths)
        for task, hit in zip(batch.tasks, hits, strict=True):
            right[task] += int(hit.all())
            asked[task] += 1
    return {task: right[task] / max(1, asked[task]) for task in TASKS}


@torch.no_grad()
def initialise(model: Any, heads: Heads, seen: list[Seen]) -> None:
    """Makes the projector's units tell patches apart from the first step on.

    The tower's outputs have a large mean in common, so that through random weights visual tokens look alike. The first
    layer gets the tower's own label directions, and principal components of what they leave, all standardised; the
    second is orthogonal. The text model's matrices start at the size that suits their width: transformers' 0.02 is
    meant for one of thousands. What came of other starting values is in docs/log.md.
    """
    values = torch.cat([each.features for each in seen[:400]]).float().to(DEVICE)
    mean = values.mean(0)
    centred = values - mean
    rows = torch.cat([head.weight * heads.patch_norm.weight for head in (heads.colour, heads.marker, heads.digits)])
    basis = torch.linalg.qr(rows.T).Q
    rest = centred - centred @ basis @ basis.T
    projector = model.model.multi_modal_projector
    count = len(projector.linear_1.weight) - len(rows)
    components = torch.linalg.eigh(rest.T @ rest).eigenvectors.flip(1)[:, :count].T
    weight = torch.cat([rows, components])
    weight = weight / (centred @ weight.T).std(0)[:, None]
    projector.linear_1.weight.copy_(weight)
    projector.linear_1.bias.copy_(-weight @ mean)
    hidden = projector.act(projector.linear_1(values))
    nn.init.orthogonal_(projector.linear_2.weight)
    projector.linear_2.bias.copy_(-projector.linear_2.weight @ hidden.mean(0))
    text = model.model.language_model
    nn.init.normal_(text.embed_tokens.weight, std=float(projector.linear_2(hidden).std()))
    for name, matrix in text.layers.named_parameters():
        if matrix.ndim == 2:
            last = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(matrix, std=(matrix.shape[1] * (2 * len(text.layers) if last else 1)) ** -0.5)


def train(model: Any, tokenizer: Any, seen: list[Seen], held_out: list[Seen], folder: Path, steps: int) -> None:
    """Small pictures for the first `WARM_STEPS`, then all; a batch has pictures of about the same length."""
    answerer = Answerer(model)
    optimiser = Optimiser([answerer], steps, muon=6e-3, adam=3e-3)
    ordered = sorted(seen, key=lambda each: len(each.gather))
    small = [each for each in ordered if each.patches <= 3 * 64]

    def step(number: int) -> dict[str, float]:
        rng = random.Random(f"language {number}")
        pool = small if number < WARM_STEPS else ordered
        first = rng.randrange(len(pool) - 4 * BATCH)
        batch = make_batch(rng.sample(pool[first : first + 4 * BATCH], BATCH), tokenizer, rng)
        logits, targets = answerer(batch)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        return {"loss": loss.item()}

    rng = random.Random("held-out")
    tests = sorted(held_out[:160], key=lambda each: len(each.gather))
    batches = [make_batch(tests[i : i + 16], tokenizer, rng) for i in range(0, len(tests), 16)]
    stage.run("language", folder, steps, {"answerer": answerer}, optimiser, step, lambda: accuracy(answerer, batches))
