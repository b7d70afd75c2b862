"""HiRED with one of its choices replaced: the rows of the paper's Table 5 that the two attention maps can show.

The rows that need another map (dropping by a middle layer, one head) are bundles exported with `--selection-layer` or
`--heads`, under policy "hired".
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from hired_edge.policies.hired import sub_image_scores, two_phases
from hired_edge.policies.policy import Mask, Policy, View


def _evenly(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """Every sub-image with an eligible patch gets the same share."""
    return two_phases(view, view.tiling.eligible[1:].any(axis=1).astype(float).tolist(), alpha)


def _allocated_by_last(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """The sub-images' scores are the base picture's attention in the last layer (selection) instead of the first."""
    return two_phases(view, sub_image_scores(view.tiling, view.selection_attention), alpha)


def _dropped_by_first(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """Patches are ranked by the first layer (allocation) instead of the last."""
    scores = sub_image_scores(view.tiling, view.allocation_attention)
    return two_phases(view, scores, alpha, ranking=view.allocation_attention)


ABLATIONS = (
    Policy("hired-even", _evenly),
    Policy("hired-allocated-by-last", _allocated_by_last),
    Policy("hired-dropped-by-first", _dropped_by_first),
)
