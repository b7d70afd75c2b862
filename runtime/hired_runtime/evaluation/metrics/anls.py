"""ANLS, the similarity by edits that DocVQA, InfographicVQA and ST-VQA report: a misread letter costs little.

Biten et al., Scene Text Visual Question Answering, 2019, arXiv:1905.13648, section 3.3; the evaluator is the script of
the Robust Reading Competition (rrc.cvc.uab.es, challenges 11 and 17). It knows nothing of meaning: "12" for "13" is
half right.
"""

from __future__ import annotations

from collections.abc import Sequence

THRESHOLD = 0.5


def anls(answer: str, accepted: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest accepted answer; 0 where it is below 0.5.

    Case and runs of white space do not count. Where the evaluator is not what the paper says, it is followed:

    - a similarity of exactly 0.5 counts, and the paper's threshold (a distance below 0.5) would make it 0;
    - the edits are divided by the longer of the texts as written, in capitals, before runs of white space are joined.

    White space around the model's answer is taken off first: a program that writes submissions does that.
    """
    return max(_similarity(answer.strip(), each) for each in accepted)


def _similarity(answer: str, accepted: str) -> float:
    length = max(len(answer.upper()), len(accepted.upper()))
    similarity = 1 - levenshtein(_joined(answer), _joined(accepted)) / length if length else 1.0
    return similarity if similarity >= THRESHOLD else 0.0


def _joined(text: str) -> str:
    return " ".join(text.lower().split())


def levenshtein(one: str, other: str) -> int:
    """The fewest letters to insert, delete or replace that make one text the other (Levenshtein, 1966)."""
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        left = row
        current = [left]
        for column, against in enumerate(other, 1):
            left = min(left + 1, above[column] + 1, above[column - 1] + (letter != against))
            current.append(left)
        above = current
    return above[-1]
