"""Cosine similarities between patches: of their features as they are, or of a sketch of them where they are wide.

The methods that compare patches do so with the vision tower's features before the projector, or behind it without
regard to time. A bundle has those behind it, in the language model's width, where products of all patches would take
seconds on a board. Of features wider than 512, the part along their common direction is therefore kept as it is, and
the rest is added up in groups with fixed signs to a width of 256 (a count sketch: Charikar, Chen and Farach-Colton,
2002; Weinberger et al., arXiv 0902.2206). Products keep their expectation; a cosine is off by about 1 / sqrt(256),
0.06, of the share that is not common (standard deviation). `python -m benchmarks.policies` says how many tokens are
then chosen that exact cosines choose; the demonstration model is narrower than 512.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EXACT = 512
SKETCH = 256
_SEED = 20240819
_EVERY = 8  # rows of which one is looked at for the direction that they share


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1 whose products are the cosines: (n, D), or their sketch (n, 257); zeros stay zeros."""
    rows = features if features.shape[1] <= EXACT else _sketch(features)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _sketch(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, D) -> (n, 257): the part along the mean of some rows, and of the rest, added up with signs, 256 columns."""
    wide = features.shape[1] // SKETCH * SKETCH
    # Raw bits: numpy promises a bit generator's stream, but not what a Generator makes of it.
    bits = np.random.PCG64(_SEED).random_raw(features.shape[1]) >> 63
    signs = 1.0 - 2.0 * bits.astype(np.float32)

    def added_up(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        groups = rows[:, :wide].reshape(len(rows), -1, SKETCH)
        sums = np.einsum("ngc,gc->nc", groups, signs[:wide].reshape(-1, SKETCH))
        sums[:, : rows.shape[1] - wide] += rows[:, wide:] * signs[wide:]
        return sums

    # Any direction would be exact; the one that most rows share takes most of the error away.
    common = features[::_EVERY].mean(axis=0)
    common /= max(float(np.sqrt(common @ common)), 1e-12)
    along = features @ common
    return np.concatenate([along[:, None], added_up(features) - along[:, None] * added_up(common[None])], axis=1)
