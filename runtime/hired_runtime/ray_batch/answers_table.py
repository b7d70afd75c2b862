"""Answers as a table of Arrow, which is what a part of the output is: a row each, in the order of the requests.

Columns: `row` (its number, from 1), `id`, `text` or else `error`, `finish_reason`, and the counts of `usage`. An error
row has nulls for the rest. `id` is an integer where every request's is one of 64 bits, else a string.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "visual_tokens", "cached_tokens")

Line = Mapping[str, Any]
"""A row as `hired-edge batch` writes it in JSON: {"id", "text", "finish_reason", "usage"} or {"id", "error"}."""


def schema(integers: bool) -> pyarrow.Schema:
    """Of every part. `integers`: whether ids are integers of 64 bits."""
    import pyarrow

    integer, text = pyarrow.int64(), pyarrow.string()
    fields = [
        pyarrow.field("row", integer, nullable=False),
        pyarrow.field("id", integer if integers else text),
        *(pyarrow.field(name, text) for name in ("text", "error", "finish_reason")),
        *(pyarrow.field(name, integer) for name in COUNTS),
    ]
    return pyarrow.schema(fields)


def table_of(lines: Mapping[int, Line], integers: bool) -> pyarrow.Table:
    """Lines by their row's number -> a table, sorted by it."""
    import pyarrow

    rows = []
    for number in sorted(lines):
        line = lines[number]
        row_id = line["id"]
        plain = {"row": number, "id": row_id if integers or row_id is None else str(row_id)}
        usage = line.get("usage", {})
        plain |= {name: line.get(name) for name in ("text", "error", "finish_reason")}
        rows.append(plain | {name: usage.get(name) for name in COUNTS})
    return pyarrow.Table.from_pylist(rows, schema(integers))


def answered_lines(table: pyarrow.Table) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table that are no errors, as lines again. An id that became a string stays one."""
    for row in table.to_pylist():
        if row["error"] is None:
            usage = {name: row[name] for name in COUNTS}
            yield (
                row["row"],
                {
                    "id": row["id"],
                    "text": row["text"],
                    "finish_reason": row["finish_reason"],
                    "usage": usage,
                },
            )
