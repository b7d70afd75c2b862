"""What is asked of a model, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hired_edge.budget import Budget, parse_alpha, parse_budget
from hired_edge.errors import InputError
from hired_edge.limits import Limits
from hired_edge.packing import check_newlines
from hired_edge.policies import policy_named
from hired_edge.selection import Selection, check_partitions
from hired_runtime.pictures import PictureSource
from hired_runtime.positions import check_positions
from hired_runtime.sampling import SamplingOptions


@dataclass(frozen=True)
class Request:
    """What is asked of a model, and how. None = the opening's own budget, or the family's own newline policy.

    Args:
        messages: chat messages; a content is a string or a list of text and image parts.
        images: one picture for each image part, in order.
        visual_tokens: budget over all pictures, at most what the bundle was opened with.
        policy, alpha, newlines: how visual tokens are chosen.
        partitions: "all", or "base" to leave the sub-images out, which then are not even seen.
        positions: "compact" (the paper: kept tokens stand side by side) or "original" (each keeps its place); None =
            the policy's own.
        max_new_tokens: at most what the bundle was opened with; None = that.
        sampling: greedy by default.
        stop: strings that end the answer and are not part of it.
        reuse: begin with what an earlier request has left: pictures that were seen, and the cache of a prompt that
            begins alike. Same tokens, or a first difference at a near-tie of the logits.

    Raises:
        InputError: a budget, an alpha, a policy or a newline policy that is none; policy "full" with a smaller budget;
            no token to be made.
    """

    messages: Sequence[Mapping[str, Any]]
    images: Sequence[PictureSource] = ()
    visual_tokens: Budget | str | int | None = None
    policy: str = "hired"
    alpha: float | str = 0.5
    newlines: str | None = None
    partitions: str = "all"
    positions: str | None = None
    max_new_tokens: int | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stop: Sequence[str] = ()
    reuse: bool = False

    def __post_init__(self) -> None:
        # Here, because opening a bundle may take a minute and a vision engine a second.
        parse_alpha(self.alpha)
        chosen = policy_named(self.policy)
        check_newlines(self.newlines)
        check_partitions(self.partitions)
        check_positions(self.positions)
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(
                f"max_new_tokens {self.max_new_tokens}", expected="1 or more", fix="pass another --max-new-tokens"
            )
        budget = self.budget  # read here, so that a malformed one is refused here
        if chosen.stock and budget is not None and not budget.is_stock:
            raise InputError(
                f"policy {self.policy!r} with a budget of {budget}",
                expected="one of the two: this policy keeps every visual token, whatever the budget",
                fix="leave out --visual-tokens, or pass another --policy",
            )

    @property
    def budget(self) -> Budget | None:
        """What is asked for: the stock sequence where the policy keeps everything; None = the opening's own."""
        if policy_named(self.policy).stock and self.visual_tokens is None:
            return parse_budget("100%")
        asked = self.visual_tokens
        return parse_budget(asked) if isinstance(asked, (str, int)) else asked


@dataclass(frozen=True, eq=False)
class Answer:
    """A finished request.

    Args:
        text: what was generated, stop strings removed.
        tokens: generated token ids, a stop token included.
        finish_reason: "stop" (a stop token or string) or "length".
        selections: one a picture.
        prompt_tokens: text positions of the prompt, visual tokens not counted.
        limits: what the bundle was opened with.
        timings_ms: by stage, and `ttft`, `total`.
        peak_memory_mb: of the process so far, MiB.
        cached_tokens: positions of the prompt, visual ones among them, that were in the cache already.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    selections: list[Selection]
    prompt_tokens: int
    limits: Limits
    timings_ms: dict[str, float]
    peak_memory_mb: float
    cached_tokens: int = 0

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first, by the time of the decode steps; None where there was no such step."""
        steps = len(self.tokens) - 1
        return 1e3 * steps / self.timings_ms["decode"] if steps > 0 and self.timings_ms["decode"] > 0 else None
