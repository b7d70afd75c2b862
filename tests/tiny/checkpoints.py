"""Tiny checkpoints of every family with seeded random weights as the Hub has them, and the reference that reads them.

The weights are wide enough that attention maps and logits are far from flat, every norm and bias is non-trivial, and
each tensor depends only on the seed and its own name: two layouts of one seed are the same model. Knows nothing about
hired-edge; needs torch and transformers, which are also the reference.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import logging

from tests.tiny.families import FAMILIES, TOWER
from tests.tiny.layouts import Layout, rename, v4_config, v4_picture_config
from tests.tiny.texts import TEXTS
from tests.tiny.tokenizers import Style, TokenizerFacts, write_tokenizer


def write_checkpoint(
    folder: Path,
    family: str = "llava_next",
    text: str = "llama",
    *,
    layout: Layout = "v5",
    seed: int = 0,
    shards: int = 1,
    safetensors: bool = True,
    tie_embeddings: bool = False,
    dtype: str = "float32",
    style: Style | None = None,
    template: str | None = None,
    rope: dict[str, Any] | None = None,
    text_config: dict[str, Any] | None = None,
    vision_config: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Write a tiny random checkpoint and return its folder, which is created.

    Pictures are 56x56 in patches of 14 (N = 16); the tower has 5 layers of width 32, the text model 3 of width 64.

    Args:
        family, text: names in `tests.tiny.families.FAMILIES` and `tests.tiny.texts.TEXTS`.
        layout: "v4" as the llava-hf repositories have it (preprocessor_config.json; rope_theta and rope_scaling in
            text_config, which omits defaults), "v5" as transformers 5.23 saves it (rope_parameters; the picture
            processor inside processor_config.json), "memory" as v5 but with the tensors' names in memory
            (`model.language_model.*`, `model.vision_tower.*`, `lm_head.weight`).
        shards: the number of weight files; more than one come with an index.
        safetensors: False for pytorch_model.bin (a plain state dict).
        tie_embeddings: the head is the embedding table and is not stored.
        dtype: of the stored tensors: "float32", "float16" or "bfloat16".
        style, template: as `write_tokenizer` has them; by default those of the text model.
        rope: rope_type, factor and so on, and rope_theta (`{"rope_type": "linear", "factor": 2.0}`).
        text_config, vision_config: further fields of those configs (sliding_window, attention_bias, head_dim, ...).
        overrides: further fields of the top-level config (vision_feature_layer, image_grid_pinpoints, ...).
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind, words = FAMILIES[family], TEXTS[text]
    tokens = write_tokenizer(folder, style or words.style, template or words.template, kind.pictures)
    vocab_size = -(-(tokens.size + 1) // 64) * 64  # room after the last token, as 32064 for 32002 tokens
    text_fields = {"tie_word_embeddings": tie_embeddings, "vocab_size": vocab_size, **(text_config or {})}
    config = _config(family, text, tokens, text_fields, vision_config or {}, rope or {}, overrides)
    config.architectures = [kind.model.__name__]
    config.dtype = config.text_config.dtype = config.vision_config.dtype = dtype

    weights = {rename(name, layout): tensor for name, tensor in _weights(family, config, seed, dtype).items()}
    _write_weights(folder, weights, shards, safetensors)
    processor = _processor(family, config)
    if layout == "v4":
        _write_json(folder / "config.json", v4_config(config, family, text))
        _write_json(folder / "preprocessor_config.json", v4_picture_config(processor))
        fields = {"processor_class": type(processor).__name__, **kind.of_processor(config)}
        _write_json(folder / "processor_config.json", fields)
    else:
        config.save_pretrained(folder)
        processor.tokenizer = AutoTokenizer.from_pretrained(folder)
        processor.chat_template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        (folder / "special_tokens_map.json").unlink()
        with kind.without_films():
            processor.save_pretrained(folder)
    generation = {
        "_from_model_config": True,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
        "transformers_version": "4.39.0" if layout == "v4" else "5.23.0",
    }
    _write_json(
        folder / "generation_config.json", {key: value for key, value in generation.items() if value is not None}
    )
    return folder


def load_reference(folder: Path, attention: str = "eager", dtype: torch.dtype = torch.float32) -> Any:
    """The transformers model of `folder`, ready to run; `attention` is "eager" (it can return its maps) or "sdpa"."""
    with _Quiet():
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    return model.eval()


def load_processor(folder: Path) -> Any:
    """The transformers processor of `folder` with its Pillow picture processor, which needs no torchvision."""
    family = FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]]
    fields = json.loads((folder / "processor_config.json").read_text())
    nested = fields.pop("image_processor", None)
    picture = nested or json.loads((folder / "preprocessor_config.json").read_text())
    fields.pop("processor_class")
    kept_out = ("image_processor_type", "processor_class")
    with _Quiet(), family.without_films():
        return family.processor(
            image_processor=family.picture_processor(**{key: picture[key] for key in picture if key not in kept_out}),
            tokenizer=AutoTokenizer.from_pretrained(folder),
            chat_template=(folder / "chat_template.jinja").read_text(encoding="utf-8"),
            **fields,
        )


def _config(
    family: str,
    text: str,
    tokens: TokenizerFacts,
    text_fields: dict[str, Any],
    vision_fields: dict[str, Any],
    rope: dict[str, Any],
    overrides: dict[str, Any],
) -> Any:
    kind = FAMILIES[family]
    vision = {**TOWER, **kind.vision, **vision_fields}
    language = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "intermediate_size": 96,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **rope},
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        **TEXTS[text].fields,
        **text_fields,
    }
    return kind.config(
        vision_config=kind.vision_config(**vision),
        text_config=TEXTS[text].config(**language),
        tie_word_embeddings=language["tie_word_embeddings"],
        **{**kind.fields(tokens, vision), **overrides},
    )


def _processor(family: str, config: Any) -> Any:
    """The processor without a tokenizer: what its files say is known before there is one."""
    kind = FAMILIES[family]
    processor = kind.processor.__new__(kind.processor)
    processor.image_processor = kind.picture_processor(**kind.picture(config))
    for name, value in kind.of_processor(config).items():
        setattr(processor, name, value)
    return processor


def _weights(family: str, config: Any, seed: int, dtype: str) -> dict[str, torch.Tensor]:
    """The stored tensors of `config` under their names in memory, in `dtype`."""
    with torch.device("meta"), _Quiet():
        model = FAMILIES[family].model(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return {name: _tensor(name, shape, seed).to(getattr(torch, dtype)) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    values = random.standard_normal(shape)
    if re.search(r"norm\w*\.weight$", name):
        values = 1 + 0.2 * values
    elif name.endswith(".bias"):
        values *= 0.15
    elif re.search(r"embed|newline", name) and "patch" not in name:
        values *= 0.5
    else:  # a linear layer or the patch convolution: keep the scale of its input, half as much again
        values *= 1.5 / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def _write_weights(folder: Path, weights: dict[str, torch.Tensor], shards: int, safetensors: bool) -> None:
    stem, suffix = ("model", "safetensors") if safetensors else ("pytorch_model", "bin")
    names = sorted(weights)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05d}-of-{shards:05d}.{suffix}" if shards > 1 else f"{stem}.{suffix}"
        part = {
            name: weights[name] for name in names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        }
        weight_map |= dict.fromkeys(part, file)
        if safetensors:
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
    if shards > 1:
        total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / f"{stem}.{suffix}.index.json", index)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="")


class _Quiet:
    """Progress bars and notices off: a test's output is its own."""

    def __enter__(self) -> None:
        self.verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *error: object) -> None:
        logging.set_verbosity(self.verbosity)
        logging.enable_progress_bar()
