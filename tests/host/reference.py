"""transformers' answer to the same question, and a recorder that shows what the runtime fed its language engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import hired_runtime
from hired_edge.selection import Selection
from hired_runtime.backend import Floats, Ints
from tests.tiny.checkpoints import load_processor, load_reference
from tests.tiny.families import FAMILIES

Measure = Callable[[str, NDArray, NDArray], float]
"""The fixture `measure`: a name, what was got and what was expected -> the largest absolute error."""

TOLERANCE = 1e-4
"""On logits, absolute; their natural scale is some units."""


def scaled(width: int, height: int) -> tuple[int, int]:
    """A size of the table for tiles of 56 px, a sixth."""
    return max(1, round(width / 6)), max(1, round(height / 6))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse seeded noise, so that tiles and patches differ from each other."""
    random = np.random.default_rng([seed, width, height])
    coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


class Reference:
    """A checkpoint's model and processor as transformers loads them."""

    def __init__(self, checkpoint: Path) -> None:
        self.model, self.processor = load_reference(checkpoint), load_processor(checkpoint)

    def inputs(self, messages: Sequence[Mapping[str, Any]], pictures: Sequence[Image.Image]) -> dict[str, Any]:
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        batch = self.processor(text=text, images=list(pictures) or None, return_tensors="pt")
        return {key: batch[key] for key in ("input_ids", "pixel_values", "image_sizes") if key in batch}

    def placeholders(self, inputs: dict[str, Any]) -> int:
        return int((inputs["input_ids"] == self.model.config.image_token_id).sum())

    @torch.inference_mode()
    def logits(self, inputs: dict[str, Any], answer: Sequence[int]) -> NDArray[np.float32]:
        """After the prompt and after each token of `answer` but the last, (len(answer), V), in one forward pass."""
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer[:-1]], dtype=torch.int64)], dim=1)
        logits = self.model(**{**inputs, "input_ids": ids}, use_cache=False).logits
        return logits[0, -len(answer) :].numpy()

    @torch.inference_mode()
    def generate(self, inputs: dict[str, Any], count: int) -> list[int]:
        """Greedy, by transformers' own loop and cache."""
        mask = torch.ones_like(inputs["input_ids"])
        ids = self.model.generate(**inputs, attention_mask=mask, max_new_tokens=count, do_sample=False)
        return ids[0, inputs["input_ids"].shape[1] :].tolist()

    @torch.inference_mode()
    def vision(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[NDArray[np.float32]]]:
        """One picture's projected features (T, N, D), and each layer's CLS attention (T, H, N), the base first."""
        pixels = inputs["pixel_values"].reshape(-1, *inputs["pixel_values"].shape[-3:])
        return FAMILIES[self.model.config.model_type].see(self.model, pixels)

    @torch.inference_mode()
    def spliced(self, inputs: dict[str, Any], selection: Selection) -> torch.Tensor:
        """(1, S, D): the picture's placeholders replaced by the selected rows of transformers' own features."""
        features = self.vision(inputs)[0].flatten(0, 1)
        gather = torch.from_numpy(selection.gather)
        visual = features[gather.clamp(min=0)]
        if (gather < 0).any():
            visual[gather < 0] = self.model.model.image_newline
        ids = inputs["input_ids"][0]
        at = int(torch.nonzero(ids == self.model.config.image_token_id)[0])
        text = self.model.get_input_embeddings()(ids[ids != self.model.config.image_token_id])
        return torch.cat([text[:at], visual, text[at:]])[None]

    @torch.inference_mode()
    def continued(
        self, embeds: torch.Tensor, answer: Sequence[int], positions: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """As `logits`, of the language model alone fed with embeddings; `positions` of theirs where they have gaps."""
        tokens = self.model.get_input_embeddings()(torch.tensor([answer[:-1]], dtype=torch.int64))
        whole = torch.cat([embeds, tokens], dim=1)
        placed: dict[str, torch.Tensor] = {}
        if positions is not None:
            behind = range(positions[-1] + 1, positions[-1] + len(answer))
            placed["position_ids"] = torch.tensor([[*positions, *behind]])
            # Without a mask transformers would take every gap for the start of another sequence.
            placed["attention_mask"] = torch.ones(whole.shape[:2], dtype=torch.int64)
        hidden = self.model.model.language_model(inputs_embeds=whole, use_cache=False, **placed)[0]
        return self.model.lm_head(hidden[0, -len(answer) :]).numpy()


class Recorder:
    """A language engine that passes every step on and keeps its logits (B, V)."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.logits: list[Floats] = []

    def step(
        self, inputs_embeds: Floats, starts: Ints, last_token: Ints, positions: Ints | None = None, first: int = 0
    ) -> Floats:
        logits = self.engine.step(inputs_embeds, starts, last_token, positions, first)
        self.logits.append(logits.copy())
        return logits

    def copy(self, source: int, target: int, tokens: int) -> bool:
        return self.engine.copy(source, target, tokens)

    def reset(self) -> None:
        self.engine.reset()


def opened(bundle: Path, **opening: Any) -> tuple[hired_runtime.Model, Recorder]:
    """A bundle opened on one thread, its steps recorded."""
    model = hired_runtime.open(bundle, threads=1, **opening)
    backend = model.pipeline.backend
    recorder = Recorder(backend.language)
    model.pipeline.backend = backend._replace(language=recorder)
    return model, recorder


def taken(recorder: Recorder) -> NDArray[np.float32]:
    """The logits since the last call, (steps, V) of row 0."""
    logits, recorder.logits = np.concatenate([step[:1] for step in recorder.logits]), []
    return logits
