"""A valid manifest with LLaVA-NeXT-7B's numbers, and a bundle of a few bytes that it describes. Needs neither torch
nor onnx."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hired_edge import strict
from hired_edge.budget import parse_budget
from hired_edge.bundle import write_manifest
from hired_edge.limits import derive_limits
from hired_edge.manifest import (
    FORMAT_VERSION,
    FileRecord,
    GoldenCase,
    Graph,
    Manifest,
    ParityCheck,
    PromptFiles,
    Quantisation,
    TextModel,
    VisionModel,
)
from hired_edge.plan import NO_PLAN, memory_plan
from hired_edge.preprocessing import PreprocessRules
from hired_edge.tensorfile import write_tensors
from hired_edge.tiling import TilingRules

LLAVA_NEXT = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
LLAVA = TilingRules("single", 336, 14, ())


def example_text() -> TextModel:
    """LLaVA-7B's Llama."""
    return TextModel(
        model_type="llama",
        layers=32,
        heads=32,
        kv_heads=32,
        head_dim=128,
        hidden_size=4096,
        vocab_size=32064,
        sliding_window=None,
        positions=4096,
        activation_dtype="float16",
        cache_dtype="float16",
        cache="in_place",
    )


def example_vision() -> VisionModel:
    """CLIP ViT-L/14-336 with the paper's layers."""
    return VisionModel(
        model_type="clip_vision_model",
        tiling=LLAVA_NEXT,
        preprocess=PreprocessRules(336, None, 3, 1 / 255, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)),
        layers=24,
        allocation_layer=0,
        selection_layer=22,
        feature_layer=22,
        heads="sum",
        newline=True,
    )


def example_manifest() -> Manifest:
    """A manifest that `validate` accepts; its files are made up (`write_bundle` makes real ones)."""
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        producer="hired-edge 0.1.0",
        family="llava_next",
        checkpoint="llava-v1.6-vicuna-7b-hf",
        target="cuda",
        text=example_text(),
        vision=example_vision(),
        quantisation=Quantisation("int4", bits=4, block_size=64, lm_head_bits=8, embedding_dtype="float16"),
        limits=derive_limits(LLAVA_NEXT, [parse_budget("20%"), parse_budget("5%")], text_tokens=256, new_tokens=128),
        vision_graph=Graph("vision/model.onnx", (), 21, ("pixel_values",), ("image_features",), None),
        language_graphs=(
            Graph("language/model.onnx", ("language/model.onnx.data",), 21, ("inputs_embeds",), ("logits",), None),
        ),
        embedding="embedding.safetensors",
        prompt=PromptFiles("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", None),
        image_token="<image>",
        stop_token_ids=(2,),
        parity=(ParityCheck("vision", "torch float32", 1e-6, 3.5, 1e-4),),
        golden=(GoldenCase("vision", "golden/vision.inputs.st", "golden/vision.outputs.st", "seeded noise"),),
        quantisation_errors={"lm_head.weight": 0.01, "model.layers.0.mlp.up_proj.weight": 0.07},
        files={},
        memory=NO_PLAN,
        digest="",
    )
    names = [name for _, name in manifest.referenced_files()]
    manifest = replace(manifest, files={name: FileRecord(100 + i, f"{i:064x}") for i, name in enumerate(names)})
    return replace(manifest, memory=memory_plan(manifest)).validate()


def write_bundle(root: Path, location: str = "model.onnx.data") -> Manifest:
    """Write a bundle of a few bytes, whose language graph has one tensor at `location`."""
    manifest = example_manifest()
    for name in manifest.files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"the bytes of {name}".encode())
    (root / "vision/model.onnx").write_bytes(onnx_bytes())
    (root / "language/model.onnx").write_bytes(onnx_bytes(location))
    write_tensors(root / "embedding.safetensors", {"weight": np.zeros((4, 2), np.float16)})
    return write_manifest(root, manifest)


def forge(root: Path, manifest: Manifest) -> None:
    """Write an edited manifest with the plan and the digest that belong to it: an edit that hides itself."""
    manifest = replace(manifest, memory=memory_plan(manifest))
    manifest = replace(manifest, digest=manifest.computed_digest())
    (root / "manifest.json").write_text(strict.dumps(manifest), encoding="utf-8")


def onnx_bytes(*locations: str) -> bytes:
    """The protobuf of an ONNX model with an external initialiser for each location, and no more."""
    tensors = b"".join(
        field(5, field(13, field(1, b"location") + field(2, location.encode()))) for location in locations
    )
    return field(7, field(2, b"graph") + tensors)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    head = b""
    while value > 0x7F:
        head, value = head + bytes([value & 0x7F | 0x80]), value >> 7
    return head + bytes([value])
