"""How a figure spreads over the iterations of a run: mean, median, p95, minimum, maximum, standard deviation.

Plain Python on purpose: the same values give the same statistics to the last bit on every machine and numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from hired_edge.errors import InputError

_DIGITS = 4  # of a millisecond: a tenth of a microsecond is below what the clock is worth


@dataclass(frozen=True)
class Statistics:
    """Of one figure, in its own unit. `values` are those of the iterations, in their order.

    Raises:
        InputError: no value, or statistics that are not those of the values.
    """

    mean: float
    median: float
    p95: float
    """95th percentile, linear between the two nearest values (numpy's default)."""
    min: float
    max: float
    stddev: float
    """Of a sample (n - 1); 0 for one value."""
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("statistics of no value", expected="at least one", fix="profile again")
        for name, value in _computed(self.values).items():
            if not math.isclose(getattr(self, name), value, rel_tol=1e-9, abs_tol=10.0**-_DIGITS):
                raise InputError(
                    f"{name} is {getattr(self, name)}", expected=f"{value}, by the values", fix="profile again"
                )


def statistics_of(values: Sequence[float]) -> Statistics:
    """The statistics of at least one value; all of it rounded to four digits."""
    rounded = tuple(round(value, _DIGITS) for value in values)
    return Statistics(values=rounded, **_computed(rounded))


def _computed(values: tuple[float, ...]) -> dict[str, float]:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    exact = {
        "mean": mean,
        "median": _percentile(values, 0.5),
        "p95": _percentile(values, 0.95),
        "min": min(values),
        "max": max(values),
        "stddev": math.sqrt(variance),
    }
    return {name: round(value, _DIGITS) for name, value in exact.items()}


def _percentile(values: Sequence[float], share: float) -> float:
    rising = sorted(values)
    at = share * (len(rising) - 1)
    low = math.floor(at)
    high = min(low + 1, len(rising) - 1)
    return rising[low] + (at - low) * (rising[high] - rising[low])


NAMES = tuple(field.name for field in fields(Statistics) if field.name != "values")
"""The six, in the order in which they are shown."""
