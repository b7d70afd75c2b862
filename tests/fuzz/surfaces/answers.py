"""What an interrupted `hired-edge batch` left: its journal, its mark and its answers; the run goes on and ends."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hired_runtime.batch.answers_file import Answers
from tests.fuzz.mutators import json_text, parts, raw
from tests.fuzz.surface import Feed, Surface

OUTPUT, JOURNAL, MARK = "answers.jsonl", ".answers.jsonl.journal", ".answers.jsonl.run"
IDENTITY = {"requests": "ab" * 32, "bundle": "cd" * 32, "policy": "hired", "engine": ...}
WHOLE = {**IDENTITY, "engine": "onnxruntime 1.31.1"}
ROWS = 3


def seeds() -> dict[str, bytes]:
    header = {"format": 1, **WHOLE}
    answers = [{"id": i, "text": "yes", "usage": {"total_tokens": 5}} for i in range(1, ROWS + 1)]
    lines = [json.dumps({"row": i, "answer": answer}) for i, answer in enumerate(answers, 1)]
    journal = "\n".join([json.dumps(header), *lines, ""]).encode()
    output = "".join(f"{json.dumps(answer)}\n" for answer in answers).encode()
    mark = json.dumps({"run": header, "sha256": hashlib.sha256(output).hexdigest(), "errors": 0}).encode()
    error = json.dumps({"row": 2, "answer": {"id": 2, "error": "no picture"}}).encode()
    return {
        "half": parts.joined({JOURNAL: journal[:-20]}),
        "error": parts.joined({JOURNAL: journal + error + b"\n"}),
        "finished": parts.joined({OUTPUT: output, MARK: mark}),
        "new": parts.joined({JOURNAL: b""}),
    }


def opened(folder: Path) -> Feed:
    def feed(data: bytes) -> None:
        parts.written(data, folder, (OUTPUT, JOURNAL, MARK))
        with Answers(folder / OUTPUT, IDENTITY, ROWS) as answers:
            if answers.finished:
                return
            answers.begin(WHOLE)
            for row in range(1, ROWS + 1):
                if answers.missing(row):
                    answers.add(row, {"id": row, "text": "yes"})
            answers.finish()

    return feed


SURFACE = Surface(
    "what a stopped `batch` left behind",
    opened,
    seeds,
    parts.of({OUTPUT: raw.mutated, JOURNAL: json_text.lines, MARK: json_text.of()}),
)
