"""Exact match, this project's own: for data sets whose answers have one spelling each."""

from __future__ import annotations

from collections.abc import Sequence


def exact(answer: str, accepted: Sequence[str]) -> float:
    """1 if the answer is one of the accepted ones but for case, white space and one full stop at the end; else 0."""
    return float(_normal(answer) in map(_normal, accepted))


def _normal(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
