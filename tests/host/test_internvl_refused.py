"""InternVL checkpoints that are not supported, each refused in a line; and prompts, whose pictures stand in a frame."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from hired_edge.errors import CheckpointError
from hired_edge.planner.config import model_shape
from hired_export import prompt_files
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, read_spec
from hired_export.sources import Sources
from hired_runtime.prompt import PromptTemplate, question
from tests.host.bundles import Bundles
from tests.host.reference import Reference, picture
from tests.host.spoiled import Spoil, config, edit, remove
from tests.tiny.commands import Capture, refused

References = Callable[[str], Reference]
NAME = "internvl-qwen2"
DEMO = Path(__file__).parents[2] / "demo/bundle"


@pytest.fixture
def checkpoint(bundles: Bundles, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoiled."""
    return Path(shutil.copytree(bundles.checkpoint(NAME), tmp_path / "checkpoint"))


def without_frame(content: dict[str, Any]) -> None:
    del content["start_image_token"]
    content["model_specific_special_tokens"] = {}


def other_pictures(content: dict[str, Any]) -> None:
    content["image_processor"] |= {"size": {"height": 112, "width": 112}}


SPOILED: dict[str, tuple[Spoil, str]] = {
    "the original repositories' layout": (
        config("model_type", "internvl_chat"),
        "model_type 'internvl_chat'; expected internvl, as the repository of the same name with -hf behind it has it",
    ),
    "another tower": (
        config("vision_config.model_type", "clip_vision_model"),
        "'clip_vision_model'; expected internvl",
    ),
    "a text model that is not supported": (config("text_config.model_type", "qwen3"), "text model 'qwen3'; expected"),
    "several feature layers": (config("vision_feature_layer", [-1, -2]), "vision_feature_layer [-1, -2]; expected one"),
    "a feature layer beyond": (config("vision_feature_layer", 9), "vision_feature_layer 9; expected a layer"),
    "the embeddings as features": (config("vision_feature_layer", 0), "vision_feature_layer 0; expected a layer"),
    "CLS kept": (config("vision_feature_select_strategy", "full"), "vision_feature_select_strategy 'full'"),
    "blocks of another size": (config("downsample_ratio", 0.25), "downsample_ratio 0.25; expected 0.5"),
    "a norm behind the last layer": (config("vision_config.use_mean_pooling", False), "use_mean_pooling False"),
    "no positions": (config("vision_config.use_absolute_position_embeddings", False), "position_embeddings False"),
    "a mask token": (config("vision_config.use_mask_token", True), "use_mask_token True; expected False"),
    "grey pictures": (config("vision_config.num_channels", 1), "num_channels 1; expected 3"),
    "another norm": (config("vision_config.norm_type", "batch_norm"), "norm_type 'batch_norm'; expected layer_norm or"),
    "no square": (config("vision_config.image_size", [56, 28]), "image_size [56, 28]; expected 1 or more, or twice"),
    "patches that are no squares": (config("vision_config.patch_size", [14, 7]), "patch_size [14, 7]; expected 1"),
    "no patch": (config("vision_config.patch_size", [0, 0]), "patch_size [0, 0]; expected 1 or more"),
    "patches larger than tiles": (
        config("vision_config.patch_size", [112, 112]),
        "patches of 112 px in tiles of 56 px",
    ),
    "an odd number of patches": (
        config("vision_config.image_size", [42, 42]),
        "3 patches along a tile's side; expected",
    ),
    "tower heads do not divide": (config("vision_config.num_attention_heads", 5), "a multiple of 5 heads"),
    "tower of no layers": (config("vision_config.num_hidden_layers", 0), "num_hidden_layers 0; expected 1 or more"),
    "tower activation": (config("vision_config.hidden_act", "nonsense"), "hidden_act 'nonsense'; expected gelu"),
    "projector activation": (config("projector_hidden_act", "xielu"), "projector_hidden_act 'xielu'; expected gelu"),
    "biases that are not there": (
        config("vision_config.use_qk_norm", True),
        "no tensor vision.encoder.layer.0.attention",
    ),
    "a tower of another width": (config("vision_config.hidden_size", 64), "vision.embeddings.cls_token has shape"),
    "no picture processor": (remove("processor_config.json"), "holds no preprocessor_config.json"),
    "pictures of another size": (edit("processor_config.json", other_pictures), "112 px; expected 56 px"),
    "no token before a picture": (
        edit("tokenizer_config.json", without_frame),
        "says start_image_token null; expected a",
    ),
    "a token that is none": (
        edit("tokenizer_config.json", lambda content: content.update(end_image_token="</picture>")),
        'says end_image_token "</picture>"; expected a token of tokenizer.json',
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_checkpoint(name: str, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    spoil, message = SPOILED[name]
    spoil(checkpoint)
    limits = ("--visual-tokens=20%", "--max-text-tokens=64", "--max-new-tokens=16")
    assert message in refused(capsys, "export", checkpoint, tmp_path / "out", *limits)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


PLANNED = [
    ({"model_type": "internvl_chat"}, "model_type 'internvl_chat'; expected internvl, as the repository of the same"),
    ({"downsample_ratio": 1.0}, "downsample_ratio 1.0; expected 0.5"),
    ({"vision_config": {"image_size": [448, 224]}}, "image_size [448, 224]; expected 1 or more, or twice the same"),
    ({"vision_config": {"patch_size": [14, 14, 14]}}, "patch_size [14, 14, 14]"),
    ({"vision_config": {"image_size": 0}}, "vision_config.image_size 0; expected 1 or more"),
    ({"vision_config": {"image_size": 434}}, "patches of 14 px in tiles of 434 px; expected a multiple of 2"),
    ({"vision_config": {"use_mean_pooling": False}}, "vision_config.use_mean_pooling False; expected True"),
    ({"vision_config": {"use_absolute_position_embeddings": False}}, "position_embeddings False; expected True"),
    ({"vision_config": {"use_mask_token": True}}, "vision_config.use_mask_token True; expected False"),
    ({"vision_config": {"num_channels": 1}}, "vision_config.num_channels 1; expected 3"),
    ({"vision_config": {"norm_type": []}}, "norm_type '[]'; expected layer_norm or rms_norm"),
    ({"vision_config": {"model_type": "clip_vision_model"}}, "'clip_vision_model'; expected internvl_vision"),
    ({"vision_feature_layer": 25}, "vision_feature_layer 25; expected one layer of the tower's 24"),
    ({"text_config": {"model_type": "qwen3"}}, "text model 'qwen3'"),
]


@pytest.mark.parametrize(("changes", "words"), PLANNED, ids=str)
def test_what_the_planner_refuses(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        model_shape({"model_type": "internvl", **changes})
    assert words in str(error.value)


def test_other_forms_of_a_square_are_read(checkpoint: Path) -> None:
    """One side, as old files have it; both, as transformers writes them."""
    before = read_spec(Checkpoint(checkpoint), AttentionChoice())
    config("vision_config.image_size", 56)(checkpoint)
    config("vision_config.patch_size", 14)(checkpoint)
    after = read_spec(Checkpoint(checkpoint), AttentionChoice())
    assert (after.vision, after.tiling) == (before.vision, before.tiling)
    Sources(Checkpoint(checkpoint), after)


def ours(checkpoint: Path) -> PromptTemplate:
    opened = Checkpoint(checkpoint)
    prompt = prompt_files.read(opened, read_spec(opened, AttentionChoice()).config)
    assert (prompt.image_token, prompt.around) == ("<IMG_CONTEXT>", ("<img>", "</img>"))
    return PromptTemplate.open(checkpoint, prompt_files.write(prompt, checkpoint), image_token=prompt.image_token)


CONVERSATIONS = {
    "one": question("What is shown?", 1),
    "two": question(" Où est-ce ?\n日本", 2),
    "none": question("Who?", 0),
    "turns": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *question("And this?", 1),
        {"role": "assistant", "content": [{"type": "text", "text": "A house."}]},
        {"role": "user", "content": [{"type": "text", "text": "Before "}, {"type": "image"}]},
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompts(name: str, checkpoint: Path, references: References) -> None:
    """The same ids around the same places as transformers' processor makes of pictures of several grids."""
    messages, reference = CONVERSATIONS[name], references(NAME)
    count = sum(part["type"] == "image" for message in messages for part in message["content"])
    images = [picture(107, 80), picture(56, 56)][:count]
    theirs = reference.inputs(messages, images)["input_ids"][0].numpy()
    placeholder = theirs == reference.model.config.image_token_id
    prompt = ours(checkpoint).render(messages)
    assert prompt.ids.tolist() == theirs[~placeholder].tolist()
    starts = np.flatnonzero(placeholder & ~np.roll(placeholder, 1))
    assert list(prompt.splices) == [int((~placeholder[:start]).sum()) for start in starts]
    assert placeholder.sum() == sum((20, 4)[:count])


FRAME = {"start_image_token": "<img>", "end_image_token": "</img>"}
OTHER = {"start_image_token": "<video>", "end_image_token": "</img>"}
FLAGS = {"__type": "AddedToken", "content": "<img>", "special": True}
NAMED: dict[str, dict[str, Any]] = {
    "by themselves": FRAME,
    "as extra ones": {"extra_special_tokens": FRAME},
    "as the model's own": {"model_specific_special_tokens": FRAME},
    "with flags": {**FRAME, "start_image_token": FLAGS},
    "extra ones with flags": {"extra_special_tokens": {**FRAME, "start_image_token": FLAGS}},
    "extra ones go first": {**OTHER, "extra_special_tokens": FRAME},
    "extra ones go before the model's own": {"extra_special_tokens": OTHER, "model_specific_special_tokens": FRAME},
    "those by themselves go before the model's own": {**OTHER, "model_specific_special_tokens": FRAME},
}


@pytest.mark.parametrize("name", NAMED)
def test_the_frame_is_found_where_transformers_finds_it(name: str, checkpoint: Path) -> None:
    file = checkpoint / "tokenizer_config.json"
    others = (*FRAME, "context_image_token", "video_token", "extra_special_tokens", "model_specific_special_tokens")
    plain = {key: value for key, value in json.loads(file.read_text()).items() if key not in others}
    file.write_text(json.dumps({**plain, **NAMED[name]}))
    theirs: Any = AutoTokenizer.from_pretrained(checkpoint)
    opened = Checkpoint(checkpoint)
    around = prompt_files.read(opened, read_spec(opened, AttentionChoice()).config).around
    assert around == (theirs.start_image_token, theirs.end_image_token)


def test_a_frame_that_a_person_wrote_is_text(checkpoint: Path) -> None:
    """The same ids as of a text that is no special token's, but for the text itself."""
    template = ours(checkpoint)
    token = template.tokenizer.token_to_id
    for text in ("<img>", "a </img> b", "<IMG_CONTEXT>", "<video> and <img><IMG_CONTEXT></img>"):
        prompt = template.render(question(text, 1))
        ids = prompt.ids.tolist()
        assert [ids.count(token(each)) for each in ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")] == [1, 1, 0, 0]
        assert ids[prompt.splices[0] - 1 : prompt.splices[0] + 1] == [token("<img>"), token("</img>")]
        assert text in template.tokenizer.decode(ids, skip_special_tokens=True)


def test_the_manifest_says_what_goes_around_a_picture(bundles: Bundles) -> None:
    """And that of a bundle without a frame, the demonstration model's, says nothing of it."""
    ours, without = (json.loads((path / "manifest.json").read_text()) for path in (bundles(NAME).bundle, DEMO))
    assert (ours["prompt"]["image_start"], ours["prompt"]["image_end"]) == ("<img>", "</img>")
    assert not {"image_start", "image_end"} & set(without["prompt"])
