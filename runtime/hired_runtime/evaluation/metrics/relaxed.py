"""Relaxed accuracy, which ChartQA and PlotQA report: a number read off a chart may be 5 % off.

Masry et al., ChartQA, 2022, arXiv:2203.10244, end of section 5.1; the evaluator is the one that published figures are
made with, `relaxed_correctness` of pix2struct (google-research/pix2struct, pix2struct/metrics.py), which Qwen-VL and
lmms-eval took over. It knows no units and no thousands separators: "1,200" and "5 km" are texts.
"""

from __future__ import annotations

from collections.abc import Sequence

TOLERANCE = 0.05


def relaxed(answer: str, accepted: Sequence[str]) -> float:
    """1 if the answer is an accepted number to within 5 % of it, or an accepted text but for case; else 0.

    "5%" is 0.05, so it is right for "0.05" and wrong for "5". What the paper does not say is as the evaluator has it:
    nothing but zero as it is written is right for zero ("0.0" is wrong for "0": there is no 5 % of it), and 5 % is
    counted in floating point (1.05 is just over it for 1, 105 is not for 100).

    White space around the model's answer is taken off first: a program that runs the evaluator does that.
    """
    return float(any(_right(answer.strip(), each) for each in accepted))


def _right(answer: str, accepted: str) -> bool:
    value, target = _number(answer), _number(accepted)
    if value is not None and target:
        return abs(value - target) / abs(target) <= TOLERANCE
    return answer.lower() == accepted.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
