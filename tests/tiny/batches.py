"""Files of requests and answers for `hired-edge batch`. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny.questions import write_questions

DONE = {"answers.jsonl", ".answers.jsonl.run"}
"""What a finished run leaves."""


def noise_requests(folder: Path) -> Path:
    """Twelve rows about four pictures of noise; the file that they are in."""
    rows = write_questions(folder)
    asked = [{"id": n, "image": row["image"], "prompt": row["prompt"]} for n, row in enumerate(rows)]
    return write_rows(folder / "requests.jsonl", asked)


def write_rows(path: Path, rows: list[Any]) -> Path:
    """A row that is bytes goes in as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def without_cached(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a run finds in its cache depends on what it has asked before; nothing else does."""
    return [{**row, "usage": {**row["usage"], "cached_tokens": None}} if "usage" in row else row for row in rows]


def names(folder: Path) -> set[str]:
    """Of the files in a folder."""
    return {path.name for path in folder.iterdir() if path.is_file()}
