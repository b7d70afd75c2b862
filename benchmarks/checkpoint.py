"""A checkpoint of full size with random weights, written as fast as the disk takes it: what the figures are made of.

    python -m benchmarks.checkpoint llava-v1.6-vicuna-7b OUT [--layers N] [--seed S] [--tokenizer]

OUT is as the Hub has one: config.json, float16 safetensors in shards of 5 GB with their index, tokenizer, chat
template, preprocessor config. transformers and `hired-edge export` read it as they read a real one. Weights have the
size that keeps a layer's output as large as its input, but are not independent: every tensor is a stretch of a pool
of 2**24 - 3 numbers, from a place that its name and the seed decide, again and again where it is longer. Time and
memory do not depend on that; what a model of such weights answers means nothing anyway.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import hub_name, shard_name, shards
from hired_edge.errors import HiredEdgeError, InputError
from hired_edge.planner.config import hub_layout, read_config
from hired_edge.tensorfile import TensorWriter
from hired_export.partial import partial_folder
from hired_export.progress import OnBytes, step
from hired_export.synthetic import MARKER, draw, is_norm, stored_tensors, synthetic_checkpoint

SHARD_BYTES = 5 * 10**9
"""As transformers splits by default."""
POOL = 2**24 - 3
"""Prime, so that no row of a matrix is another one's copy."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoint", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("source", metavar="MODEL", help="llava-v1.6-vicuna-7b or the like, or a config.json")
    parser.add_argument("out", metavar="OUT", help="the checkpoint's folder, which must not exist yet")
    parser.add_argument("--layers", type=int, metavar="N", help="of the text model (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights (default: 0)")
    parser.add_argument(
        "--tokenizer", action="store_true", help="the 32,000 words of Mistral 7B, from mistral-common (pip install it)"
    )
    args = parser.parse_args(argv)
    try:
        start = time.monotonic()
        size = write_checkpoint(args.source, Path(args.out), args.layers, args.seed, words=args.tokenizer)
    except HiredEdgeError as error:
        print(f"benchmarks.checkpoint: error: {error}", file=sys.stderr)
        return 2
    seconds = time.monotonic() - start
    print(f"{args.out}: {size / 1e9:.2f} GB in {seconds:.1f} s, {size / 1e9 / seconds:.2f} GB/s")
    return 0


def write_checkpoint(source: str, out: Path, layers: int | None, seed: int, *, words: bool) -> int:
    """Writes the folder `out`; returns the bytes of its weights.

    Args:
        source: as of `synthetic_checkpoint`.
        layers: of the text model; None = as many as the config says.
        words: whether to take a real tokenizer, instead of the one that `stand_in` makes up.

    Raises:
        HiredEdgeError: a source, number of layers or seed that is none, no room, or no mistral-common.
    """
    config = dict(hub_layout(read_config(source)))
    if layers is not None:
        if layers < 1:
            raise InputError(f"--layers {layers}", expected="1 or more", fix="pass another --layers")
        config["text_config"] = {**config["text_config"], "num_hidden_layers": layers}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        with synthetic_checkpoint(str(file), seed) as small:
            config = json.loads((small / "config.json").read_text(encoding="utf-8"))
            if words:
                from benchmarks import mistral_words

                mistral_words.write(small, config)
            shapes = {name: shape for name, (shape, _) in stored_tensors(config, {"seed": seed}).items()}
            size = sum(2 * math.prod(shape) for shape in shapes.values())
            with partial_folder(out, size) as made:
                shutil.copytree(small, made, ignore=shutil.ignore_patterns(MARKER), dirs_exist_ok=True)
                with step(out.name, True, size) as on_bytes:
                    _write_shards(made, shapes, Pools(seed), on_bytes)
    return size


class Pools:
    """Random numbers for every number of inputs, drawn once."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: dict[int, NDArray[np.float16]] = {}
        self._drawing = threading.Lock()

    def pieces(self, name: str, shape: tuple[int, ...]) -> Iterator[NDArray[np.float16]]:
        """The tensor `name`, flat, piece by piece."""
        left = math.prod(shape)
        if is_norm(name):
            yield np.ones(left, np.float16)
            return
        inputs = math.prod(shape[1:]) if len(shape) > 1 else left
        with self._drawing:
            if inputs not in self._drawn:
                self._drawn[inputs] = draw([self._seed, inputs], POOL, inputs)
        pool = self._drawn[inputs]
        start = int(np.random.default_rng([self._seed, zlib.crc32(name.encode())]).integers(POOL))
        while left:
            piece = pool[start : start + left]
            yield piece
            left -= len(piece)
            start = 0


def _write_shards(out: Path, shapes: Mapping[str, tuple[int, ...]], pools: Pools, on_bytes: OnBytes) -> None:
    split = shards(shapes, SHARD_BYTES)
    names = [shard_name(i, len(split)) for i in range(len(split))]
    with ThreadPoolExecutor(min(len(split), len(os.sched_getaffinity(0)))) as threads:
        list(threads.map(partial(_write_shard, out, shapes, pools, on_bytes), names, split))
    index: dict[str, Any] = {
        "metadata": {"total_size": sum(2 * math.prod(shape) for shape in shapes.values())},
        "weight_map": {
            hub_name(tensor): name for name, tensors in zip(names, split, strict=True) for tensor in tensors
        },
    }
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_shard(
    out: Path, shapes: Mapping[str, tuple[int, ...]], pools: Pools, on_bytes: OnBytes, name: str, tensors: list[str]
) -> None:
    with TensorWriter(out / name, {hub_name(tensor): ("F16", shapes[tensor]) for tensor in tensors}) as writer:
        for tensor in tensors:
            for piece in pools.pieces(tensor, shapes[tensor]):
                writer.write(hub_name(tensor), piece)
                on_bytes(piece.nbytes)


if __name__ == "__main__":
    sys.exit(main())
