"""`requests.jsonl` of `hired-edge batch`."""

from __future__ import annotations

import json
from pathlib import Path

from hired_runtime.batch.requests_file import Requests
from tests.fuzz.mutators import json_text
from tests.fuzz.surface import Feed, Surface


def seeds() -> dict[str, bytes]:
    rows = [
        {"id": "a1", "image": "pictures/table.jpg", "prompt": "What is on the table?"},
        {"id": 2, "image": ["a.png", "b.png"], "prompt": "Which is larger?"},
        {"id": "c", "prompt": "No picture."},
        {"id": "a1", "image": None, "prompt": "The same id."},
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    return {"rows": text.encode(), "windows": ("\ufeff" + text.replace("\n", "\r\n")).encode(), "one": b'{"id": 1}\n'}


def opened(folder: Path) -> Feed:
    path = folder / "requests.jsonl"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with Requests(path) as requests:
            rows = list(requests.rows())
            assert len(rows) == requests.count
            assert [row.number for row in rows] == list(range(1, len(rows) + 1))

    return feed


SURFACE = Surface("requests.jsonl of `batch`", opened, seeds, json_text.lines)
