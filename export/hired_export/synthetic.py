"""A checkpoint of a given shape with seeded random weights, so that a board can be profiled before any download.

    folder/config.json, tokenizer.json, ...   as a real checkpoint has them (`stand_in.py` makes the prompt's files)
    folder/synthetic.json                     the seed; its presence is what makes a checkpoint synthetic

No weight is stored: each row of each tensor is drawn when it is read, from the seed, the tensor's name and the row
alone, so any part of a model of any size is at hand and two reads agree. Matrices are uniform with a deviation of
1 / sqrt(inputs) and norms are 1, so a layer keeps its input's size and nothing overflows in float16. What it does not
do: answer. Times, memory and the number of tokens are real; the words are noise.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import CheckpointError, InputError
from hired_edge.planner.config import hub_layout, model_shape, read_config, read_processor
from hired_edge.planner.published import PUBLISHED
from hired_edge.planner.shapes import ModelShape
from hired_export import stand_in

MARKER = "synthetic.json"
Read = Callable[[int, int], NDArray[np.float16]]

_NORM = re.compile(r"norm\d?\.weight$")
_UNIFORM = math.sqrt(3) / 2**15
"""A signed 16-bit integer times this has a deviation of 1."""


@contextmanager
def synthetic_checkpoint(source: str, seed: int) -> Iterator[Path]:
    """A temporary folder that `Checkpoint` reads as a model with random weights; its name ends in "-synthetic".

    Args:
        source: a published model's name ("llava-v1.6-vicuna-7b"), a config.json, or a checkpoint's folder, of which
            nothing else is read.
        seed: 0 or more; the same seed gives the same weights everywhere.

    Raises:
        InputError: no such name or file, or a negative seed.
        CheckpointError: a config that is not supported.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}", expected=f"0 to {2**32 - 1}", fix="pass another --seed")
    config = dict(hub_layout(read_config(source)))
    shape = model_shape(config, lambda: read_processor(source))
    image = config.setdefault(_image_key(shape.family), config.get("image_token_id", shape.text.vocab_size - 1))
    with tempfile.TemporaryDirectory(prefix="hired-edge-") as parent:
        folder = Path(parent) / f"{_name(source)}-synthetic"
        folder.mkdir()
        _write_json(folder / "config.json", config)
        _write_json(folder / MARKER, {"seed": seed})
        stand_in.write(folder, shape, image_token_id=image)
        yield folder


def _image_key(family: str) -> str:
    from hired_export.families import FAMILIES  # which read checkpoints, and so what this makes

    return FAMILIES[family].image_token


def stored_tensors(config: Mapping[str, Any], marker: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], Read]]:
    """Every tensor of a synthetic checkpoint: its shape, and what draws rows [start, stop) of it as float16.

    Args:
        config, marker: the contents of its config.json and synthetic.json.

    Raises:
        CheckpointError: synthetic.json holds no seed.
    """
    seed = marker.get("seed")
    if type(seed) is not int or seed < 0:
        raise CheckpointError(f"{MARKER} holds no seed", expected='{"seed": 0}', fix="export with --synthetic again")
    return {name: (shape, partial(_rows, seed, name, shape)) for name, shape in _shapes(model_shape(config)).items()}


def _shapes(model: ModelShape) -> dict[str, tuple[int, ...]]:
    # All of the tower's layers, as real checkpoints have them: attention may be read behind the features.
    tower = replace(model.tower, feature_layer=model.tower.layers - 1)
    vision = replace(model, tower=tower).vision_tensors
    tensors = {**model.language_tensors, **vision, **model.embedding_tensors}
    tensors |= tower.unread_tensors()  # never exported, but the parity check's reference runs it
    if model.text.tied:
        del tensors["lm_head.weight"]
    return tensors


def _rows(seed: int, name: str, shape: tuple[int, ...], start: int, stop: int) -> NDArray[np.float16]:
    if is_norm(name):
        return np.ones(shape[0], np.float16)[start:stop]
    key = [seed, zlib.crc32(name.encode())]
    if len(shape) == 1:
        return draw([*key, 0], shape[0], shape[0])[start:stop]
    inputs = math.prod(shape[1:])
    rows = np.empty((stop - start, inputs), np.float16)
    for row, values in enumerate(rows, start):
        values[:] = draw([*key, row], inputs, inputs)
    return rows.reshape(-1, *shape[1:])


def is_norm(name: str) -> bool:
    """Whether a tensor is a norm's weight, which is 1."""
    return _NORM.search(name) is not None


def draw(key: list[int], count: int, inputs: int) -> NDArray[np.float16]:
    """`count` weights of a matrix with so many inputs, from the seed `key`."""
    generator = np.random.Generator(np.random.SFC64(key))
    integers = np.frombuffer(generator.bytes(2 * count), "<i2")
    return (integers * np.float32(_UNIFORM / math.sqrt(inputs))).astype(np.float16)


def _name(source: str) -> str:
    """A folder's name that says where the shape is from."""
    if source in PUBLISHED and not Path(source).exists():
        return source
    path = Path(source).resolve()
    return re.sub(r"[^\w.-]", "-", path.name if path.is_dir() else path.stem)[:60]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
