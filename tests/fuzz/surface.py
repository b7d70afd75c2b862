"""What can be fuzzed: a surface takes bytes to one of the project's own readers, as a stranger's file would come.

A surface is a module of `tests.fuzz.surfaces` with a `SURFACE`. Its modules are imported when it is opened, by whom it
is opened: an engine that looks at coverage has to be there before them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from hired_edge.errors import HiredEdgeError

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
MOST_MESSAGE = 4000
"""Characters of an error: a line for a person, even if it quotes what was found."""

Feed = Callable[[bytes], None]
"""Takes one input to the reader, and lets out whatever comes out."""
Mutator = Callable[[bytes, Random, Sequence[bytes]], bytes]
"""An input, what chance decides by, and other inputs to take parts of -> another input, most often nearly as good."""


@dataclass(frozen=True)
class Surface:
    """One kind of input.

    Args:
        what: the input and what reads it, for the table.
        opened: gives what is to be fed, made once; the folder is empty, and its own.
        seeds: good inputs, by name; also the parts that others are mended with.
        mutated: knows the input's form.
        errors: what may come out of it.
        spend_mib: by how much one input may raise the process's peak: what the project itself allows for it.
    """

    what: str
    opened: Callable[[Path], Feed]
    seeds: Callable[[], dict[str, bytes]]
    mutated: Mutator
    errors: Callable[[], tuple[type[Exception], ...]] = field(default=lambda: (HiredEdgeError,))
    spend_mib: int = 64


class WordyError(Exception):
    """An error of the project that is no line for a person."""


def names() -> list[str]:
    """Every surface's, in alphabetical order; none is imported."""
    folder = Path(__file__).parent / "surfaces"
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules([str(folder)]))


def surface(name: str) -> Surface:
    """Imports it: one of `names`, or any module that has a `SURFACE`, by its whole name."""
    return importlib.import_module(name if "." in name else f"tests.fuzz.surfaces.{name.replace('-', '_')}").SURFACE


def corpus(name: str) -> dict[str, bytes]:
    """The committed inputs: those that broke something, and some that did not, by their file's name."""
    folder = CORPUS / name
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def fed(chosen: Surface, feed: Feed, data: bytes) -> str | None:
    """What the project said where it refused the input, None where it took it.

    Raises:
        BaseException: whatever else comes out.
    """
    try:
        feed(data)
    except chosen.errors() as error:
        text = str(error)
        if len(text) > MOST_MESSAGE or len(text.splitlines()) != 1:
            raise WordyError(f"{len(text)} characters on {len(text.splitlines())} lines: {text[:200]!r}") from error
        return text
    return None
