"""Tiny checkpoints in 4 bits, as AutoAWQ, AutoGPTQ and compressed-tensors store them, and what they mean.

Written from the formats' definitions, an integer at a time and in plain Python, so that it shares nothing with the code
that reads them; tests/host/test_packed_matrices.py holds it against the libraries' own bytes. Knows nothing about
hired-edge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

Method = Literal["awq", "gptq", "gptq_v2", "compressed-tensors"]
METHODS: tuple[Method, ...] = ("awq", "gptq", "gptq_v2", "compressed-tensors")
AWQ_NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)
"""AutoAWQ: nibble i of a word holds the neighbour AWQ_NIBBLES[i]."""
PLAIN_NIBBLES = tuple(range(8))


@dataclass(frozen=True)
class Packed:
    """weight[o, i] = (integers[o, i] - zeros[o, g]) * scales[o, g] with g = groups[i].

    Args:
        integers: (outputs, inputs), 0 to 15.
        zeros: (outputs, groups), 0 to 15.
        scales: (outputs, groups) float16.
        groups: (inputs) the group of each input.
    """

    integers: NDArray[np.int64]
    zeros: NDArray[np.int64]
    scales: NDArray[np.float16]
    groups: NDArray[np.int64]

    @property
    def weight(self) -> NDArray[np.float64]:
        return (self.integers - self.zeros[:, self.groups]) * self.scales[:, self.groups].astype(np.float64)


def quantised(weight: NDArray[np.floating], group: int, *, symmetric: bool, act_order: bool = False) -> Packed:
    """As GPTQ's quantiser does without its error feedback: symmetric steps are 2 max / 15, others (max - min) / 15."""
    outputs, inputs = weight.shape
    count = inputs // group
    groups = np.arange(inputs) // group
    if act_order:
        groups = np.random.default_rng(7).permutation(groups)
    integers = np.zeros((outputs, inputs), np.int64)
    zeros, scales = np.zeros((outputs, count), np.int64), np.zeros((outputs, count), np.float16)
    for g in range(count):
        part = weight[:, groups == g].astype(np.float64)
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        if symmetric:
            high = np.maximum(-low, high)
            low = -high
        scales[:, g] = (high - low) / 15
        step = scales[:, g].astype(np.float64)
        zeros[:, g] = 8 if symmetric else np.clip(np.rint(-low / step), 0, 15)
        integers[:, groups == g] = np.clip(np.rint(part / step[:, None]) + zeros[:, g][:, None], 0, 15)
    return Packed(integers, zeros, scales, groups)


def stored(matrix: Packed, method: Method) -> dict[str, NDArray[Any]]:
    """The tensors of a layer, by suffix."""
    if method == "compressed-tensors":
        parts: dict[str, NDArray[Any]] = {
            "weight_packed": _words(matrix.integers, PLAIN_NIBBLES),
            "weight_scale": matrix.scales,
            "weight_shape": np.array(matrix.integers.shape, np.int64),
        }
        if (matrix.zeros != 8).any():
            parts["weight_zero_point"] = _words(matrix.zeros.T, PLAIN_NIBBLES).T
        if (np.diff(matrix.groups) < 0).any():
            parts["weight_g_idx"] = matrix.groups.astype(np.int32)
        return parts
    if method == "awq":
        return {
            "qweight": _words(matrix.integers.T, AWQ_NIBBLES),
            "qzeros": _words(matrix.zeros.T, AWQ_NIBBLES),
            "scales": matrix.scales.T,
        }
    zeros = matrix.zeros if method == "gptq_v2" else (matrix.zeros - 1)
    return {
        "qweight": _words(matrix.integers, PLAIN_NIBBLES).T,
        "qzeros": _words(zeros.T, PLAIN_NIBBLES),
        "scales": matrix.scales.T,
        "g_idx": matrix.groups.astype(np.int32),
    }


def _words(values: NDArray[np.int64], nibbles: Sequence[int]) -> NDArray[np.int32]:
    """(rows, 8 n) integers -> (rows, n) words; nibble 0 is the lowest. -1 borrows from its neighbours."""
    rows, columns = values.shape
    words = np.zeros((rows, -(-columns // 8)), np.int32)
    for row in range(rows):
        for word in range(words.shape[1]):
            total = sum(
                int(values[row, 8 * word + neighbour]) << (4 * nibble)
                for nibble, neighbour in enumerate(nibbles)
                if 8 * word + neighbour < columns
            )
            words[row, word] = np.uint32(total % 2**32).astype(np.int32)
    return words


def quantization_config(method: Method, group: int, *, symmetric: bool, act_order: bool = False) -> dict[str, Any]:
    """What each library writes into config.json."""
    if method == "awq":
        kept = ["vision_tower", "multi_modal_projector"]
        fields = {"quant_method": "awq", "zero_point": True, "version": "gemm", "modules_to_not_convert": kept}
        return {**fields, "bits": 4, "group_size": group}
    if method == "compressed-tensors":
        order = "group" if act_order else None
        weights = {"num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
        scheme = {"targets": ["Linear"], "weights": {**weights, "actorder": order, "dynamic": False}}
        return {
            "quant_method": method,
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": {**scheme, "input_activations": None, "output_activations": None}},
            "ignore": ["re:.*lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"],
        }
    return {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": group,
        "desc_act": act_order,
        "sym": symmetric,
        "checkpoint_format": method,
        "true_sequential": True,
    }


def pack_checkpoint(
    folder: Path, method: Method, *, group: int = 64, symmetric: bool = True, act_order: bool = False
) -> dict[str, Packed]:
    """Stores the decoder's matrices of a tiny checkpoint (one safetensors file) in 4 bits, the rest in fp16.

    Returns:
        what was stored, by `layers.0.self_attn.q_proj` and so on.
    """
    path = folder / "model.safetensors"
    found: dict[str, Packed] = {}
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(path).items():
        layer = re.search(r"language_model.*(layers\.\d+\.(?:self_attn|mlp)\.\w+_proj)\.weight$", name)
        if layer is None:
            kept[name] = tensor.half()
            continue
        matrix = quantised(tensor.float().numpy(), group, symmetric=symmetric, act_order=act_order)
        found[layer[1]] = matrix
        for suffix, part in stored(matrix, method).items():
            kept[name.removesuffix("weight") + suffix] = torch.from_numpy(np.ascontiguousarray(part))
    save_file(kept, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization_config(method, group, symmetric=symmetric, act_order=act_order)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return found
