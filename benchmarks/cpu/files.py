"""What is measured: a model's shape at two small depths, as a checkpoint, a bundle and a GGUF file, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoint import write_checkpoint
from benchmarks.shapes import BATCHES, BUDGETS, NEW_TOKENS, TEXT_TOKENS, square
from hired_edge.errors import InputError
from hired_edge.planner.config import model_shape, read_config
from hired_edge.planner.published import PUBLISHED
from hired_edge.planner.shapes import ModelShape


@dataclass(frozen=True)
class Files:
    """In a work folder.

    Args:
        work: the folder.
        shape: a published model's name.
        block_size: of int4.
        vision: precision of the tower.
        seed: of the weights.
    """

    work: Path
    shape: str
    block_size: int
    vision: str
    seed: int = 0

    @property
    def sizes(self) -> ModelShape:
        """Of the whole model."""
        return model_shape(PUBLISHED[self.shape].config)

    @property
    def picture(self) -> Path:
        return self.work / "picture.png"

    def checkpoint(self, layers: int) -> Path:
        return self.work / f"{self.shape}-{layers}"

    def bundle(self, layers: int) -> Path:
        return self.work / f"{self.shape}-{layers}-int4-{self.block_size}-vision-{self.vision}"

    def gguf(self, layers: int) -> Path:
        return self.work / f"{self.shape}-{layers}.gguf"


def files(work: Path, shape: str, block_size: int, vision: str) -> Files:
    """Raises InputError for a shape that there is not, or one that has no grid of tiles."""
    if shape not in PUBLISHED or not model_shape(read_config(shape)).tiling.pinpoints:
        known = [name for name, each in PUBLISHED.items() if "image_grid_pinpoints" in each.config]
        raise InputError(f"--shape {shape}", expected=" or ".join(known), fix="choose one of them")
    return Files(work, shape, block_size, vision)


def make(made: Files, layers: int) -> None:
    """The checkpoint and the bundle of a depth; nothing is done where they are there.

    Raises:
        HiredEdgeError: no room on the disk, or the parity check failed.
    """
    from hired_export.exporter import ExportOptions, export  # loads torch

    made.work.mkdir(parents=True, exist_ok=True)
    if not made.checkpoint(layers).exists():
        write_checkpoint(made.shape, made.checkpoint(layers), layers, made.seed, words=False)
    if not made.bundle(layers).exists():
        options = ExportOptions(
            precision="int4",
            block_size=made.block_size,
            vision_precision=made.vision,
            visual_tokens=BUDGETS,
            max_text_tokens=TEXT_TOKENS,
            max_new_tokens=NEW_TOKENS,
            max_batch=max(BATCHES),
        )
        export(made.checkpoint(layers), made.bundle(layers), options)


def make_picture(made: Files, source: Path) -> None:
    """`source` as a square of two by two tiles, whose stock sequence is the longest: 2,928 tokens."""
    if not made.picture.exists():
        square(source, 2 * made.sizes.tiling.image_size).save(made.picture)
