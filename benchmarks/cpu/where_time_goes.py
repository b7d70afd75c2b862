"""Which operators a run of the language graph spends its time in, by ONNX Runtime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from hired_edge.bundle import Bundle
from hired_runtime.ort import OrtLanguage, session_options
from hired_runtime.ort_provider import CPU

TOP = 6
"""Operators that are named; the rest is "other"."""


def shares(
    bundle: Bundle, language: OrtLanguage, threads: int, runs: dict[str, Callable[[], object]]
) -> dict[str, dict[str, float]]:
    """Seconds by kind of operator, of each of `runs`, which call `language.step`.

    The language engine gets a session that records; it keeps its cache, and gets its own session back.
    """
    graph = bundle.path(bundle.manifest.language_graphs[0].file)
    own = language.session
    found = {}
    try:
        for name, run in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                options = session_options(threads)
                options.enable_profiling = True
                options.profile_file_prefix = str(Path(folder) / "profile")
                language.use(ort.InferenceSession(str(graph), options, providers=[CPU]))
                run()
                run()
                found[name] = _by_operator(Path(language.session.end_profiling()))
    finally:
        language.use(own)
    return found


def _by_operator(path: Path) -> dict[str, float]:
    """Of the second half of the calls of the graph: the first touch packed weights and start threads."""
    events = json.loads(path.read_text())
    calls = sorted(event["ts"] for event in events if event["name"] == "model_run")
    warm, seconds = calls[len(calls) // 2], Counter[str]()
    for event in events:
        operator = event.get("args", {}).get("op_name")
        if event["name"].endswith("_kernel_time") and operator is not None and event["ts"] >= warm:
            seconds[operator] += event["dur"] / 1e6
    named = dict(seconds.most_common(TOP))
    return {**named, "other": sum(seconds.values()) - sum(named.values())}
