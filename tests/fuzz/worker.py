"""`python -m tests.fuzz.worker SURFACE SLOT ...`: the process that one surface is fed in, by one of two engines.

atheris chooses what to change by the branches that an input reached; `seeded` by the words that it was refused with.
Both change inputs with the surface's own mutator. Nothing that goes wrong is caught: it is told by the exit status, the
log (stderr) and the slot, which holds the input.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import importlib
import os
import re
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.slot import MOST_BYTES, Figures, Slot
from tests.fuzz.surface import Feed, Surface, corpus, fed, surface

ENGINES = ("atheris", "seeded")
ESCAPED, SLOW, SWOLLEN = 70, 71, 72
"""Exit statuses: something else than the project's own errors; over `LIMIT_S`; over the memory for one input."""
LIMIT_S = 1.0
"""Of processor time: other work on the machine is nobody's fault. Who watches looks at the clock."""
REPEATED_S = 0.02
"""An input that takes longer than any before it, and this, is fed twice more: garbage may have been collected."""
SPARE_BYTES = 2 * 2**30
"""What a worker may address beyond what it had when it began: an input that asks for more gets a MemoryError."""
INSTRUMENTED = ["hired_edge", "hired_export", "hired_runtime", "PIL", "jinja2", "h11", "starlette"]
_POOL, _POOL_BYTES = 400, 2**22
"""Inputs that are kept to be changed further, and their bytes together."""
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\([^)]*\)|[0-9.,]+|\S*[/\\]\S*")


class Worker:
    """Feeds a surface and keeps the figures."""

    def __init__(self, chosen: Surface, feed: Feed, slot: Slot, inputs: int) -> None:
        self._chosen, self._feed, self._slot, self._inputs = chosen, feed, slot, inputs
        self.figures = Figures(begun=1)
        self._begin = time.process_time_ns()

    def one(self, data: bytes) -> str | None:
        """Feeds an input; what it was refused with. Ends the process where something is wrong, and after the last."""
        figures, data = self.figures, bytes(data[:MOST_BYTES])
        self._slot.show(figures, data)
        before = _peak()
        try:
            begin = time.process_time_ns()
            refusal = fed(self._chosen, self._feed, data)
            spent = time.process_time_ns() - begin
            if spent > max(figures.slowest_ns, REPEATED_S * 1e9):
                spent = min(spent, self._timed(data), self._timed(data))
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException:
            traceback.print_exc()
            _leave(ESCAPED)
        figures.slowest_ns = max(figures.slowest_ns, spent)
        if spent > LIMIT_S * 1e9:
            print(f"an input took {spent / 1e9:.1f} s", file=sys.stderr)
            _leave(SLOW)
        peak = _peak()
        if peak > before + self._chosen.spend_mib * 2**20:
            print(f"an input took {(peak - before) / 2**20:.0f} MiB", file=sys.stderr)
            _leave(SWOLLEN)
        figures.inputs += 1
        figures.taken += refusal is None
        figures.spent_ns = time.process_time_ns() - self._begin
        if figures.inputs in (max(1, self._inputs // 10), self._inputs):
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # what glibc keeps of freed memory is no leak
            figures.memory, figures.peak = _resident(), peak
            figures.memory_early = figures.memory_early or figures.memory
        if figures.inputs == self._inputs:
            self._slot.show(figures, b"")
            _leave(0)
        return refusal

    def _timed(self, data: bytes) -> int:
        begin = time.process_time_ns()
        fed(self._chosen, self._feed, data)
        return time.process_time_ns() - begin


def seeded(worker: Worker, chosen: Surface, pool: list[bytes], seed: int) -> None:
    """Inputs that were refused in new words are changed further."""
    known, number, room = set[str | None](), 0, _POOL_BYTES
    good = [data for data in list(pool) if worker.one(data) is None]
    while True:
        random = Random(seed << 40 | number)
        number += 1
        data = chosen.mutated(random.choice(good if good and random.random() < 0.5 else pool), random, pool)
        words = _words(worker.one(data))
        if words not in known and len(pool) < _POOL and (room := room - len(data)) > 0:
            known.add(words)
            pool.append(data)


def with_atheris(worker: Worker, chosen: Surface, pool: list[bytes], seed: int) -> None:
    """libFuzzer's loop. Its own mutator has a say in a quarter of all inputs, and as many begin with a good one again:
    what has been changed many times is mostly refused at its first fault."""
    atheris = _atheris()

    def mutated(data: bytes, most: int, chance: int) -> bytes:
        random = Random(chance)
        if random.random() < 0.25:
            return atheris.Mutate(data, most)
        return chosen.mutated(random.choice(pool) if random.random() < 1 / 3 else data, random, pool)[:most]

    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    for number, data in enumerate(pool):
        (folder / f"{number:04d}").write_bytes(data)
    options = {
        "seed": seed % 2**32 or 1,  # 0 is chance
        "runs": -1,
        "max_len": 2**18,
        "len_control": 0,
        "timeout": 60,  # whoever watches is sooner
        "rss_limit_mb": (_resident() + SPARE_BYTES) // 2**20,
        "verbosity": 0,
        "artifact_prefix": f"{folder}-",
    }
    arguments = ["fuzz", *(f"-{name}={value}" for name, value in options.items()), str(folder)]

    def one(data: bytes) -> None:
        worker.one(data)

    atheris.Setup(arguments, one, custom_mutator=mutated)
    atheris.Fuzz()


def opened(name: str, folder: Path, engine: str) -> tuple[Surface, Feed]:
    """Imports and opens a surface, its code instrumented where the engine looks at it."""
    if engine == "seeded":
        chosen = surface(name)
        return chosen, chosen.opened(folder)
    with _atheris().instrument_imports(include=INSTRUMENTED):
        chosen = surface(name)
        return chosen, chosen.opened(folder)


def _atheris() -> Any:
    """The extra `fuzz`'s, which the development environment goes without."""
    return importlib.import_module("atheris")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("surface")
    parser.add_argument("slot", type=Path)
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=ENGINES, default="seeded")
    parser.add_argument("--input", type=Path, help="feed this file alone")
    args = parser.parse_args()
    faulthandler.enable()
    folder = Path.cwd() / "files"
    folder.mkdir()
    chosen, feed = opened(args.surface, folder, args.engine)
    pool = [*chosen.seeds().values(), *corpus(args.surface).values()]
    bound = _addressed() + SPARE_BYTES + chosen.spend_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if args.input is not None:
        worker = Worker(chosen, feed, Slot(args.slot), 1)
        worker.one(args.input.read_bytes())
    engines: dict[str, Callable[[Worker, Surface, list[bytes], int], None]] = {
        "atheris": with_atheris,
        "seeded": seeded,
    }
    engines[args.engine](Worker(chosen, feed, Slot(args.slot), args.inputs), chosen, pool, args.seed)


def _words(refusal: str | None) -> str | None:
    """A refusal without what differs between two of a kind."""
    return None if refusal is None else _VARYING.sub("#", refusal)[:100]


def _leave(status: int) -> None:
    sys.stderr.flush()
    os._exit(status)  # libFuzzer would take a plain exit for a finding; threads of a server may not end


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _addressed() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
