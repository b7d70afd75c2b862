"""A profile's range of shapes: what lies between its smallest and its largest, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired_edge.engine_record import ShapeRange
from hired_edge.errors import BundleError

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@given(low=sizes, grow=st.integers(0, 5), more=st.integers(0, 5))
def test_a_shape_range_holds_what_lies_between(low: list[int], grow: int, more: int) -> None:
    low_, best = tuple(low), tuple(size + grow for size in low)
    high = tuple(size + more for size in best)
    shapes = ShapeRange(low_, best, high)
    assert shapes.holds(low_)
    assert shapes.holds(best)
    assert shapes.holds(high)
    assert not shapes.holds((high[0] + 1, *high[1:]))
    assert not shapes.holds((low_[0] - 1, *low_[1:]))
    assert not shapes.holds((*high, 1))
    if more:
        with pytest.raises(BundleError):
            ShapeRange(high, best, low_)
