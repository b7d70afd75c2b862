"""Matrices that a text model's checkpoint stores as one (Phi-3's queries, keys and values), as the decoder's parts.

Which are fused is `TEXT_MODELS`' business; how many rows a part has, the config's. Parts are rows of the whole, so each
is read, and quantised, by itself; joining them again (`joined`) is for the reference, which has them fused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hired_edge.errors import CheckpointError
from hired_edge.planner.config import model_shape
from hired_edge.planner.text_models import TEXT_MODELS
from hired_export.tensor import Tensor

_ANY = {name for text in TEXT_MODELS.values() for name in text.fused}
_STORED = re.compile(rf"text\.layers\.(\d{{1,6}})\.({'|'.join(map(re.escape, sorted(_ANY)))})\.(weight|bias)")


def split(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """`tensors` (canonical names) with the parts in the place of every fused matrix.

    Raises:
        CheckpointError: the text model has no such matrix, or another number of rows.
    """
    fused = {name: found for name in tensors if (found := _STORED.fullmatch(name))}
    if not fused:
        return tensors
    text = model_shape(config).text
    of_model = TEXT_MODELS[text.model_type].fused
    shapes = text.layer_tensors(0)
    plain = {name: tensor for name, tensor in tensors.items() if name not in fused}
    for name, found in fused.items():
        layer, matrix, kind = found.groups()
        if matrix not in of_model:
            raise CheckpointError(
                f"the checkpoint has a tensor {name} (canonical name)",
                expected=f"a text model with fused matrices, where config.json says {text.model_type}",
                fix="use a config.json and weights that belong together",
            )
        parts = [(part, shapes[f"text.layers.0.{part}.weight"]) for part in of_model[matrix]]
        rows = sum(shape[0] for _, shape in parts)
        expected = (rows, parts[0][1][1]) if kind == "weight" else (rows,)
        if tensors[name].shape != expected:
            raise CheckpointError(
                f"tensor {name} has shape {tensors[name].shape}",
                expected=f"{expected}, from config.json",
                fix="use a config.json and weights that belong together",
            )
        start = 0
        for part, (rows, _) in parts:
            plain[f"text.layers.{layer}.{part}.{kind}"] = tensors[name].part(start, start + rows)
            start += rows
    return plain


def parts_of(text_type: str, name: str) -> tuple[str, ...]:
    """Canonical names of the parts of a text model's fused matrix, in order; none for a tensor that is none."""
    found = _STORED.fullmatch(name)
    if found is None:
        return ()
    layer, matrix, kind = found.groups()
    return tuple(f"text.layers.{layer}.{part}.{kind}" for part in TEXT_MODELS[text_type].fused.get(matrix, ()))


def module_of(text_type: str, part: str) -> str:
    """What computes a part of a decoder layer in transformers' own layer: the fused product, or the part itself."""
    fused = TEXT_MODELS[text_type].fused
    return next((name for name, parts in fused.items() if part in parts), part)
