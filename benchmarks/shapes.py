"""The models that are compared: their shapes, a checkpoint with seeded random weights, and the bundles made of it.

Everything lies in a work folder and is made once. The checkpoint is in the Hub's layout, so that transformers and
`hired-edge export` read one and the same file: the weights are those of `hired-edge export --synthetic`, drawn ahead.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from hired_edge.errors import InputError
from hired_edge.manifest import Precision, Target
from hired_edge.planner.config import model_shape
from hired_edge.planner.published import PUBLISHED
from hired_edge.planner.shapes import ModelShape
from hired_edge.tensorfile import TensorWriter

BUDGETS = ("100%", "40%", "20%")
BATCHES = (1, 2, 4)
TEXT_TOKENS, NEW_TOKENS = 128, 64
"""Of an export, at most. A stand-in tokenizer makes a token of every letter."""
SHARD_BYTES = 2**30
ROWS = 4096
"""Drawn at once."""
PARTIAL = ".partial-"

HUB = (
    (r"^vision\.", "vision_tower.vision_model."),
    (r"^projector\.", "multi_modal_projector."),
    (r"^text\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
)
"""Canonical names of tensors (hired_export.checkpoint) as the llava-hf repositories have them."""

TINY: dict[str, Any] = {
    "model_type": "llava_next",
    "image_token_index": 400,
    "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
    "text_config": {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 448,
        "max_position_embeddings": 1024,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    },
}


def folder_name(shape: str) -> str:
    """Of what is made of a published model, by its name, or of a config.json."""
    return Path(shape).stem if shape.endswith(".json") else shape


@dataclass(frozen=True)
class Shape:
    """One model. `config` is a config.json, as far as sizes go."""

    name: str
    config: Mapping[str, Any]

    @property
    def sizes(self) -> ModelShape:
        return model_shape(self.config)


SHAPES = {
    "llava-v1.6-vicuna-7b": Shape("llava-v1.6-vicuna-7b", PUBLISHED["llava-v1.6-vicuna-7b"].config),
    "tiny": Shape("tiny", TINY),
}
"""The second is for trying out that all of this works."""


@dataclass(frozen=True)
class Files:
    """A shape's files in a work folder."""

    work: Path
    shape: Shape
    seed: int

    @property
    def folder(self) -> Path:
        return self.work / f"{self.shape.name}-seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def picture(self) -> Path:
        return self.folder / "picture.png"

    def bundle(self, target: Target, precision: Precision) -> Path:
        return self.folder / f"{target}-{precision}"


def shape_named(name: str) -> Shape:
    """Raises InputError for a shape that there is not."""
    if name not in SHAPES:
        raise InputError(f"--shape {name}", expected=" or ".join(SHAPES), fix="choose one of them")
    return SHAPES[name]


def make_checkpoint(files: Files) -> None:
    """Draws the weights into safetensors shards, several processes at once; nothing is done where they are there.

    Raises:
        OSError: no room on the disk.
    """
    from hired_export.checkpoint import Checkpoint  # these load torch
    from hired_export.synthetic import MARKER, synthetic_checkpoint

    if files.checkpoint.exists():
        return
    files.folder.mkdir(parents=True, exist_ok=True)
    for stale in files.folder.glob(f"{PARTIAL}*"):  # of a run that was killed
        shutil.rmtree(stale)
    with ExitStack() as stack:
        partial_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PARTIAL, dir=files.folder)))
        config = partial_folder / f"{files.shape.name}.json"
        config.write_text(json.dumps(files.shape.config))
        drawn = stack.enter_context(synthetic_checkpoint(str(config), files.seed))
        out = partial_folder / "checkpoint"
        shutil.copytree(drawn, out, ignore=shutil.ignore_patterns(MARKER))
        split = shards({name: tensor.shape for name, tensor in Checkpoint(drawn).tensors.items()}, SHARD_BYTES)
        write = partial(_write_shard, drawn, out, len(split))
        workers = min(len(split), len(os.sched_getaffinity(0)))
        if workers == 1:
            list(map(write, range(len(split)), split))
        else:
            spawned = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
                list(pool.map(write, range(len(split)), split))
        index = {hub_name(name): shard_name(i, len(split)) for i, names in enumerate(split) for name in names}
        (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
        out.rename(files.checkpoint)


def make_bundle(files: Files, target: Target, precision: Precision) -> None:
    """Exports the checkpoint for every budget and batch; nothing is done where the bundle is there.

    Raises:
        ExportError: no room on the disk, or the parity check failed.
    """
    from hired_export.exporter import ExportOptions, export

    out = files.bundle(target, precision)
    if not out.exists():
        options = ExportOptions(
            target=target,
            precision=precision,
            visual_tokens=BUDGETS,
            max_text_tokens=TEXT_TOKENS,
            max_new_tokens=NEW_TOKENS,
            max_batch=max(BATCHES),
        )
        export(files.checkpoint, out, options)


def make_picture(files: Files, source: Path) -> tuple[int, int]:
    """`source` as a square of two by two tiles, whose stock sequence is the shape's longest; returns its size."""
    side = 2 * files.shape.sizes.tiling.image_size
    if not files.picture.exists():
        square(source, side).save(files.picture)
    return side, side


def square(source: Path, side: int) -> Image.Image:
    """The picture, squashed to a square."""
    with Image.open(source) as picture:
        return picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def hub_name(name: str) -> str:
    """A canonical name as the Hub has it."""
    for pattern, replacement in HUB:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return name


def shards(shapes: Mapping[str, tuple[int, ...]], most: int) -> list[list[str]]:
    """Names of tensors (float16), in order, by shard: of at most so many bytes, or of one tensor."""
    split: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        size += 2 * math.prod(shape)
        if size > most and split[-1]:
            split.append([])
            size = 2 * math.prod(shape)
        split[-1].append(name)
    return split


def shard_name(number: int, count: int) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _write_shard(drawn: Path, out: Path, count: int, number: int, names: list[str]) -> None:
    from hired_export.checkpoint import Checkpoint

    tensors = Checkpoint(drawn).tensors
    declared = {hub_name(name): ("F16", tensors[name].shape) for name in names}
    with TensorWriter(out / shard_name(number, count), declared) as writer:
        for name in names:
            rows = tensors[name].shape[0]
            for start in range(0, rows, ROWS):
                writer.write(hub_name(name), tensors[name].part(start, min(start + ROWS, rows)).stored())
