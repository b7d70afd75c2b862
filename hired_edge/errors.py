"""The errors a user can meet: one line each, saying what was got, what was expected, what to do.

Only `hired_edge.cli.main` catches them (exit status 2). An `assert` is for our own invariants, never for input.
"""

from __future__ import annotations

from typing import Any


class HiredEdgeError(Exception):
    """Base of every error that a user's input can cause.

    Args:
        got: what was found, with names and numbers ("picture.jpg is empty (0 bytes)").
        expected: what would have been right ("a JPEG, PNG or WebP picture").
        fix: what to do, as an imperative ("pass another --image").
    """

    def __init__(self, got: str, *, expected: str, fix: str) -> None:
        self.got, self.expected, self.fix = got, expected, fix
        super().__init__(f"{got}; expected {expected}; {fix}")

    def __reduce__(self) -> tuple[Any, ...]:  # an exception is pickled by its one argument, which is the whole line
        return _rebuild, (type(self), self.got, self.expected, self.fix)


def _rebuild(cls: type[HiredEdgeError], got: str, expected: str, fix: str) -> HiredEdgeError:
    return cls(got, expected=expected, fix=fix)


class InputError(HiredEdgeError):
    """A picture, a prompt or an option that cannot be used."""


class LimitError(HiredEdgeError):
    """A request over a limit that the bundle was exported or opened with."""


class NoSelectionError(LimitError):
    """A budget that a policy cannot keep to for this picture: it decides its own number, or all rows come first."""


class BundleError(HiredEdgeError):
    """A bundle that is missing, corrupt, edited, or of another format version."""


class CheckpointError(HiredEdgeError):
    """A checkpoint that is incomplete, malformed, or of a family that is not supported."""


class ExportError(HiredEdgeError):
    """An export that could not finish: no room, or its parity check failed."""


class MissingExtraError(HiredEdgeError):
    """A command whose optional dependencies are not installed."""
