"""An input of several files as one: each begins with a line of its name. Changed is mostly one of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from tests.fuzz.mutators import raw
from tests.fuzz.surface import Mutator

_HEAD = re.compile(rb"(?:^|\n)%%%% ([A-Za-z0-9._-]{1,60})\n")


def joined(files: Mapping[str, bytes]) -> bytes:
    """The files as one input. A file may hold anything but such a line."""
    return b"\n".join(b"%%%% " + name.encode() + b"\n" + content for name, content in files.items())


def split(data: bytes) -> dict[str, bytes]:
    """The files of an input; what stands before the first name is none."""
    return dict(_split(data))


@functools.lru_cache(512)
def _split(data: bytes) -> dict[str, bytes]:
    pieces = _HEAD.split(data)
    return {name.decode(): content for name, content in zip(pieces[1::2], pieces[2::2], strict=True)}


def written(data: bytes, folder: Path, known: Sequence[str]) -> dict[str, bytes]:
    """Writes those of the `known` names to the folder and removes the others from it; gives them all."""
    files = split(data)
    for name in known:
        if name in files:
            (folder / name).write_bytes(files[name])
        else:
            (folder / name).unlink(missing_ok=True)
    return files


def of(by_name: Mapping[str, Mutator]) -> Mutator:
    """A mutator, each file by its own; a file without one stays as it is, but for the whole's bytes now and then."""

    def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
        files = split(data)
        chosen = [name for name in files if name in by_name]
        if not chosen or random.random() < 0.03:
            return raw.mutated(data, random, others)
        for name in random.sample(chosen, min(len(chosen), random.choice((1, 1, 1, 2)))):
            same = [files_of[name] for other in others if name in (files_of := _split(other))]
            if random.random() < 0.03:
                del files[name]
            elif same and random.random() < 0.05:
                files[name] = random.choice(same)
            else:
                files[name] = by_name[name](files[name], random, same)
        return joined(files)

    return mutated
