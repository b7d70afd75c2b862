"""`hired-edge export` on original layouts that it must refuse: one line, status 2, nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.host.original_layouts import Made, Originals
from tests.tiny.commands import Capture, refused


@pytest.fixture
def low(originals: Originals, tmp_path: Path) -> Made:
    """A LLaVA-1.5 and its tower, to be spoiled."""
    made = originals("llava-v1.5-7b")
    assert made.tower is not None
    original = Path(shutil.copytree(made.original, tmp_path / "given/llava-v1.5-7b"))
    return Made(made.hub, original, Path(shutil.copytree(made.tower, tmp_path / "given/tower")))


def refusal(capsys: Capture, checkpoint: Path, tower: Path | None, out: Path, *more: object) -> str:
    flag = () if tower is None else ("--vision-tower", tower)
    sizes = ("--visual-tokens", "20%", "--max-text-tokens", 64, "--max-new-tokens", 16)
    line = refused(capsys, "export", checkpoint, out, *sizes, *flag, *more)
    assert not out.exists()
    assert not out.with_name(out.name + ".partial").exists()
    return line


def change(checkpoint: Path, **values: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'; expected mlp2x_gelu"),
        ({"mm_projector_type": None}, "mm_projector_type None; expected mlp2x_gelu"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type 'mlp3x_gelu'"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type 'spatial_unpad'; expected none or flat"),
        (
            {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "maxpool2x2"},
            "mm_patch_merge_type 'maxpool2x2'; expected spatial_unpad",
        ),
        ({"image_aspect_ratio": "anyres", "mm_patch_merge_type": ["flat"]}, "mm_patch_merge_type"),
        ({"image_aspect_ratio": "anyres_max_9"}, "image_aspect_ratio 'anyres_max_9'; expected anyres or pad"),
        (
            {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad"},
            "image_grid_pinpoints None; expected pairs",
        ),
        (
            {
                "image_aspect_ratio": "anyres",
                "mm_patch_merge_type": "spatial_unpad",
                "image_grid_pinpoints": "(1x1),...,(6x6)",
            },
            "image_grid_pinpoints (1x1),...,(6x6); expected pairs",
        ),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True; expected none or False"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature 'cls_patch'; expected none or patch"),
        ({"mm_resampler_type": "spatial_pool"}, "mm_resampler_type 'spatial_pool'; expected none"),
        ({"mm_vision_select_layer": 99}, "vision_feature_layer 99"),
        ({"model_type": "llava_mpt"}, "model_type 'llava_mpt'; expected llava or llava_llama"),
        ({"mm_hidden_size": 1024}, "mm_hidden_size 1024 and the tower's config hidden_size 64; expected the same"),
        (
            {"mm_vision_tower": "openai/clip-vit-large-patch14-336"},
            "the vision tower has hidden_size 64; expected 1024",
        ),
    ],
)
def test_words_of_the_config(
    values: dict[str, object], message: str, low: Made, tmp_path: Path, capsys: Capture
) -> None:
    change(low.original, **values)
    assert message in refusal(capsys, low.original, low.tower, tmp_path / "out")


def test_a_missing_tower_is_named(low: Made, tmp_path: Path, capsys: Capture) -> None:
    change(low.original, mm_vision_tower="openai/clip-vit-large-patch14-336")
    line = refusal(capsys, low.original, None, tmp_path / "out")
    assert (
        "holds no vision tower; expected the tower that config.json names, 'openai/clip-vit-large-patch14-336'" in line
    )
    assert line.endswith("pass its folder as --vision-tower FOLDER")
    change(low.original, mm_vision_tower="Lin-Chen/ShareGPT4V-7B_Pretrained_vit-large336-l12")
    line = refusal(capsys, low.original, None, tmp_path / "out")
    assert "'Lin-Chen/ShareGPT4V-7B_Pretrained_vit-large336-l12': its weights are its own, OpenAI's CLIP" in line


@pytest.mark.parametrize("folder", ["clip-vit-large-patch14-336", "models--openai--clip-vit-large-patch14-336/a"])
def test_the_tower_of_another_model(folder: str, low: Made, tmp_path: Path, capsys: Capture) -> None:
    assert low.tower is not None
    tower = Path(shutil.copytree(low.tower, tmp_path / "given" / folder))
    change(low.original, mm_vision_tower="Lin-Chen/ShareGPT4V-7B_Pretrained_vit-large336-l12")
    line = refusal(capsys, low.original, tower, tmp_path / "out")
    assert "--vision-tower clip-vit-large-patch14-336 for a checkpoint that was trained with ShareGPT4V-7B_Pre" in line


def test_towers_that_are_none(low: Made, tmp_path: Path, capsys: Capture) -> None:
    assert low.tower is not None
    assert "nowhere is not a folder" in refusal(capsys, low.original, tmp_path / "nowhere", tmp_path / "out")
    given = json.loads((low.tower / "config.json").read_text())
    (low.tower / "config.json").write_text(json.dumps({**given, "model_type": "siglip_vision_model"}))
    line = refusal(capsys, low.original, low.tower, tmp_path / "out")
    assert "model_type 'siglip_vision_model'; expected clip_vision_model" in line
    (low.tower / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", **given["vision_config"]}))
    (low.tower / "model.safetensors").rename(low.tower / "elsewhere")
    assert "holds no weights" in refusal(capsys, low.original, low.tower, tmp_path / "out")
    (low.tower / "elsewhere").rename(low.tower / "model.safetensors")
    (low.tower / "preprocessor_config.json").unlink()
    assert "holds no preprocessor_config.json" in refusal(capsys, low.original, low.tower, tmp_path / "out")


def test_a_tower_with_fewer_tensors(low: Made, tmp_path: Path, capsys: Capture) -> None:
    assert low.tower is not None
    tensors = load_file(low.tower / "model.safetensors")
    name = "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    save_file({**tensors, name: torch.zeros(64, 32)}, low.tower / "model.safetensors")
    line = refusal(capsys, low.original, low.tower, tmp_path / "out")
    assert "layers.1.self_attn.k_proj.weight has shape (64, 32); expected (64, 64)" in line
    save_file({key: tensors[key] for key in tensors if key != name}, low.tower / "model.safetensors")
    line = refusal(capsys, low.original, low.tower, tmp_path / "out")
    assert "no tensor vision.encoder.layers.1.self_attn.k_proj.weight" in line


def test_a_tower_that_is_not_wanted(originals: Originals, tmp_path: Path, capsys: Capture) -> None:
    tower = originals("llava-v1.5-7b").tower
    held = originals("llava-v1.6-mistral-7b")
    for checkpoint in (held.original, held.hub):
        line = refusal(capsys, checkpoint, tower, tmp_path / "out")
        assert line.startswith("--vision-tower for a checkpoint that holds its own tower")


def test_an_unknown_tower_inside(originals: Originals, tmp_path: Path, capsys: Capture) -> None:
    original = Path(shutil.copytree(originals("llava-v1.6-mistral-7b").original, tmp_path / "llava-v1.6-mistral-7b"))
    change(original, mm_vision_tower="google/siglip-so400m-patch14-384")
    line = refusal(capsys, original, None, tmp_path / "out")
    assert "mm_vision_tower 'siglip-so400m-patch14-384'; expected one of OpenAI's CLIP towers" in line


@pytest.mark.parametrize("name", ["adapter_config.json", "non_lora_trainables.bin"])
def test_adapters(name: str, low: Made, tmp_path: Path, capsys: Capture) -> None:
    (low.original / name).write_text("{}")
    assert f"holds adapters ({name}), not a model" in refusal(capsys, low.original, low.tower, tmp_path / "out")


def test_a_prompt_that_nothing_tells(low: Made, tmp_path: Path, capsys: Capture) -> None:
    unnamed = low.original.rename(tmp_path / "mine")
    line = refusal(capsys, unnamed, low.tower, tmp_path / "out")
    assert "mine holds no chat template" in line
    assert line.endswith("or pass it as --chat-template FILE")
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        line = refusal(capsys, unnamed, low.tower, tmp_path / "out", "--chat-template", path)
        assert f"--chat-template {path} cannot be read ({reason}" in line
    (tmp_path / "bad.jinja").write_text("{% for %}")
    line = refusal(capsys, unnamed, low.tower, tmp_path / "out", "--chat-template", tmp_path / "bad.jinja")
    assert f"the chat template of {tmp_path / 'bad.jinja'} is not valid" in line
