"""The errors a user can meet: one line each, saying what was got, what was expected, what to do.

Only `hired_edge.cli.main` catches them (exit status 2). An `assert` is for our own invariants, never for input.
"""

from __future__ import annotations

from typing import Any

_LONGEST = 1000
"""Characters of each of the three. What is cut is the middle: a path's end says which file it was."""


class HiredEdgeError(Exception):
    """Base of every error that a user's input can cause.

    Args:
        got: what was found, with names and numbers ("picture.jpg is empty (0 bytes)").
        expected: what would have been right ("a JPEG, PNG or WebP picture").
        fix: what to do, as an imperative ("pass another --image").

    Whatever a file held that is quoted in them, they are one line that a terminal shows as it is, and not a long one.
    """

    def __init__(self, got: str, *, expected: str, fix: str) -> None:
        self.got, self.expected, self.fix = map(_line, (got, expected, fix))
        super().__init__(f"{self.got}; expected {self.expected}; {self.fix}")

    def __reduce__(self) -> tuple[Any, ...]:  # an exception is pickled by its one argument, which is the whole line
        return _rebuild, (type(self), self.got, self.expected, self.fix)


def _line(text: str) -> str:
    text = " ".join(text.splitlines())
    if not text.isprintable():  # a control sequence, or half a character
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[5 - _LONGEST // 2 :]}"


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


class NumericalError(BundleError):
    """An engine that gave a NaN or an infinity: a broken one, or fp16 that overflows. Nothing is answered from it."""


class OutOfMemoryError(BundleError):
    """Less memory than an opening of a bundle, or a request, takes."""


class CheckpointError(HiredEdgeError):
    """A checkpoint that is incomplete, malformed, or of a family that is not supported."""


class ExportError(HiredEdgeError):
    """An export that could not finish: no room, or its parity check failed."""


class MissingExtraError(HiredEdgeError):
    """A command whose optional dependencies are not installed."""
