"""`python -m benchmarks.serving`: how `hired-edge serve` holds up under load on loopback (`--page`: docs/serving.md).

The server is a process of its own over the demonstration model; 1 to 16 clients, a thread each, ask one question after
the other and read the streamed answers. Two kinds of questions: `new`, about a picture that the server has not seen,
and `further`, one more about the client's own picture. Then two thousand mixed requests, and the server's memory. The
clients share the machine's cores with the server, so a board that serves others does better than this.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks import figures, serving_plot
from benchmarks.command import at_least_one, guarded
from demo.reports import table
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import questions
from hired_edge.errors import HiredEdgeError
from hired_runtime.profiling.machine import machine

ROOT = Path(__file__).resolve().parents[1]
BUNDLE, PAGE, PLOT = ROOT / "demo/bundle", ROOT / "docs/serving.md", ROOT / "docs/serving.png"
CLIENTS = (1, 2, 4, 8, 16)
KINDS = ("new", "further")
SEED, PICTURES = 4096, 160
"""More pictures than the server remembers; of a series that the model was not trained on."""
SETTLED = 0.1
"""Of the watched requests, after which what is allocated once is allocated."""


@dataclass(frozen=True)
class Load:
    """Milliseconds as clients saw them: to the first piece of text, and to the end."""

    kind: str
    clients: int
    requests: int
    per_s: float
    ttft_p50: float
    ttft_p95: float
    total_p50: float
    total_p95: float


@dataclass(frozen=True)
class Memory:
    """The server's resident bytes while requests are answered, one number every `every` requests."""

    requests: int
    every: int
    resident: tuple[int, ...]

    @property
    def growth(self) -> float:
        """Of the median of the last tenth against that of the first, once settled."""
        settled = self.resident[int(SETTLED * len(self.resident)) :]
        tenth = max(1, len(settled) // 10)
        return float(np.median(settled[-tenth:]) / np.median(settled[:tenth]) - 1)


class Asker:
    """Requests about the demo's scenes, by number."""

    def __init__(self) -> None:
        scenes = [compose(SEED, number) for number in range(PICTURES)]
        self._urls = ["data:image/jpeg;base64," + base64.b64encode(encode(each)).decode() for each in scenes]
        self._prompts = [[each.prompt for each in questions(scene)] for scene in scenes]

    def body(self, model: str, picture: int, number: int, budget: str) -> bytes:
        picture %= PICTURES
        prompt = self._prompts[picture][number % len(self._prompts[picture])]
        content = [
            {"type": "image_url", "image_url": {"url": self._urls[picture]}},
            {"type": "text", "text": prompt},
        ]
        asked = {"model": model, "messages": [{"role": "user", "content": content}], "stream": True}
        return json.dumps({**asked, "visual_tokens": budget}).encode()


@contextmanager
def served(rows: int, budget: str) -> Iterator[tuple[str, int]]:
    """A server's address and process id."""
    command = [sys.executable, "-m", "hired_edge", "serve", str(BUNDLE), "--port", "0", "--batch", str(rows)]
    process = subprocess.Popen(
        [*command, "--visual-tokens", budget, "--queue", "64"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+?:\d+", line)
        if found is None:
            raise HiredEdgeError("a server that did not start", expected="an address", fix="run hired-edge serve")
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait(60)


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[float, float]:
    """Milliseconds to the first piece of text, and to the end.

    Raises:
        HiredEdgeError: the server refuses.
    """
    start, first = time.perf_counter(), None
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise HiredEdgeError(f"status {response.status}", expected="200", fix=response.read(300).decode())
    for line in response:
        if first is None and b'"content":"' in line.replace(b": ", b":") and b'"content":""' not in line:
            first = time.perf_counter()
    end = time.perf_counter()
    return 1e3 * ((first or end) - start), 1e3 * (end - start)


def load(address: str, asker: Asker, kind: str, clients: int, requests: int, budget: str) -> Load:
    """`requests` of them, by as many clients at once."""
    where, model, fresh = urlsplit(address), BUNDLE.name, count(17 * clients)
    taken: list[tuple[float, float]] = []
    errors: list[Exception] = []
    left = iter(range(requests))
    lock = threading.Lock()

    def client(own: int) -> None:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
        try:
            while not errors:
                with lock:
                    number = next(left, None)
                    picture = next(fresh) if kind == "new" else own
                if number is None:
                    return
                times = ask(connection, asker.body(model, picture, number, budget))
                with lock:
                    taken.append(times)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(own,)) for own in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - start
    if errors:
        raise errors[0]
    ttft, total = np.array(taken).T
    spread = [float(np.percentile(each, q)) for each in (ttft, total) for q in (50, 95)]
    return Load(kind, clients, requests, requests / spent, *spread)


def watch(address: str, pid: int, asker: Asker, requests: int, budget: str, every: int = 20) -> Memory:
    """Mixed requests of four clients, and what the server holds."""
    process, resident = psutil.Process(pid), []
    for done in tqdm(range(0, requests, every), desc="memory", unit="round", disable=None):
        load(address, asker, KINDS[done // every % 2], 4, min(every, requests - done), budget)
        resident.append(process.memory_info().rss)
    return Memory(requests, every, tuple(resident))


def measure(requests: int, watched: int, rows: int, budget: str) -> dict[str, Any]:
    asker, loads = Asker(), []
    with served(rows, budget) as (address, pid):
        load(address, asker, "new", 4, 40, budget)  # not counted
        for kind in KINDS:
            for clients in tqdm(CLIENTS, desc=kind, unit="load", disable=None):
                loads.append(load(address, asker, kind, clients, requests, budget))
        memory = watch(address, pid, asker, watched, budget)
    found = machine()
    return {
        "machine": f"{found.processor}, {found.cores} cores",
        "budget": budget,
        "rows": rows,
        "loads": [asdict(each) for each in loads],
        "memory": {**asdict(memory), "growth": memory.growth},
    }


def page(found: dict[str, Any], command: Sequence[str]) -> str:
    """What stands in docs/serving.md."""
    heads = ["question", "clients", "requests/s", "TTFT p50, ms", "TTFT p95", "total p50, ms", "total p95"]
    rows = [
        [
            each["kind"],
            str(each["clients"]),
            f"{each['per_s']:.0f}",
            *(f"{each[name]:.0f}" for name in ("ttft_p50", "ttft_p95", "total_p50", "total_p95")),
        ]
        for each in found["loads"]
    ]
    memory = found["memory"]
    mib = [each / 2**20 for each in memory["resident"]]
    return (
        f"\n{found['machine']}; the demonstration model at {found['budget']}, {found['rows']} rows; "
        f"{found['loads'][0]['requests']} requests a line. By `{' '.join(command)}`.\n\n"
        f"![Questions a second and time to first token, against clients](serving.png)\n\n"
        f"{table(heads, rows)}\n"
        f"Memory over {memory['requests']} further requests: {mib[int(SETTLED * len(mib))]:.1f} MiB resident once "
        f"settled, {mib[-1]:.1f} at the end, at most {max(mib):.1f}; growth {100 * memory['growth']:.2f} %.\n\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--requests", type=int, default=400, metavar="N", help="of each load (default: 400)")
    parser.add_argument("--watched", type=int, default=2000, metavar="N", help="while memory is watched (2000)")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="answers at once (default: 4)")
    parser.add_argument("--visual-tokens", default="20%", metavar="B|P%", help="(default: 20%%)")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/serving.md")
    args = parser.parse_args()
    for name in ("requests", "watched", "rows"):
        at_least_one(f"--{name}", getattr(args, name))
    found = measure(args.requests, args.watched, args.rows, args.visual_tokens)
    text = page(found, ["python -m benchmarks.serving", *sys.argv[1:]])
    print(text)
    if args.page:
        figures.put(PAGE, "load", text)
        serving_plot.draw(found["loads"], PLOT)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("python -m benchmarks.serving", main, "nothing was written"))
