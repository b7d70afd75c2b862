"""`hired-edge export --synthetic`: a bundle with random weights that passes parity, answers, and comes out the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.errors import CheckpointError, InputError
from hired_edge.planner.config import hub_layout, model_shape
from hired_edge.planner.published import PUBLISHED
from hired_export import exporter, parity, stand_in
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import ExportOptions, export
from hired_export.families import AttentionChoice, read_spec
from hired_export.sources import Sources
from hired_export.synthetic import synthetic_checkpoint
from hired_export.tensor import ROWS_PER_READ
from hired_runtime.prompt import PromptTemplate, question
from tests.host.bundles import traced_language, traced_vision
from tests.host.committed import files
from tests.tiny.commands import Capture, accepted, refused

TINY: dict[str, Any] = {
    "model_type": "llava_next",
    "image_token_index": 400,
    "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
    "text_config": {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 448,
        "max_position_embeddings": 1024,
    },
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    },
}
OPTIONS = {"visual_tokens": ("100%",), "max_text_tokens": 160, "max_new_tokens": 40, "progress": False}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


def make(config: Path, out: Path, seed: int = 0, **options: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch, synthetic_checkpoint(str(config), seed) as checkpoint:
        patch.setattr(exporter, "language_graph", traced_language)
        patch.setattr(exporter, "vision_graph", traced_vision)
        export(checkpoint, out, ExportOptions(**OPTIONS, **options), check=parity.check)
    return out


def answer(bundle: Path) -> list[int]:
    pixels = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    return hired_runtime.open(bundle).ask("What is this?", [Image.fromarray(pixels)], max_new_tokens=12).tokens


def test_a_bundle_passes_parity_and_answers_the_same_each_time(config: Path, tmp_path: Path) -> None:
    bundle = make(config, tmp_path / "bundle")
    manifest = Bundle.open(bundle).manifest
    assert manifest.checkpoint == "tiny-synthetic"
    assert manifest.parity
    again, other = make(config, tmp_path / "again"), make(config, tmp_path / "other", seed=1)
    for name, path in files(bundle).items():
        assert path.read_bytes() == files(again)[name].read_bytes(), name
    weights = "language/model.onnx.data"
    assert files(bundle)[weights].read_bytes() != files(other)[weights].read_bytes()
    assert answer(bundle) == answer(again)
    assert len(answer(bundle)) >= 1


def test_the_command(config: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "bundle"
    argv = ("export", "--synthetic", config, out, "--precision", "int4", "--seed", 3, "--visual-tokens", "20%")
    assert "exported and checked" in accepted(capsys, *argv, "--max-text-tokens", 128, "--max-new-tokens", 16)
    assert "tiny-synthetic" in accepted(capsys, "inspect", out)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("no-such-model",), "no-such-model does not exist"),
        (("n" * 5000,), "nnn does not exist"),
        (("llava-1.5-7b", "--seed", "-1"), "--seed -1"),
        (("llava-1.5-7b", "--seed", str(2**32)), "--seed 4294967296"),
    ],
)
def test_what_is_no_shape(argv: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture) -> None:
    source, *rest = argv
    assert message in refused(capsys, "export", "--synthetic", source, tmp_path / "out", *rest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("token", [None, "400", 400.0, [400], 90, 448])
def test_image_tokens_that_are_none(token: object, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**TINY, "image_token_index": token}))
    message = f"image_token_index {token} and vocab_size 448"
    assert message in refused(capsys, "export", "--synthetic", path, tmp_path / "out")


def test_a_config_with_a_long_name(tmp_path: Path) -> None:
    path = tmp_path / f"{'é' * 120}.json"
    path.write_text(json.dumps(TINY))
    with synthetic_checkpoint(str(path), 0) as folder:
        assert folder.name == f"{'é' * 60}-synthetic"


def test_attention_may_be_read_behind_the_features(config: Path) -> None:
    with synthetic_checkpoint(str(config), 0) as folder:
        checkpoint = Checkpoint(folder)
        spec = read_spec(checkpoint, AttentionChoice(selection_layer=4))
        assert spec.vision.layers == 5 == spec.vision.feature_layer + 2
        assert "layers.4.self_attn.k_proj.weight" in Sources(checkpoint, spec).vision


def test_vocabularies_that_are_too_small(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    small = {**TINY, "image_token_index": 90, "text_config": {**TINY["text_config"], "vocab_size": 100}}
    path.write_text(json.dumps(small))
    with pytest.raises(CheckpointError, match="image_token_index 90 and vocab_size 100"):
        synthetic_checkpoint(str(path), 0).__enter__()


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_shapes_have_every_tensor_and_prompt(name: str, tmp_path: Path) -> None:
    """What the exporter looks for before it writes anything, for shapes that are too large to export here."""
    with synthetic_checkpoint(name, 0) as folder:
        assert folder.name == f"{name}-synthetic"
        checkpoint = Checkpoint(folder)
        spec = read_spec(checkpoint, AttentionChoice())
        Sources(checkpoint, spec)
        prompt = PromptTemplate.open(folder)
        size = prompt.tokenizer.get_vocab_size(with_added_tokens=True)
        assert size == spec.decoder.vocab_size
        assert prompt.tokenizer.token_to_id(stand_in.IMAGE) == spec.config.image_token_id
        rendered = prompt.render(question("Où est-ce ?\n日", 2), 2)
        assert len(rendered.splices) == 2
        assert rendered.ids[0] == prompt.tokenizer.token_to_id(stand_in.BEGIN)
        assert prompt.tokenizer.decode(rendered.ids.tolist()).count("Où est-ce ?\n日") == 1
    assert not folder.exists()
    assert model_shape(hub_layout(PUBLISHED[name].config)).text.vocab_size == spec.decoder.vocab_size


def test_rows_are_what_they_are_however_they_are_read(config: Path) -> None:
    with synthetic_checkpoint(str(config), 0) as folder, synthetic_checkpoint(str(config), 0) as twin:
        one, two = Checkpoint(folder).tensors, Checkpoint(twin).tensors
        for name, tensor in one.items():
            whole = tensor.stored()
            assert whole.dtype == np.float16
            np.testing.assert_array_equal(whole, two[name].stored())
            chunks = list(two[name].chunks())
            assert all(len(chunk) <= ROWS_PER_READ for chunk in chunks)
            np.testing.assert_array_equal(whole, np.concatenate(chunks))
            middle = len(whole) // 2
            np.testing.assert_array_equal(whole[middle:], tensor.part(middle, len(whole)).stored())


def test_activations_keep_their_size(tmp_path: Path) -> None:
    """Matrices of deviation 1 / sqrt(inputs): through many layers of a real width nothing grows beyond float16."""
    with synthetic_checkpoint("llava-1.5-7b", 0) as folder:
        tensors = Checkpoint(folder).tensors
        hidden = np.random.default_rng(0).standard_normal(4096, np.float32)
        for name in ("text.layers.0.self_attn.q_proj.weight", "text.layers.31.mlp.gate_proj.weight"):
            rows = next(tensors[name].chunks())
            assert float(rows.std()) == pytest.approx(1 / 64, rel=0.02)
            assert float((rows @ hidden).std()) == pytest.approx(1, rel=0.15)
        assert np.all(tensors["text.layers.5.input_layernorm.weight"].stored() == 1)


MEASURE = """
import sys
from pathlib import Path
from hired_export.checkpoint import Checkpoint
from hired_export.synthetic import synthetic_checkpoint
from hired_runtime.profiling.memory import process_high_water_bytes

with synthetic_checkpoint("llava-1.5-7b", 0) as folder:
    tensors = Checkpoint(folder).tensors
    before = process_high_water_bytes()
    for name in ("text.embed_tokens.weight", "text.layers.0.mlp.up_proj.weight"):
        chunks = tensors[name].chunks()
        for _ in range(3):
            next(chunks)
    print(process_high_water_bytes() - before)
"""


def test_no_tensor_is_ever_whole_in_memory() -> None:
    """Chunks of the largest matrices of a 7B shape: 1024 rows of 4096 at a time, in float16 and as float32."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert int(finished.stdout) < 4 * 1024 * 4096 * (2 + 4)


def test_a_marker_without_a_seed(config: Path) -> None:
    with synthetic_checkpoint(str(config), 0) as folder:
        (folder / "synthetic.json").write_text("{}")
        with pytest.raises(CheckpointError, match="holds no seed"):
            _ = Checkpoint(folder).tensors


def test_a_negative_seed() -> None:
    with pytest.raises(InputError, match="--seed -5"):
        synthetic_checkpoint("llava-1.5-7b", -5).__enter__()


@pytest.mark.slow
def test_many_layers_stay_finite_in_float16(tmp_path: Path) -> None:
    """The parity check compares every output in float16 with float32, and lets no NaN or infinity through."""
    deep = {**TINY, "text_config": {**TINY["text_config"], "num_hidden_layers": 16}}
    path = tmp_path / "deep.json"
    path.write_text(json.dumps(deep))
    bundle = make(path, tmp_path / "bundle", target="jp7", precision="fp16")
    whole = next(check for check in Bundle.open(bundle).manifest.parity if check.piece == "language")
    assert 0.5 < whole.max_abs_reference < 20
