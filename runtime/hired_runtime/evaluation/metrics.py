"""How an answer is scored against the accepted ones. A new metric is a function and an entry in `METRICS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from hired_edge.errors import InputError

Metric: TypeAlias = "Callable[[str, Sequence[str]], float]"
"""(what the model answered, what is accepted) -> 0 to 1."""


def exact(answer: str, accepted: Sequence[str]) -> float:
    """1 if the answer is one of the accepted ones but for case, white space and one full stop at the end; else 0."""
    return float(_normal(answer) in map(_normal, accepted))


def _normal(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()


METRICS: Mapping[str, Metric] = MappingProxyType({"exact": exact})


def metric_named(name: str) -> Metric:
    """A metric by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in METRICS:
        raise InputError(f"metric {name!r}", expected=", ".join(METRICS), fix="pass another --metric")
    return METRICS[name]
