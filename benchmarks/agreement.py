"""Do two sides compute the same? Kept tokens, attention maps and tokens of two witnesses, held against each other.

In fp16 two programs that compute the same thing round differently: a patch at the edge of what is kept may be kept by
one alone, and two logits that nearly tie may change places. So what is reported is how many agree, and how near the
tie was where they part; nothing is judged here.
"""

from __future__ import annotations

import numpy as np

from benchmarks.results import Agreement
from benchmarks.witness import Witness
from hired_edge.manifest import Precision


def compare(precision: Precision, budget: str, ours: Witness, theirs: Witness) -> Agreement:
    """Our runtime's answer against PyTorch's at one budget."""
    assert theirs.logits is not None
    same = _same_tokens(ours.tokens, theirs.tokens)
    return Agreement(
        precision=precision,
        budget=budget,
        against=theirs.side,
        visual_tokens=theirs.visual_tokens,
        same_visual_tokens=_same_visual_tokens(ours, theirs),
        maps_error=_maps_error(ours, theirs),
        tokens=len(theirs.tokens),
        same_tokens=same,
        gap=_gap(theirs, ours.tokens[same], same) if same < len(theirs.tokens) else None,
    )


def _same_tokens(ours: list[int], theirs: list[int]) -> int:
    assert len(ours) == len(theirs)
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(theirs))


def _same_visual_tokens(ours: Witness, theirs: Witness) -> int:
    if theirs.gather is None:  # all are kept: there is one sequence of that length
        return min(ours.visual_tokens, theirs.visual_tokens)
    assert ours.gather is not None
    kept, other = (gather[gather >= 0] for gather in (ours.gather, theirs.gather))
    newlines = min(int(np.count_nonzero(gather < 0)) for gather in (ours.gather, theirs.gather))
    return len(np.intersect1d(kept, other)) + newlines


def _maps_error(ours: Witness, theirs: Witness) -> float | None:
    if ours.maps is None or theirs.maps is None:
        return None
    pairs = zip(ours.maps, theirs.maps, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def _gap(theirs: Witness, ours: int, step: int) -> float:
    """By how much PyTorch prefers its own token to ours at a step, of its largest logit there."""
    assert theirs.logits is not None
    logits = theirs.logits[step]
    return float((logits[theirs.tokens[step]] - logits[ours]) / np.abs(logits).max())
