"""Hand-made ONNX graphs for TensorRT's parser and builder: one product, and one attention layer with its cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hired_edge.engine_record import ShapeRange
from hired_runtime.trt.profiles import between

WIDTH = 1024
"""Of the product, in and out."""
SLOTS = 128
HEADS, HEAD_DIM = 4, 64
FLOAT16 = TensorProto.FLOAT16


def product_graph(weights: str, opset: int = 21) -> onnx.ModelProto:
    """x (B, 1024) @ weights (1024, 1024).

    Args:
        weights: "fp16", "int8" (per output channel), "int4-BLOCK"; "MatMulNBits" and "zero-point" are refused.
        opset: that the model declares.
    """
    random = np.random.default_rng(0)
    integers = random.integers(-7, 8, (WIDTH, WIDTH)).astype(np.int8)
    channel = constant("scale", np.full(WIDTH, 0.01, np.float16))
    made = {
        "fp16": lambda: ([constant("w", random.standard_normal((WIDTH, WIDTH)).astype(np.float16))], []),
        "int8": lambda: ([constant("q", integers), channel], [dequantise(axis=1)]),
        "zero-point": lambda: (
            [constant("q", integers), channel, constant("zero", np.ones(WIDTH, np.int8))],
            [dequantise("zero", axis=1)],
        ),
        "MatMulNBits": lambda: (
            [
                constant("q", np.zeros((WIDTH, WIDTH // 32, 16), np.uint8)),
                constant("scale", np.full((WIDTH, WIDTH // 32), 0.01, np.float16)),
            ],
            [],
        ),
    }
    if weights.startswith("int4-"):
        block = int(weights.removeprefix("int4-"))
        scale = constant("scale", np.full((WIDTH // block, WIDTH), 0.01, np.float16))
        initialisers, nodes = [packed("q", integers), scale], [dequantise(axis=0, block_size=block)]
    else:
        initialisers, nodes = made[weights]()
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    if weights == "MatMulNBits":
        sizes: dict[str, Any] = {"K": WIDTH, "N": WIDTH, "bits": 4, "block_size": 32}
        product = helper.make_node(
            "MatMulNBits", ["x", "q", "scale"], ["y"], name="product", domain="com.microsoft", **sizes
        )
    shape = ["batch", WIDTH]
    return model([*nodes, product], {"x": (FLOAT16, shape)}, {"y": (FLOAT16, shape)}, initialisers, opset)


def product_profiles() -> tuple[dict[str, ShapeRange], ...]:
    return ({"x": between((1, WIDTH), (1, WIDTH))}, {"x": between((1, WIDTH), (64, WIDTH))})


def external_product_graph(folder: Path) -> Path:
    """The fp16 product, its weights in `weights.data`."""
    onnx.save_model(
        product_graph("fp16"),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    return folder / "model.onnx"


def attention_graph(kv_heads: int, slots: int | str = SLOTS) -> onnx.ModelProto:
    """Queries, keys and values as inputs, written into a cache and attended to: names as in a bundle's graphs."""
    cache = (FLOAT16, ["batch", kv_heads, slots, HEAD_DIM])
    update = (FLOAT16, ["batch", kv_heads, "sequence", HEAD_DIM])
    queries = (FLOAT16, ["batch", HEADS, "sequence", HEAD_DIM])
    nodes = [
        helper.make_node(
            "TensorScatter",
            [f"past_key_values.0.{part}", f"new_{part}", "write_indices"],
            [f"present.0.{part}"],
            axis=-2,
            name=f"write_{part}",
        )
        for part in ("key", "value")
    ]
    attend = ["queries", "present.0.key", "present.0.value", "attention_mask"]
    nodes.append(helper.make_node("Attention", attend, ["mixed"], name="attend"))
    inputs = {
        "queries": queries,
        "new_key": update,
        "new_value": update,
        "attention_mask": (TensorProto.BOOL, ["batch", 1, "sequence", slots]),
        "write_indices": (TensorProto.INT64, ["batch"]),
        "past_key_values.0.key": cache,
        "past_key_values.0.value": cache,
    }
    return model(nodes, inputs, {"mixed": queries, "present.0.key": cache, "present.0.value": cache}, [], 24)


def attention_profiles(kv_heads: int, batch: int = 2) -> tuple[dict[str, ShapeRange], ...]:
    """Decode and prefill."""

    def shapes(rows: int, tokens: int) -> dict[str, tuple[int, ...]]:
        cache = (rows, kv_heads, SLOTS, HEAD_DIM)
        return {
            "queries": (rows, HEADS, tokens, HEAD_DIM),
            "new_key": (rows, kv_heads, tokens, HEAD_DIM),
            "new_value": (rows, kv_heads, tokens, HEAD_DIM),
            "attention_mask": (rows, 1, tokens, SLOTS),
            "write_indices": (rows,),
            "past_key_values.0.key": cache,
            "past_key_values.0.value": cache,
        }

    def profile(tokens: int) -> dict[str, ShapeRange]:
        small, large = shapes(1, 1), shapes(batch, tokens)
        return {name: between(small[name], large[name]) for name in small}

    return profile(1), profile(SLOTS)


def model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[Any] | None]],
    outputs: Mapping[str, tuple[int, list[Any] | None]],
    initialisers: list[onnx.TensorProto],
    opset: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, *described) for name, described in inputs.items()],
        [helper.make_tensor_value_info(name, *described) for name, described in outputs.items()],
        initialisers,
    )
    domains = sorted({node.domain for node in nodes if node.domain})
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=11)


def constant(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def packed(name: str, integers: NDArray[np.int8]) -> onnx.TensorProto:
    """An int4 tensor: two a byte, the first in the low half."""
    nibbles = integers.reshape(-1).view(np.uint8) & 15
    tensor = TensorProto(name=name, data_type=TensorProto.INT4, dims=integers.shape)
    tensor.raw_data = (nibbles[0::2] | (nibbles[1::2] << 4)).tobytes()
    return tensor


def dequantise(*zero_point: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", ["q", "scale", *zero_point], ["w"], name="dequantise", **attributes)


def write(graph: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(graph.SerializeToString())
    return path
