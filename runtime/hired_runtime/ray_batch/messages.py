"""What the driver and the workers of a batch tell each other, as JSON. Knows neither Ray nor models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from hired_edge import errors
from hired_edge.errors import BundleError, HiredEdgeError
from hired_runtime.ray_batch.parts import Part


class Unit(NamedTuple):
    """What a worker is given at a time.

    Args:
        part: of the requests.
        rows: the numbers of those that are asked; None = all.
    """

    part: Part
    rows: list[int] | None

    def encoded(self) -> str:
        return json.dumps([self.part, self.rows])

    @classmethod
    def decoded(cls, text: str) -> Unit:
        (number, first, count, place, digest, refused), rows = json.loads(text)
        return cls(Part(number, first, count, place, digest, tuple((row, why) for row, why in refused)), rows)


class Said(NamedTuple):
    """What a worker says of a unit, several times where it takes long. Of a single row, that it begins, before all.

    Args:
        part: its number.
        engine: that answers.
        alone: the row's number where the unit is a single one.
        lines: rows that are done: number, and line of the output.
        failed: why the engine has failed; rows that were not said yet are lost, and the worker's process will end.
        refused: why no row can be asked on that machine.
    """

    part: int
    engine: str
    alone: int | None = None
    lines: Sequence[tuple[int, dict[str, Any]]] = ()
    failed: HiredEdgeError | None = None
    refused: HiredEdgeError | None = None

    def encoded(self) -> bytes:
        failed, refused = (None if each is None else _packed(each) for each in (self.failed, self.refused))
        return json.dumps([self.part, self.engine, self.alone, self.lines, failed, refused]).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Said:
        part, engine, alone, lines, *packed = json.loads(data)
        failed, refused = (None if each is None else _unpacked(*each) for each in packed)
        return cls(part, engine, alone, [(row, line) for row, line in lines], failed, refused)


def _packed(error: HiredEdgeError) -> list[str]:
    return [type(error).__name__, error.got, error.expected, error.fix]


def _unpacked(name: str, got: str, expected: str, fix: str) -> HiredEdgeError:
    kind = getattr(errors, name, BundleError)
    return kind(got, expected=expected, fix=fix)
