"""What demo_scenes.yaml calls: a row of `questions.jsonl` -> its picture, and its score.

Scores as the metric `exact` of `hired-edge eval` does, without importing it: these are the harness's own figures, and
tests/host/test_lmms_eval.py compares the two.
"""

from __future__ import annotations

from typing import Any

from PIL import Image


def doc_to_visual(doc: dict[str, Any]) -> list[Image.Image]:
    with Image.open(doc["image"]) as picture:
        return [picture.convert("RGB")]


def doc_to_target(doc: dict[str, Any]) -> str:
    return doc["answers"][0]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The score, once among all questions and once among those of its kind."""
    score = float(_normal(results[0]) in map(_normal, doc["answers"]))
    return {"exact": score, doc["task"]: score}


def _normal(text: str) -> str:
    """But for case, white space and one full stop at the end."""
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
