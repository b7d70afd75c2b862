"""An embedding table of int8 rows, each with its scale: gathered, widened, and refused where it is not what it says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hired_edge.bundle import Bundle, write_manifest
from hired_edge.errors import BundleError
from hired_edge.tensorfile import TensorFile, write_tensors
from hired_runtime.embedding import Embedding

BUNDLE = Path(__file__).parents[1] / "golden/bundle"


@pytest.fixture
def tensors() -> dict[str, NDArray]:
    """The golden bundle's table, its rows rounded to multiples of their scales."""
    file = TensorFile(Bundle.open(BUNDLE, verify=False).path("embedding.safetensors"))
    table = file.read("embed_tokens").astype(np.float32)
    scales = np.abs(table).max(axis=1) / np.float32(127)
    return {
        "embed_tokens": np.rint(table / scales[:, None]).astype(np.int8),
        "embed_tokens.scales": scales,
        "image_newline": file.read("image_newline"),
    }


def bundle(folder: Path, tensors: dict[str, NDArray]) -> Bundle:
    shutil.copytree(BUNDLE, folder)
    manifest = Bundle.open(folder, verify=False).manifest
    write_tensors(folder / manifest.embedding, tensors)
    quantisation = replace(manifest.quantisation, embedding_dtype="int8")
    write_manifest(folder, replace(manifest, quantisation=quantisation))
    return Bundle.open(folder)


def test_rows_are_integers_times_their_scale(tensors: dict[str, NDArray], tmp_path: Path) -> None:
    embedding, floats = Embedding(bundle(tmp_path / "int8", tensors)), Embedding(Bundle.open(BUNDLE))
    ids = np.array([[5, 0, 5, len(tensors["embed_tokens"]) - 1]])[0]
    rows, scales = embedding.rows(ids), tensors["embed_tokens.scales"][ids]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, tensors["embed_tokens"][ids] * scales[:, None])
    assert (np.abs(rows - floats.rows(ids)) <= scales[:, None] * 0.5001).all()
    np.testing.assert_array_equal(embedding.newline, floats.newline)
    assert embedding.rows(np.zeros(0, np.int64)).shape == (0, rows.shape[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_tokens.scales": None}, "has no tensor"),
        ({"embed_tokens.scales": np.ones(3, np.float32)}, r"scales of float32, \(3,\); expected int8 rows"),
        ({"embed_tokens": np.float16}, "an embedding table of float16"),
    ],
)
def test_what_it_does_not_hold_is_refused(
    change: dict[str, object], message: str, tensors: dict[str, NDArray], tmp_path: Path
) -> None:
    for name, value in change.items():
        changed = tensors[name].astype(value) if isinstance(value, type) else value
        tensors = {key: array for key, array in {**tensors, name: changed}.items() if array is not None}
    with pytest.raises(BundleError, match=message):
        Embedding(bundle(tmp_path / "broken", tensors))
