"""`questions.jsonl` of `hired-edge eval`, and the answers that a stopped run left."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hired_edge.questions import read_dataset
from hired_runtime.evaluation.record import ANSWERS, Identity, Record
from tests.fuzz.mutators import json_text, parts
from tests.fuzz.surface import Feed, Surface

QUESTIONS = "questions.jsonl"
IDENTITY = Identity("ab" * 32, "cd" * 32, 16, "onnxruntime 1.31.1", "0.1.0")
KEY = {
    "policy": "hired",
    "budget": "20%",
    "alpha": "1/2",
    "newlines": None,
    "partitions": "all",
    "positions": "compact",
}


def seeds() -> dict[str, bytes]:
    rows = [{"image": "a.png", "prompt": "What?", "answers": ["a", "b"], "task": "read", "id": i} for i in range(3)]
    lines = [{"format": 2, **asdict(IDENTITY)}, *({"line": i, **KEY, "visual_tokens": 5, "text": "a"} for i in (1, 2))]
    files = {
        name: "".join(f"{json.dumps(row)}\n" for row in each) for name, each in ((QUESTIONS, rows), (ANSWERS, lines))
    }
    return {"stopped": parts.joined({name: text.encode() for name, text in files.items()})}


def opened(folder: Path) -> Feed:
    (folder / "a.png").write_bytes(b"a picture")

    def feed(data: bytes) -> None:
        parts.written(data, folder, (QUESTIONS, ANSWERS))
        read_dataset(folder)
        with Record(folder, IDENTITY) as record:
            list(record.answers)

    return feed


SURFACE = Surface(
    "questions.jsonl of `eval`, and a stopped run's answers",
    opened,
    seeds,
    parts.of({QUESTIONS: json_text.lines, ANSWERS: json_text.lines}),
)
