"""What is measured: a model's tower and projector with random weights, as our graphs and as a plain export, made once.

The plain export is what `torch.onnx.export` makes of transformers' CLIPVisionModel and the projector, weights and all.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cpu import peers
from benchmarks.shapes import folder_name, square
from hired_edge.planner.shapes import ModelShape
from hired_runtime.whole import whole

PRECISIONS = ("fp32", "int8")
SEED = 0


@dataclass(frozen=True)
class Files:
    """In a work folder.

    Args:
        work: the folder.
        shape: a published model's name, or a config.json.
        picture: the one whose tiles are encoded.
    """

    work: Path
    shape: str
    picture: Path

    @property
    def folder(self) -> Path:
        return self.work / folder_name(self.shape)

    @property
    def pixels(self) -> Path:
        """(5, 3, h, w) float32: a square picture of two by two tiles, the base first."""
        return self.folder / "pixels.npy"

    def graph(self, precision: str) -> Path:
        return self.folder / precision / "vision/model.onnx"

    @property
    def text(self) -> Path:
        """A language model for llama.cpp, of the right width and little else."""
        return self.folder / "text.gguf"

    def mmproj(self, weights: str) -> Path:
        return self.folder / f"mmproj-{weights}.gguf"

    @property
    def stock(self) -> Path:
        return self.folder / "stock/model.onnx"


def make(files: Files, report: Callable[[str], None]) -> None:
    """Makes what is missing; the weights are those of `hired-edge export --synthetic`. Loads torch.

    Raises:
        HiredEdgeError: no such shape.
    """
    from hired_export.synthetic import synthetic_checkpoint

    files.folder.mkdir(parents=True, exist_ok=True)
    with synthetic_checkpoint(files.shape, SEED) as folder:
        if not files.pixels.exists():
            report("the picture's tiles")
            _make_pixels(files, folder)
        for precision in PRECISIONS:
            if not files.graph(precision).exists():
                report(f"our graph, {precision}")
                _in_place(files.folder / precision, lambda out, p=precision: _make_graph(out, folder, p))
        if not files.stock.exists():
            report("the plain export")
            _in_place(files.stock.parent, lambda out: _make_stock(out, folder))


def make_mmproj(files: Files, interpreter: str, model: ModelShape, weights: str) -> None:
    """What llama.cpp's mtmd needs, by the peers' interpreter; nothing is done where it is there.

    Raises:
        HiredEdgeError: it cannot be written.
    """
    small = replace(model.text, vocab_size=512, intermediate_size=256)
    peers.write_gguf(interpreter, files.text, replace(model, text=small), 1)
    if files.mmproj(weights).exists():
        return
    tower, rules = model.tower, model.tiling
    shape = {
        "layers": tower.exported_layers,
        "hidden": tower.hidden_size,
        "intermediate": tower.intermediate_size,
        "heads": tower.heads,
        "image": rules.image_size,
        "patch": rules.patch_size,
        "text": model.text.hidden_size,
        "pinpoints": [size for height, width in rules.pinpoints for size in (width, height)],
    }
    with whole(files.mmproj(weights)) as partial:
        peers.run(interpreter, "benchmarks.vision.mmproj_file", str(partial), weights, json.dumps(shape))


def _in_place(out: Path, make_it: Callable[[Path], None]) -> None:
    """`make_it` fills a folder that then becomes `out`: what is there is whole."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    partial.mkdir()
    try:
        make_it(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def spec_of(checkpoint: Path) -> Any:
    """The `ModelSpec` of a checkpoint."""
    from hired_export.checkpoint import Checkpoint
    from hired_export.families import AttentionChoice, read_spec

    return read_spec(Checkpoint(checkpoint), AttentionChoice())


def _make_pixels(files: Files, checkpoint: Path) -> None:

    from hired_edge.tiling import tile
    from hired_export.checkpoint import Checkpoint
    from hired_export.picture_rules import read_preprocessing
    from hired_runtime.preprocess import pixel_values

    rules = spec_of(checkpoint).tiling
    side = 2 * rules.image_size
    picture = square(files.picture, side)
    pixels = pixel_values(picture, tile(side, side, rules), read_preprocessing(Checkpoint(checkpoint), rules))
    with whole(files.pixels) as partial, partial.open("wb") as file:
        np.save(file, pixels)


def _make_graph(out: Path, checkpoint: Path, precision: str) -> None:
    from hired_export.checkpoint import Checkpoint
    from hired_export.exporter import lowered_vision
    from hired_export.sources import Sources
    from hired_export.targets import TARGETS, schemes
    from hired_export.writing import Writing

    spec = spec_of(checkpoint)
    _, stored = schemes("cpu", "fp32", None, vision=precision)
    writing = Writing(out, Sources(Checkpoint(checkpoint), spec), stored, None, lambda count: None)
    writing.vision(lowered_vision(spec, stored, TARGETS["cpu"]))


def _make_stock(out: Path, checkpoint: Path) -> None:
    import torch

    from benchmarks.vision.torch_side import Tower

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports on libraries that are not needed
    tower = Tower(checkpoint, "sdpa").eval()
    side = spec_of(checkpoint).vision.image_size
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            tower,
            (torch.zeros(2, 3, side, side),),
            dynamo=True,
            input_names=["pixel_values"],
            output_names=["image_features"],
            dynamic_shapes=({0: torch.export.Dim("tiles")},),
            verbose=False,
        )
    assert program is not None
    program.save(out / "model.onnx", external_data=True)
