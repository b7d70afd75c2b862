"""The bundles that the proof runs on: each exported once, from a tiny random checkpoint, and shared by all workers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.torch import load_file, save_file

from hired_edge.bundle import Bundle, write_manifest
from hired_edge.manifest import Graph, Manifest
from hired_export import exporter, parity
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import ExportOptions, export
from hired_export.families import AttentionChoice, read_spec, rotary_tables
from hired_export.sources import Sources
from tests.host.recipes import CALM, Recipe, internvl, phi3
from tests.host.traces import Lock, Shared, traced_language, traced_vision
from tests.tiny.checkpoints import write_checkpoint

LENGTH = 320  # ceil64(88 visual + 160 text + 40 new): exactly what two of the checkpoints were "trained" for
_MISTRAL = {"head_dim": 24, "max_position_embeddings": LENGTH, "num_hidden_layers": 2}
_WIDE = {"text_config": {"hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2}}
PRECISIONS = {
    "cpu": ("fp32", "int8", "int4"),
    "cuda": ("fp16",),
    "jp7": ("fp16", "int8", "int4"),
    "jp6": ("fp16", "int8", "int4"),
}
"""What each target is tried with; `cuda` and `jp7` have the same graphs."""
# Matrices whose inputs blocks of 64 divide; grouped heads.
_BLOCKS = {
    "text_config": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    }
}

RECIPES = {
    "next-llama": Recipe(options={"max_batch": 3, "max_images": 2}),
    "next-llama-heads": Recipe(
        checkpoint={"text_config": {"num_hidden_layers": 1}},
        options={"attention": AttentionChoice(1, 4, "2")},
        shares=False,
    ),
    "next-mistral": Recipe(
        text="mistral",
        checkpoint={
            "layout": "v4",
            "shards": 3,
            "rope": {"rope_type": "dynamic", "factor": 2.0},
            "text_config": {**_MISTRAL, "sliding_window": 4096},
        },
    ),
    "next-mistral-window": Recipe(
        text="mistral",
        checkpoint={"layout": "memory", "text_config": {**_MISTRAL, "sliding_window": 24}},
        options={"max_batch": 3},
    ),
    "next-qwen2": Recipe(
        text="qwen2",
        checkpoint={
            "layout": "memory",
            "safetensors": False,
            "tie_embeddings": True,
            "rope": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
            "text_config": {"num_hidden_layers": 2},
        },
    ),
    "llava-llama": Recipe(
        family="llava",
        checkpoint={
            "layout": "v4",
            "safetensors": False,
            "shards": 2,
            "rope": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            "text_config": {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
        },
    ),
    "wide-fp32": Recipe(checkpoint=_WIDE, gains=CALM),
    "wide-int8": Recipe(checkpoint=_WIDE, gains=CALM, options={"precision": "int8"}),
    **{
        f"wide-int4-{block}": Recipe(checkpoint=_WIDE, gains=CALM, options={"precision": "int4", "block_size": block})
        for block in (32, 64, 128)
    },
    **{
        f"{target}-{precision}": Recipe(
            checkpoint=_BLOCKS,
            gains=CALM,
            options={
                "target": target,
                "precision": precision,
                "block_size": 64 if precision == "int4" else None,
                "visual_tokens": ("100%", "20%"),
                "max_batch": 2,
            },
        )
        for target, precisions in PRECISIONS.items()
        for precision in precisions
    },
    "jp6-window": Recipe(
        text="mistral",
        checkpoint={"text_config": {**_MISTRAL, "sliding_window": 24}},
        options={"target": "jp6", "lm_head_parts": 3, "max_batch": 2},
    ),
    **internvl.RECIPES,
    **phi3.RECIPES,
}
PARITY = ("next-llama", "next-mistral", "next-mistral-window", "next-qwen2", "llava-llama")
"""Together: every family, text model and layout, .bin and sharded, tied, biases, grouped heads, head_dim, scalings."""


def marked(names: Iterable[str] = RECIPES, *, slow: Iterable[str] = ()) -> list[Any]:
    """Names for parametrize, the slow ones marked, and those of `slow`."""
    later = {*slow, *(name for name in names if RECIPES[name].slow)}
    return [pytest.param(name, marks=pytest.mark.slow) if name in later else name for name in names]


@dataclass(frozen=True)
class Exported:
    checkpoint: Path
    bundle: Path


class Bundles:
    """`bundles(name)` is the checkpoint and the bundle of a recipe, made on first use by whichever worker asks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        Shared.folder = root / "traces"

    def checkpoint(self, name: str) -> Path:
        recipe = RECIPES[name]
        folder = self.root / "checkpoints" / name
        with self._lock(f"{name}.checkpoint"):
            if not folder.exists():
                partial = folder.with_name(f"{name}.partial")
                write_checkpoint(partial, recipe.family, recipe.text, **recipe.checkpoint)
                if recipe.gains:
                    _multiply(partial / "model.safetensors", recipe.gains)
                partial.rename(folder)
        return folder

    def __call__(self, name: str) -> Exported:
        checkpoint, out = self.checkpoint(name), self.root / "bundles" / name
        with self._lock(f"{name}.bundle"):
            if not out.exists():
                with pytest.MonkeyPatch.context() as patch:
                    if RECIPES[name].shares:
                        patch.setattr(exporter, "language_graph", traced_language)
                        patch.setattr(exporter, "vision_graph", traced_vision)
                    export(checkpoint, out, options(name), check=parity.check)
        return Exported(checkpoint, out)

    def _lock(self, name: str) -> Lock:
        return Lock(self.root / f"{name}.lock")


def _multiply(weights: Path, gains: dict[str, float]) -> None:
    tensors = load_file(weights)
    for part, gain in gains.items():
        for name in tensors:
            if "language_model" in name and part in name:
                tensors[name] = tensors[name] * gain
    save_file(tensors, weights, metadata={"format": "pt"})


def options(name: str, **changes: Any) -> ExportOptions:
    sizes = {"visual_tokens": ("100%",), "max_text_tokens": 160, "max_new_tokens": 40, "progress": False}
    return ExportOptions(**{**sizes, **RECIPES[name].options, **changes})


def standard_language(checkpoint: Path) -> ir.Model:
    """The standard opset-24 language graph, before any lowering, its weights in memory."""
    opened = Checkpoint(checkpoint)
    spec = read_spec(opened, AttentionChoice())
    model = traced_language(spec.decoder)
    arrays = {name: tensor.widen(tensor.stored()) for name, tensor in Sources(opened, spec).language.items()}
    arrays = {name: array.T if array.ndim == 2 else array for name, array in arrays.items()}
    cos, sin = rotary_tables(spec.config.text_config)
    arrays |= {"rotary_cos": cos.numpy(), "rotary_sin": sin.numpy()}
    for name, array in arrays.items():
        model.graph.initializers[name].const_value = ir.tensor(np.ascontiguousarray(array), name=name)
    return model


def variant(
    source: Path,
    out: Path,
    *,
    language: ir.Model | None = None,
    change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> Path:
    """A copy of a bundle with another language graph, weights inside, or another manifest; hashes are made anew."""
    manifest = Bundle.open(source).manifest
    shutil.copytree(source, out)
    if language is not None:
        proto = ir.to_proto(language)
        (theirs,) = manifest.language_graphs
        (out / theirs.file).write_bytes(proto.SerializeToString())
        for name in theirs.data:
            (out / name).unlink()
        graph = Graph(
            file=theirs.file,
            data=(),
            opset=language.opset_imports[""],
            inputs=tuple(str(value.name) for value in language.graph.inputs),
            outputs=tuple(str(value.name) for value in language.graph.outputs),
            max_sequence_length=None,
        )
        manifest = replace(manifest, language_graphs=(graph,))
    write_manifest(out, change(manifest))
    return out
