"""Checkpoints that are in 4 bits already, exported: what the bundle holds of them, and what the export says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import load_file

from hired_edge.manifest import Manifest
from hired_export import exporter, parity
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import ExportOptions, export
from tests.host.bundles import RECIPES, Bundles, traced_language, traced_vision
from tests.tiny.checkpoints import write_checkpoint
from tests.tiny.commands import Capture
from tests.tiny.packed import METHODS, Method, Packed, pack_checkpoint

OPTIONS: dict[str, Any] = {"visual_tokens": ("20%",), "max_text_tokens": 64, "max_new_tokens": 16, "progress": False}
Arrays = dict[str, NDArray[Any]]
Pack = Callable[..., tuple[Path, dict[str, Packed]]]


@pytest.fixture(scope="module")
def source(bundles: Bundles) -> Path:
    """Matrices with 128 and 256 inputs; its traces are those of other tests."""
    return bundles.checkpoint("cpu-fp32")


@pytest.fixture
def pack(source: Path, tmp_path: Path) -> Pack:
    def packed(method: Method, **options: Any) -> tuple[Path, dict[str, Packed]]:
        folder = Path(shutil.copytree(source, tmp_path / method))
        return folder, pack_checkpoint(folder, method, **options)

    return packed


@pytest.fixture(autouse=True)
def shared_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "language_graph", traced_language)
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)


def exported(checkpoint: Path, out: Path, **options: Any) -> tuple[Manifest, Arrays]:
    """The manifest, and the language graph's initialisers."""
    manifest = export(checkpoint, out, ExportOptions(**{**OPTIONS, **options}), check=parity.check)
    model = onnx.load(out / manifest.language_graphs[0].file)
    return manifest, {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_symmetric_checkpoint_is_kept_on_the_cpu(pack: Pack, tmp_path: Path, capsys: Capture) -> None:
    """MatMulNBits' initialisers hold the checkpoint's integers and scales, in blocks of its own size."""
    checkpoint, matrices = pack("awq", group=64)
    manifest, arrays = exported(checkpoint, tmp_path / "out", precision="int4", progress=True)
    said = "14 matrices of the checkpoint are in 4 bits (awq, groups of 64): kept as they are\n"
    assert said in capsys.readouterr().err
    assert manifest.quantisation.block_size == 64
    assert len(matrices) == 2 * 7
    for name, matrix in matrices.items():
        words = arrays[f"{name}.weight.quantised"]  # (outputs, blocks, 32)
        integers = np.stack([words & 15, words >> 4], axis=-1).reshape(matrix.integers.shape)
        np.testing.assert_array_equal(integers, matrix.integers)
        scales = arrays[f"{name}.weight.scales"].reshape(matrix.scales.shape)
        np.testing.assert_array_equal(scales.astype(np.float16), matrix.scales)
        assert manifest.quantisation_errors[f"{name}.weight"] == 0
    assert manifest.quantisation_errors["lm_head.weight"] > 0
    assert min(matrix.integers.min() for matrix in matrices.values()) == 0, "-8 is there"


def test_an_asymmetric_checkpoint_is_quantised_again_and_the_error_said(
    pack: Pack, tmp_path: Path, capsys: Capture
) -> None:
    checkpoint, matrices = pack("gptq", symmetric=False)
    manifest, arrays = exported(checkpoint, tmp_path / "out", precision="int4", progress=True)
    said = r": 0 kept as they are, 14 quantised again with a relative error of 0\.0\d+ on average and 0\.\d+ at worst"
    assert re.search(said, capsys.readouterr().err)
    for name, matrix in matrices.items():
        words = arrays[f"{name}.weight.quantised"].astype(np.int64)
        integers = np.stack([words & 15, words >> 4], axis=-1).reshape(*matrix.scales.shape, -1) - 8
        found = integers * arrays[f"{name}.weight.scales"].reshape(*matrix.scales.shape, 1).astype(np.float64)
        error = np.linalg.norm(found.reshape(matrix.weight.shape) - matrix.weight) / np.linalg.norm(matrix.weight)
        assert 0 < error < 0.1
        assert manifest.quantisation_errors[f"{name}.weight"] == pytest.approx(error, rel=1e-4)


@pytest.mark.slow
def test_a_symmetric_checkpoint_is_kept_for_tensorrt(pack: Pack, tmp_path: Path) -> None:
    """DequantizeLinear's int4 (inputs, outputs), -8 included, and its fp16 scales (blocks, outputs)."""
    checkpoint, matrices = pack("compressed-tensors", group=128)
    manifest, arrays = exported(checkpoint, tmp_path / "out", target="jp7", precision="int4", block_size=64)
    assert manifest.quantisation.block_size == 64
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(arrays[f"{name}.weight.quantised"].astype(np.int64).T, matrix.integers - 8)
        scales = arrays[f"{name}.weight.scales"]
        assert scales.dtype == np.float16
        np.testing.assert_array_equal(scales.T, np.repeat(matrix.scales, 2, axis=1))


def test_other_precisions_have_the_dequantised_weights(pack: Pack, tmp_path: Path) -> None:
    checkpoint, matrices = pack("awq", symmetric=False)
    manifest, arrays = exported(checkpoint, tmp_path / "out", precision="fp32")
    assert not manifest.quantisation_errors
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(arrays[f"{name}.weight"].T, matrix.weight)


@pytest.mark.parametrize(
    ("method", "act_order"),
    [(method, False) for method in METHODS] + [(method, True) for method in METHODS if method != "awq"],
)
def test_every_format_is_read(method: Method, act_order: bool, pack: Pack) -> None:
    checkpoint, matrices = pack(method, symmetric=False, act_order=act_order)
    tensors = Checkpoint(checkpoint).tensors
    for name, matrix in matrices.items():
        tensor = tensors[f"text.{name}.weight"]
        np.testing.assert_array_equal(np.concatenate(list(tensor.chunks())), matrix.weight)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_an_older_tools_file_says_it_too(name: str, pack: Pack) -> None:
    method: Method = "gptq" if name == "quantize_config.json" else "awq"
    checkpoint, matrices = pack(method)
    config = json.loads((checkpoint / "config.json").read_text())
    said = config.pop("quantization_config")
    older = {"gptq": ("bits", "group_size"), "awq": ("w_bit", "q_group_size")}[method]
    content: dict[str, Any] = dict(zip(older, (said["bits"], said["group_size"]), strict=True))
    (checkpoint / name).write_text(json.dumps({**content, **({"version": "GEMM"} if method == "awq" else {})}))
    (checkpoint / "config.json").write_text(json.dumps(config))
    (layer, matrix), *_ = matrices.items()
    tensor = Checkpoint(checkpoint).tensors[f"text.{layer}.weight"]
    np.testing.assert_array_equal(np.concatenate(list(tensor.chunks())), matrix.weight)
    config["text_config"]["quantization_config"] = said
    (checkpoint / name).unlink()
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert Checkpoint(checkpoint).tensors[f"text.{layer}.weight"].packed is not None


def test_pickled_checkpoints_are_read_too(pack: Pack) -> None:
    checkpoint, matrices = pack("gptq")
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    tensors = Checkpoint(checkpoint).tensors
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(np.concatenate(list(tensors[f"text.{name}.weight"].chunks())), matrix.weight)


def test_the_original_names_are_packed_as_well(tmp_path: Path) -> None:
    """Parts are found by canonical names: `memory` is transformers 5's own spelling."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", layout="memory", **RECIPES["cpu-fp32"].checkpoint)
    matrices = pack_checkpoint(checkpoint, "awq")
    assert set(matrices) == {
        name.removeprefix("text.").removesuffix(".weight")
        for name, tensor in Checkpoint(checkpoint).tensors.items()
        if tensor.packed is not None
    }
