"""`hired-edge plan`: configs and device files that it reads or refuses, the table and the JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hired_edge import strict
from hired_edge.bundle import read_manifest
from hired_edge.errors import CheckpointError
from hired_edge.planner.config import model_shape, read_config
from hired_edge.planner.defaults import CLIP_L_336
from hired_edge.planner.devices import DEVICES, Device, read_device
from hired_edge.planner.published import PUBLISHED
from tests.device.conftest import BUNDLE
from tests.tiny.commands import Capture, accepted, refused

NAME = "llava-v1.6-mistral-7b"


def test_the_table_and_the_object(capsys: Capture) -> None:
    argv = ("plan", NAME, "--device", "orin-nx-16gb", "--visual-tokens", "100%,20%", "--max-text-tokens", 256)
    out = accepted(capsys, *argv, "--max-new-tokens", 128, "--json")
    *table, last = out.splitlines()
    made = json.loads(last)
    assert list(made["precisions"]) == ["fp16", "int8", "int4"]
    row = made["precisions"]["int4"]["budgets"]["20%"]
    assert row["kv_cache_bytes"] == 960 * 2**20 // 8
    parts = (
        "vision_weights",
        "language_weights",
        "repacked",
        "kv_cache",
        "buffers",
        "vision_workspace",
        "language_workspace",
    )
    total = made["device"]["process_bytes"] + sum(row[f"{part}_bytes"] for part in parts)
    assert row["peak_bytes"] == total
    assert row["margin_bytes"] == row["available_bytes"] - total
    assert row["fits"] is True
    (line,) = [line for line in table if line.split()[:2] == ["int4", "20%"]]
    assert line.split()[2:4] == ["576", "960"]
    assert "yes" in line.split()
    assert any("5 % for weights and cache" in line for line in table)
    assert all(len(line) < 240 for line in table)


def test_the_options(capsys: Capture) -> None:
    argv = ("plan", "llava-1.5-7b", "--device", "orin-nano-8gb", "--target", "cpu", "--precision", "int4,fp32")
    made = json.loads(accepted(capsys, *argv, "--batch", 2, "--images", 2, "--json").splitlines()[-1])
    assert list(made["precisions"]) == ["int4", "fp32"]
    assert (made["batch"], made["images"], made["target"]) == (2, 2, "cpu")
    assert made["precisions"]["fp32"]["largest_visual_tokens"] is None
    assert made["precisions"]["int4"]["budgets"]["20%"]["visual_tokens"] == 2 * 115
    assert "fp32: does not fit at any budget" in accepted(capsys, *argv)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_folder_a_file_and_a_name_are_one_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PUBLISHED[name].config))
    assert model_shape(read_config(str(tmp_path))) == model_shape(read_config(str(path)))
    assert model_shape(read_config(str(path))) == model_shape(read_config(name))


def test_a_device_file_is_what_a_board_is(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "board.json"
    path.write_text(strict.dumps(DEVICES["orin-nx-8gb"]))
    assert read_device(str(path)) == DEVICES["orin-nx-8gb"]
    assert "Jetson Orin NX 8 GB" in accepted(capsys, "plan", NAME, "--device", path)


BOARD = strict.to_json(DEVICES["orin-nx-16gb"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        (b"\xff", "cannot be read"),
        ({**BOARD, "ram": 1}, "has an unknown key 'ram'"),
        ({key: value for key, value in BOARD.items() if key != "sm"}, "device.sm is missing"),
        ({**BOARD, "memory_bytes": 1.5}, "device.memory_bytes is 1.5"),
        ({**BOARD, "bandwidth_gb_s": 0}, "bandwidth_gb_s is 0"),
        ({**BOARD, "bandwidth_gb_s": 1e-320}, "bandwidth_gb_s is 1e-320"),
        ({**BOARD, "fp16_tflops": 1e308}, "fp16_tflops is 1e+308"),
        ({**BOARD, "system_bytes": BOARD["memory_bytes"]}, "system_bytes is"),
        ({**BOARD, "process_bytes": -1}, "process_bytes -1"),
    ],
)
def test_device_files_that_are_none(content: Any, message: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "board.json"
    path.write_bytes(content if isinstance(content, bytes) else _text(content).encode())
    assert message in refused(capsys, "plan", NAME, "--device", path)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((NAME, "--device", "orin-nx"), "--device orin-nx; expected orin-nx-16gb"),
        (("no-such", "--device", "orin-nx-16gb"), "no-such does not exist; expected a checkpoint's folder"),
        (("n" * 5000, "--device", "orin-nx-16gb"), "nnn does not exist"),
        ((NAME, "--device", "n" * 5000), "nnn; expected orin-nx-16gb"),
        ((NAME, "--device", "orin-nx-16gb", "--precision", "fp32"), "--precision fp32 with --target jp7"),
        ((NAME, "--device", "orin-nx-16gb", "--precision", "int4,"), "--precision  with --target jp7"),
        ((NAME, "--device", "orin-nx-16gb", "--block-size", "32"), "--block-size 32 with --target jp7"),
        ((NAME, "--device", "orin-nx-16gb", "--visual-tokens", "120%"), "a visual-token budget of '120%'"),
        ((NAME, "--device", "orin-nx-16gb", "--batch", "0"), "batch is 0"),
        ((NAME, "--device", "orin-nx-16gb", "--batch", str(2**31)), "batch is 2147483648; expected less than"),
        (("llava-v1.6-vicuna-7b", "--device", "orin-nx-16gb", "--images", "2"), "at most 4096"),
    ],
)
def test_words_that_mean_nothing(argv: tuple[str, ...], message: str, capsys: Capture) -> None:
    assert message in refused(capsys, "plan", *argv)


HUB = PUBLISHED["llava-v1.6-vicuna-7b"].config
ORIGINAL = PUBLISHED["sharegpt4v-7b"].config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "model_type 'None'"),
        ({**HUB, "model_type": "qwen2_vl"}, "model_type 'qwen2_vl'"),
        ({**HUB, "text_config": {"model_type": "gemma"}}, "text model 'gemma'"),
        ({**HUB, "text_config": "llama"}, "text_config str"),
        ({**HUB, "vision_config": {"model_type": "siglip_vision_model"}}, "vision tower 'siglip_vision_model'"),
        ({**HUB, "text_config": {"hidden_size": 0}}, "text_config.hidden_size 0"),
        ({**HUB, "text_config": {"vocab_size": "32000"}}, "text_config.vocab_size 32000"),
        ({**HUB, "text_config": {"num_hidden_layers": True}}, "text_config.num_hidden_layers True"),
        ({**HUB, "text_config": {"num_key_value_heads": 5}}, "32 heads for 5 kv heads"),
        ({**HUB, "vision_feature_layer": [-2, -3]}, "vision_feature_layer [-2, -3]"),
        ({**HUB, "vision_feature_layer": 25}, "vision_feature_layer 25"),
        ({**HUB, "vision_feature_layer": 0}, "vision_feature_layer 0"),
        ({**HUB, "image_grid_pinpoints": [[336]]}, "image_grid_pinpoints [[336]]"),
        ({**HUB, "image_grid_pinpoints": 3}, "image_grid_pinpoints 3"),
        ({**HUB, "image_grid_pinpoints": [[337, 336]]}, "grid pinpoint (337, 336)"),
        (
            {**HUB, "text_config": {"model_type": "qwen2", "use_sliding_window": True}},
            "a sliding window of 4096 in some layers only",
        ),
        (
            {**HUB, "text_config": {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": "x"}},
            "max_window_layers x",
        ),
        (
            {**HUB, "text_config": {"model_type": "mistral", "layer_types": 5}},
            "layer_types 5",
        ),
        ({**ORIGINAL, "mm_vision_tower": "google/siglip-so400m-patch14-384"}, "mm_vision_tower"),
        ({**ORIGINAL, "mm_projector_type": "linear"}, "mm_projector_type 'linear'"),
        ({**ORIGINAL, "model_type": "mpt"}, "model_type 'mpt'"),
        ({**ORIGINAL, "model_type": ["llava"]}, "model_type ['llava']"),
        ({**ORIGINAL, "image_aspect_ratio": "anyres"}, "mm_patch_merge_type None"),
        ({**ORIGINAL, "mm_vision_tower": 336}, "mm_vision_tower 336"),
        ({**ORIGINAL, "mm_hidden_size": 768}, "mm_hidden_size 768"),
    ],
)
def test_configs_that_are_not_supported(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        model_shape(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [("[1]", "holds no JSON object"), ("{", "cannot be read")])
def test_files_that_are_no_config(content: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text(content)
    assert message in refused(capsys, "plan", tmp_path, "--device", "orin-nx-16gb")


def test_a_folder_without_a_config(tmp_path: Path, capsys: Capture) -> None:
    line = refused(capsys, "plan", tmp_path, "--device", "orin-nx-16gb")
    assert f"{tmp_path / 'config.json'} does not exist" in line


def test_the_fields_of_a_device_are_in_the_report(capsys: Capture) -> None:
    made = json.loads(accepted(capsys, "plan", NAME, "--device", "agx-orin-64gb", "--json").splitlines()[-1])
    missing = {field.name for field in dataclasses.fields(Device)} - set(made["device"])
    assert missing == {"cma_bytes"}  # which the LM head's own figure answers


def test_the_tower_of_the_original_layouts() -> None:
    assert model_shape(ORIGINAL).tower.layers == CLIP_L_336["num_hidden_layers"]
    assert model_shape(ORIGINAL).text == dataclasses.replace(
        model_shape(PUBLISHED["llava-1.5-7b"].config).text, vocab_size=32000
    )


TILED = {
    **{key: value for key, value in ORIGINAL.items() if key != "image_aspect_ratio"},
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": HUB["image_grid_pinpoints"],
    "mm_patch_merge_type": "spatial_unpad",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
}


@pytest.mark.parametrize(
    ("model_type", "text", "name"),
    [
        ("llava_llama", {}, "llava-v1.6-vicuna-7b"),
        ("llava", {}, "llava-v1.6-vicuna-7b"),
        ("llava_mistral", None, "llava-v1.6-mistral-7b"),
        ("llava_llama", None, "llava-v1.6-34b"),
        ("llava_llama", None, "llama3-llava-next-8b"),
        ("llava_qwen", None, "llava-next-72b"),
    ],
)
def test_tiled_models_in_the_original_layout(model_type: str, text: dict[str, Any] | None, name: str) -> None:
    hub = PUBLISHED[name].config
    flat = {**TILED, **(hub["text_config"] if text is None else {"vocab_size": 32064}), "model_type": model_type}
    assert model_shape(flat) == model_shape(hub)


def test_inspect_measures_what_was_planned(tmp_path: Path, capsys: Capture) -> None:
    """The golden bundle's own sizes (tests/golden/make.py); tests/host/test_planner_memory.py measures them all."""
    config = {
        "model_type": "llava_next",
        "image_grid_pinpoints": [[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]],
        "text_config": {
            "model_type": "mistral",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": read_manifest(BUNDLE).text.vocab_size,
            "max_position_embeddings": 1024,
            "sliding_window": None,
        },
        "vision_config": {
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": 112,
            "patch_size": 14,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    argv = ("inspect", BUNDLE, "--measure", tmp_path, "--visual-tokens", "20%")
    page = accepted(capsys, *argv)
    assert page.startswith("weights and cache    planned")
    assert "process at its peak" in page
    got = json.loads(accepted(capsys, *argv, "--json"))
    real = got["measured"]["weights"] + got["measured"]["cache"]
    assert got["planned_weights_and_cache"] == pytest.approx(real, rel=0.05)
    assert got["measured"]["peak"] > got["idle"] > 20 * 2**20


def test_inspect_refuses_to_measure_what_it_cannot(tmp_path: Path, capsys: Capture) -> None:
    assert "does not exist" in refused(capsys, "inspect", BUNDLE, "--measure", tmp_path / "none")
    assert "without --measure" in refused(capsys, "inspect", BUNDLE, "--visual-tokens", "20%")
    argv = ("inspect", BUNDLE, "--measure", "llava-1.5-7b", "--visual-tokens", "5000")
    assert "5000 visual tokens asked for" in refused(capsys, *argv)
