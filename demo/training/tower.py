"""Stage "tower": the vision tower learns to say what each patch shows, and what the picture shows, before any text.

Small crops around the cards first, then whole tiles and base pictures. Losses act on the output of the layer that LLaVA
reads (the last but one): one linear head a label on the patches, their places among them, and one on the class token,
which must name every card's code and so has to look at the digits. The tower's last layer is never used by LLaVA, nor
trained here.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo.scenes.compose import COLOURS, MARKERS
from demo.training import stage
from demo.training.architecture import DEVICE, MEAN, PATCH, STD, TILE
from demo.training.labels import IGNORE, SLOTS, Labels, label
from demo.training.optimiser import Optimiser
from demo.training.pool import Sample

CROP = 4  # patches a side of a crop
SIDE = TILE // PATCH
DIGITS = 11  # none, 0 .. 9


class Tower(nn.Module):
    """transformers' CLIP tower up to the layer that LLaVA reads, for any rectangle of its position grid."""

    def __init__(self, vision_tower: Any) -> None:
        super().__init__()
        self.model = getattr(vision_tower, "vision_model", vision_tower)
        self.layers = self.model.encoder.layers[:-1]

    def forward(self, pixels: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """(B, 3, h, w) -> (B, 1 + patches, D); the window lies at `corner` (column, row) of the position grid."""
        embeddings = self.model.embeddings
        patches = embeddings.patch_embedding(pixels)
        rows, columns = patches.shape[2:]
        grid = torch.arange(SIDE * SIDE, device=pixels.device).view(SIDE, SIDE)
        window = grid[corner[1] : corner[1] + rows, corner[0] : corner[0] + columns].reshape(-1)
        table = embeddings.position_embedding.weight
        hidden = torch.cat(
            [
                (embeddings.class_embedding + table[0]).expand(len(pixels), 1, -1),
                patches.flatten(2).transpose(1, 2) + table[1 + window],
            ],
            dim=1,
        )
        hidden = self.model.pre_layrnorm(hidden)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=None)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden


class Heads(nn.Module):
    """One linear layer a label; dropped after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch_norm, self.class_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.colour = nn.Linear(width, 1 + len(COLOURS))
        self.marker = nn.Linear(width, 1 + len(MARKERS))
        self.digits = nn.Linear(width, SLOTS * DIGITS)
        self.row, self.column = nn.Linear(width, SIDE), nn.Linear(width, SIDE)
        self.cards = nn.Linear(width, len(COLOURS))
        self.codes = nn.Linear(width, len(COLOURS) * SLOTS * DIGITS)

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        patches, token = self.patch_norm(hidden[:, 1:]), self.class_norm(hidden[:, 0])
        return {
            "colour": self.colour(patches),
            "marker": self.marker(patches),
            "digits": self.digits(patches).unflatten(-1, (SLOTS, DIGITS)),
            "row": self.row(patches),
            "column": self.column(patches),
            "cards": self.cards(token),
            "codes": self.codes(token).unflatten(-1, (len(COLOURS), SLOTS, DIGITS)),
        }


NONE_WEIGHT = {"colour": 0.5, "marker": 0.1, "digits": 0.2}


def loss(outputs: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross entropies by label; "none" weighs less, since most patches show nothing."""
    losses: dict[str, Tensor] = {}
    for name, weight in NONE_WEIGHT.items():
        logits, target = outputs[name].flatten(0, -2), labels[name].flatten()
        weights = torch.ones(logits.shape[-1], device=logits.device)
        weights[0] = weight
        losses[name] = F.cross_entropy(logits, target, weights, ignore_index=IGNORE)
    for name in ("row", "column"):
        losses[name] = F.cross_entropy(outputs[name].flatten(0, -2), labels[name].flatten())
    known = labels["cards"] != IGNORE
    losses["cards"] = F.binary_cross_entropy_with_logits(outputs["cards"][known], labels["cards"][known].float())
    codes = labels["codes"].flatten()
    if (codes != IGNORE).any():
        losses["codes"] = F.cross_entropy(outputs["codes"].flatten(0, -2), codes, ignore_index=IGNORE)
    return losses


def normalise(pixels: np.ndarray) -> Tensor:
    """uint8 (B, h, w, 3) -> float (B, 3, h, w), as the picture processor does."""
    scaled = torch.from_numpy(pixels).to(DEVICE).permute(0, 3, 1, 2).float().div(255)
    mean, std = (torch.tensor(each, device=DEVICE).view(3, 1, 1) for each in (MEAN, STD))
    return (scaled - mean) / std


def crops(samples: list[Sample], rng: random.Random, count: int, side: int = CROP) -> tuple[np.ndarray, list[Labels]]:
    """Windows of side x side patches, most of them around a card, anywhere to the pixel."""
    pixels, labels = [], []
    for sample in rng.choices(samples, k=count):
        view, length = sample.mosaic, side * PATCH
        height, width = view.pixels.shape[:2]
        if rng.random() < 0.9 and len(view.annotation.cards):
            box = view.annotation.cards[rng.randrange(len(view.annotation.cards))]
            middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
            x, y = (int(each - length / 2 + rng.uniform(-0.4, 0.4) * length) for each in middle)
        else:
            x, y = rng.randint(0, width - length), rng.randint(0, height - length)
        x, y = min(max(x, 0), width - length), min(max(y, 0), height - length)
        pixels.append(view.pixels[y : y + length, x : x + length])
        labels.append(label(view.annotation, (x, y), (side, side), legible=True))
    return np.stack(pixels), labels


def tiles(samples: list[Sample], rng: random.Random, count: int) -> tuple[np.ndarray, list[Labels]]:
    """Whole tiles where the runtime cuts them, half of them shifted by up to a patch."""
    pixels, labels = [], []
    for sample in rng.choices(samples, k=count):
        view = sample.mosaic
        height, width = view.pixels.shape[:2]
        x, y = rng.randrange(0, width, TILE), rng.randrange(0, height, TILE)
        if rng.random() < 0.5:
            x, y = rng.randint(0, width - TILE), rng.randint(0, height - TILE)
        pixels.append(view.pixels[y : y + TILE, x : x + TILE])
        labels.append(label(view.annotation, (x, y), (SIDE, SIDE), legible=True))
    return np.stack(pixels), labels


def bases(samples: list[Sample], rng: random.Random, count: int) -> tuple[np.ndarray, list[Labels]]:
    """Base pictures."""
    chosen = rng.choices(samples, k=count)
    pixels = np.stack([sample.base.pixels for sample in chosen])
    return pixels, [label(sample.base.annotation, (0, 0), (SIDE, SIDE), legible=False) for sample in chosen]


def places(count: int, side: int, corner: tuple[int, int]) -> dict[str, Tensor]:
    """Row and column of each patch in the position grid, (count, side * side)."""
    line = torch.arange(side, device=DEVICE)
    row, column = (line + corner[1])[:, None].expand(side, side), (line + corner[0])[None].expand(side, side)
    return {"row": row.reshape(1, -1).expand(count, -1), "column": column.reshape(1, -1).expand(count, -1)}


def collate(labels: list[Labels]) -> dict[str, Tensor]:
    names = ("colour", "marker", "digits", "cards", "codes")
    return {name: torch.from_numpy(np.stack([getattr(each, name) for each in labels])).to(DEVICE) for name in names}


@torch.no_grad()
def initialise_patches(tower: Tower, samples: list[Sample], rng: random.Random) -> None:
    """Principal components of patches, whitened, as the first patch embedding: it loses next to nothing of a patch."""
    pixels, _ = crops(samples, rng, 4000)
    values = normalise(pixels).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    flat = values.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH * PATCH)
    flat = flat - flat.mean(0)
    variances, directions = torch.linalg.eigh(flat.T @ flat / len(flat))
    weight = tower.model.embeddings.patch_embedding.weight
    width = len(weight)
    variances, directions = variances.flip(0)[:width], directions.flip(1)[:, :width]
    print(f"patch components keep {100 * variances.sum() / flat.var(0).sum():.1f} % of the variance")
    scaled = directions / (variances + 0.02 * variances[:16].mean()).sqrt()
    rotation = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0]
    weight.copy_((scaled @ rotation.to(DEVICE)).T.reshape(weight.shape) * 0.5)


@torch.no_grad()
def initialise_positions(tower: Tower, samples: list[Sample], rng: random.Random) -> None:
    """Waves over the rows and columns as the first position embeddings, in 12 directions, at 15 % of the patches' size.

    Without them, and without the labels of row and column, the finished tower's outputs say nothing of a patch's place:
    a linear probe names its row in 18 % of cases, where guessing gives 13 % (docs/log.md).
    """
    embeddings = tower.model.embeddings
    size = embeddings.patch_embedding(normalise(tiles(samples, rng, 16)[0])).square().mean().sqrt()
    place, width = torch.arange(SIDE * SIDE), embeddings.position_embedding.weight.shape[1]
    angles = [torch.pi * k / SIDE * each for k in (1, 2, 3) for each in (place // SIDE, place % SIDE)]
    waves = torch.stack([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    directions = torch.linalg.qr(torch.randn(width, waves.shape[1], generator=torch.Generator().manual_seed(5)))[0]
    values = waves @ directions.T
    embeddings.position_embedding.weight[1:] += (0.15 * size.cpu() * values / values.square().mean().sqrt()).to(DEVICE)


@torch.no_grad()
def measure(outputs: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, float]:
    """Recall and precision of digits on patches, and of other labels the share that is right."""
    guess, truth = outputs["digits"].argmax(-1), labels["digits"]
    there, said, right = truth > 0, (guess > 0) & (truth != IGNORE), guess == truth
    codes, code_truth = outputs["codes"].argmax(-1), labels["codes"]
    asked = code_truth != IGNORE
    marker, marker_truth = outputs["marker"].argmax(-1), labels["marker"]
    card = labels["colour"] > 0
    return {
        "recall": (right & there).sum().item() / max(1, there.sum().item()),
        "precision": (right & said).sum().item() / max(1, said.sum().item()),
        "colour": (outputs["colour"].argmax(-1) == labels["colour"])[card].float().mean().item(),
        "marker": ((marker == marker_truth) & (marker_truth > 0)).sum().item()
        / max(1, (marker_truth > 0).sum().item()),
        "row": (outputs["row"].argmax(-1) == labels["row"]).float().mean().item(),
        "codes": ((codes == code_truth) & asked).sum().item() / max(1, asked.sum().item()),
    }


WEIGHTS = {"colour": 1.0, "marker": 1.0, "digits": 2.0, "row": 0.2, "column": 0.2, "cards": 0.3, "codes": 0.5}
CROP_BATCH, MIXED_BATCH = 160, {"crops": 64, "tiles": 24, "bases": 8}


def gradients(
    tower: Tower, heads: Heads, pixels: np.ndarray, labels: list[Labels], corner: tuple[int, int], share: float
) -> dict[str, float]:
    """Adds the gradients of one batch, weighted by `share`."""
    side = pixels.shape[1] // PATCH
    losses = loss(heads(tower(normalise(pixels), corner)), collate(labels) | places(len(pixels), side, corner))
    (share * torch.stack([WEIGHTS[name] * each for name, each in losses.items()]).sum()).backward()
    return {name: each.item() for name, each in losses.items()}


def train(
    vision_tower: Any, samples: list[Sample], held_out: list[Sample], folder: Path, crop_steps: int, mixed_steps: int
) -> tuple[Tower, Heads]:
    """Trains `vision_tower` in place: `crop_steps` on crops, then `mixed_steps` on crops, tiles and base pictures.

    Returns:
        The tower and its label heads, which tell the projector where to start.
    """
    tower, heads = Tower(vision_tower), Heads(vision_tower.config.hidden_size).to(DEVICE)
    initialise_patches(tower, samples, random.Random(0))
    initialise_positions(tower, samples, random.Random(0))
    steps = crop_steps + mixed_steps
    optimiser = Optimiser([tower, heads], steps, muon=5e-3, adam=2e-3)

    def step(number: int) -> dict[str, float]:
        rng = random.Random(f"tower {number}")
        corner = (rng.randint(0, SIDE - CROP), rng.randint(0, SIDE - CROP))
        if number < crop_steps:
            return gradients(tower, heads, *crops(samples, rng, CROP_BATCH), corner, 1.0)
        gradients(tower, heads, *crops(samples, rng, MIXED_BATCH["crops"]), corner, 0.4)
        gradients(tower, heads, *bases(samples, rng, MIXED_BATCH["bases"]), (0, 0), 0.2)
        return gradients(tower, heads, *tiles(samples, rng, MIXED_BATCH["tiles"]), (0, 0), 0.6)

    views = {
        "crop": (*crops(held_out, random.Random("held-out"), 512), CROP, (2, 2)),
        "tile": (*tiles(held_out, random.Random("held-out"), 160), SIDE, (0, 0)),
    }

    @torch.no_grad()
    def figures() -> dict[str, float]:
        found = {}
        for name, (pixels, labels, side, corner) in views.items():
            truth = collate(labels) | places(len(pixels), side, corner)
            shares = measure(heads(tower(normalise(pixels), corner)), truth)
            found |= {f"{name}_{key}": value for key, value in shares.items()}
        return found

    stage.run("tower", folder, steps, {"tower": tower, "heads": heads}, optimiser, step, figures)
    return tower.eval(), heads
