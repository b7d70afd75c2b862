"""Calibration data -> sequences of embeddings as the runtime makes them: prompt, kept visual tokens, answer.

A picture is seen at `BUDGET`, whatever the bundle's budgets: several pictures say more than the whole of one. Questions
are taken picture by picture, the first of each, then the second, until there are as many tokens as asked for.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from hired_edge.errors import CheckpointError, InputError
from hired_edge.preprocessing import PreprocessRules
from hired_edge.questions import Dataset, Question, read_dataset
from hired_export import prompt_files
from hired_export.activation_aware.pictures import kept_features
from hired_export.families import ModelSpec
from hired_export.progress import OnBytes
from hired_export.prompt_files import Prompt
from hired_export.references import References
from hired_export.tensor import Tensor

BUDGET = "20%"
Floats = NDArray[np.float32]


def read_calibration(folder: Path) -> Dataset:
    """As `read_dataset`, and every row must be a good one.

    Raises:
        InputError: it cannot be read, or holds a bad row.
    """
    data = read_dataset(folder)
    if data.bad_rows:
        bad = data.bad_rows[0]
        raise InputError(
            f"{folder}, line {bad.line}: {bad.reason} ({len(data.bad_rows)} bad rows)",
            expected="calibration data without bad rows",
            fix="mend the data set",
        )
    return data


class Sequences:
    """Makes them from a checkpoint.

    Args:
        references: of its tower.
        table: token embeddings (V, D).
        newline: (D), where the family has one.
    """

    def __init__(
        self,
        spec: ModelSpec,
        rules: PreprocessRules,
        prompt: Prompt,
        references: References,
        table: Tensor,
        newline: Tensor | None,
    ) -> None:
        self._spec, self._rules, self._references, self._table = spec, rules, references, table
        self._newline = None if newline is None else newline.rows(0, newline.shape[0])
        self._tokenizer = Tokenizer.from_str(prompt.files[prompt_files.TOKENIZER].decode())
        self._template = prompt.files[prompt_files.CHAT_TEMPLATE].decode()
        self._image_token = prompt.image_token
        self._framed = f"{prompt.around[0]}{prompt.image_token}{prompt.around[1]}"
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        if self._image_token not in known:  # an original vocabulary has none
            self._tokenizer.add_special_tokens([AddedToken(self._image_token, normalized=False, special=True)])

    def make(self, questions: Sequence[Question], tokens: int, on_tokens: OnBytes) -> list[torch.Tensor]:
        """(1, S, D) each, `tokens` in all, the last one being cut, or as many as the questions give.

        Raises:
            InputError: a picture cannot be read.
            CheckpointError: a chat template that fails, or leaves no place for it.
        """
        made: list[torch.Tensor] = []
        left = tokens
        for question in _in_turns(questions):
            sequence = self._sequence(question)[:left]
            left -= len(sequence)
            on_tokens(len(sequence))
            made.append(torch.from_numpy(sequence)[None])
            if left == 0:
                break
        return made

    def _sequence(self, question: Question) -> Floats:
        before, after = self._prompt(question.prompt)
        answer = self._tokenizer.encode(question.answers[0], add_special_tokens=False).ids
        tiling = self._spec.tiling
        visual = kept_features(question.picture, self._references, tiling, self._rules, self._newline, BUDGET)
        return np.concatenate([self._rows(before), visual, self._rows([*after, *answer])])

    def _prompt(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids in front of the picture and behind it."""
        text = text.replace(self._image_token, "")  # which would be another picture
        image, reason = self._tokenizer.token_to_id(self._image_token), "it leaves the picture out"
        # As the runtime does: a template that does not take parts is given one string.
        for content in ([{"type": "image"}, {"type": "text", "text": text}], f"{self._image_token}\n{text}"):
            messages = [{"role": "user", "content": content}]
            try:
                rendered, _ = render_jinja_template(
                    [messages], chat_template=self._template, add_generation_prompt=True
                )
            except Exception as error:  # a template is a program: it can fail in any way
                reason = " ".join(str(error).split())[:120]
                continue
            framed = rendered[0].replace(self._image_token, self._framed)
            ids = self._tokenizer.encode(framed).ids
            if image in ids:
                at = ids.index(image)
                return ids[:at], ids[at + 1 :]
        raise CheckpointError(
            f"the chat template makes no prompt of a picture and a question ({reason})",
            expected=f"a template for both, with {json.dumps(self._image_token)} for the picture",
            fix="use the checkpoint's own chat template, or pass another one as --chat-template FILE",
        )

    def _rows(self, ids: Sequence[int]) -> Floats:
        """Embeddings (len(ids), D)."""
        width = self._table.shape[1]
        return np.concatenate([np.empty((0, width), np.float32), *(self._table.rows(i, i + 1) for i in ids)])


def _in_turns(questions: Sequence[Question]) -> Iterator[Question]:
    """The first of each picture, then the second of each, and so on."""
    by_picture: dict[Path, list[Question]] = defaultdict(list)
    for question in questions:
        by_picture[question.picture].append(question)
    for turn in range(max(map(len, by_picture.values()))):
        yield from (each[turn] for each in by_picture.values() if len(each) > turn)
