"""Runs exports as forks of one process that has imported torch and traced the graphs, which takes most of a minute.

What is skipped writes nothing. The parity check's process is a fork too, where the command starts one afresh. Lines of
JSON come in: {folder, moment, argv, environment, output, errors}, where the third word is OUT; each is answered by
the process's number and, once it has ended, by its status. A command is run in this process before its first fork.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import traceback
from typing import Any

from tests.crashes import runner


def prepare() -> None:
    """Imports, and graphs that are traced once: a fork takes the one that was kept, and may change it as it likes."""
    from hired_export import exporter, graphs, parity  # noqa: F401

    here = os.getpid()

    def once(trace: Any) -> Any:
        kept: dict[Any, Any] = {}

        def traced(*shape: Any) -> Any:
            if os.getpid() != here:
                return kept[shape]
            if shape not in kept:
                kept[shape] = trace(*shape)
            return trace(*shape)  # another one, since an export changes it

        return traced

    exporter.language_graph = once(graphs.language_graph)
    exporter.vision_graph = once(graphs.vision_graph)
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork


def rehearse(argv: list[str]) -> None:
    """Runs an export here, so that its graphs are traced."""
    from hired_edge.cli import main

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        assert main([*argv[:2], f"{folder}/out", *argv[3:]]) == 0


def serve(tell: int) -> None:
    rehearsed = []
    for line in sys.stdin:
        asked = json.loads(line)
        options = asked["argv"][3:]
        if options not in rehearsed:
            rehearse(asked["argv"])
            rehearsed.append(options)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            status = 1
            try:
                for path, handle in ((asked["output"], 1), (asked["errors"], 2)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), handle)
                os.environ.update(asked["environment"])
                status = runner.run(asked["folder"], tell, asked["moment"], asked["argv"])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(json.dumps(pid), flush=True)
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)


if __name__ == "__main__":
    prepare()
    serve(int(sys.argv[1]))
