"""Numbers that are none: noticed where they cross from an engine, before anything is made of them.

One pass over what crosses anyway. It cannot tell a broken engine from an fp16 graph that overflows on one picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import NumericalError


def check_finite(array: NDArray, name: str) -> None:
    """Passes a float array without NaN and infinity.

    Args:
        name: what it is, "logits of the language engine".

    Raises:
        NumericalError: any other.
    """
    finite = np.isfinite(array)
    if finite.all():
        return
    broken = array.size - int(np.count_nonzero(finite))
    raise NumericalError(
        f"{name} with {broken} of {array.size} numbers that are not finite",
        expected="finite numbers",
        fix="run `hired-edge verify`; if the bundle passes it, an fp16 graph overflows here: export for another target",
    )
