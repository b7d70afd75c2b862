"""Writes a small data set: seeded noise pictures of several shapes and questions of several lengths. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = [(130, 97), (60, 200), (224, 224), (300, 90)]
"""(width, height) of the pictures, px: four grids."""
PROMPTS = ["What is it?", "Which colour is the card in the upper left corner, and why?", "Why?"]


def write_questions(folder: Path, pictures: int = 4, prompts: int = 3) -> list[dict[str, Any]]:
    """Fills `folder` and returns the rows, `prompts` for each picture in turn; tasks "read" and "find" alternate."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(pictures):
        width, height = SIZES[number % len(SIZES)]
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    for index in range(prompts):
        for number in range(pictures):
            task = ("read", "find")[index % 2]
            rows.append({"image": f"{number}.png", "prompt": PROMPTS[index], "answers": ["nothing"], "task": task})
    write_rows(folder, rows)
    return rows


def write_rows(folder: Path, rows: list[Any]) -> None:
    """Writes `questions.jsonl`; a row that is bytes goes in as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / "questions.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
