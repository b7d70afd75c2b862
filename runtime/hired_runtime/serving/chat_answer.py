"""An `Answer` as OpenAI's objects: one completion, or the chunks of a stream. What HiRED adds is in `hired_edge`."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from hired_edge import __version__
from hired_runtime.commands.options import visual_report
from hired_runtime.pipeline import STAGES
from hired_runtime.request import Answer

_TIMES = ("queue", *STAGES, "ttft", "total")
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Completion:
    """One answer's envelope.

    Args:
        model: the name that is served.
        cache_bytes: of the opened model's key-value cache.
    """

    model: str
    cache_bytes: int
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage(answer),
            "hired_edge": self.extension(answer),
        }

    def role(self) -> dict[str, Any]:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def piece(self, text: str) -> dict[str, Any]:
        """A chunk of the text."""
        return self._chunk({"content": text})

    def end(self, answer: Answer) -> dict[str, Any]:
        """The chunk that says why the text is over."""
        return {**self._chunk({}, answer.finish_reason), "hired_edge": self.extension(answer)}

    def usage(self, answer: Answer) -> dict[str, Any]:
        """The last chunk, for a client that has asked for it: no choices, only counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(answer)}

    def extension(self, answer: Answer) -> dict[str, Any]:
        """What was kept of the pictures, what it took, and how large the cache is."""
        rate = answer.decode_tokens_per_s
        return {
            "visual": without_indices(visual_report(answer.selections)),
            "timings_ms": {name: round(answer.timings_ms.get(name, 0.0), 3) for name in _TIMES},
            "tokens_per_s": None if rate is None else round(rate, 3),
            "cache_bytes": self.cache_bytes,
        }

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"hired-edge-{__version__}",
        }


def usage(answer: Answer) -> dict[str, Any]:
    """Positions of the language model's sequence: the prompt's are text and kept visual tokens, newlines included."""
    visual = visual_tokens(answer)
    prompt = answer.prompt_tokens + visual
    return {
        "prompt_tokens": prompt,
        "completion_tokens": len(answer.tokens),
        "total_tokens": prompt + len(answer.tokens),
        "prompt_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "text_tokens": answer.prompt_tokens,
            "image_tokens": visual,
        },
    }


def visual_tokens(answer: Answer) -> int:
    return sum(selection.visual_tokens for selection in answer.selections)


def without_indices(report: Any) -> Any:
    """`visual_report` without the places of the kept patches, which are thousands of numbers."""
    if isinstance(report, list):
        return [without_indices(each) for each in report]
    return {name: value for name, value in report.items() if name != "indices"}


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + encoded(data) + b"\n\n"


def encoded(data: dict[str, Any]) -> bytes:
    # A tokenizer may give half a character only as U+FFFD, so that UTF-8 holds every text.
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
