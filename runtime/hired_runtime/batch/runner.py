"""Runs a batch: what can be refused is refused first, then the rows that have no answer yet are asked."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hired_edge import __version__
from hired_edge.budget import parse_alpha, parse_budget
from hired_edge.bundle import read_manifest
from hired_edge.errors import InputError
from hired_edge.hashing import OnBytes
from hired_edge.limits import resolve_opening
from hired_edge.manifest import Manifest
from hired_runtime import backends
from hired_runtime import model as models
from hired_runtime.batch.answers_file import Answers
from hired_runtime.batch.asking import lines
from hired_runtime.batch.progress import Show
from hired_runtime.batch.requests_file import Requests
from hired_runtime.batch.together import together
from hired_runtime.evaluation.settings import Setting
from hired_runtime.request import Request
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted

MOST_ROWS = 8
"""At once, where nothing else is asked for."""


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Args:
        rows: of the requests.
        answers: of them, those that are answered.
        errors: those that are not.
        asked_now: rows that this run has asked, errors among them.
        seconds: from the first of those to the last.
        rows_per_second: None where none was asked.
    """

    rows: int
    answers: int
    errors: int
    asked_now: int
    seconds: float
    rows_per_second: float | None


def answer_file(
    bundle: str | os.PathLike[str],
    requests: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: Mapping[str, Any],
    *,
    batch: int | None = None,
    threads: int | None = None,
    backend: str | None = None,
    public_keys: Sequence[PublicKey] | None = None,
    restart: bool = False,
    show: Show = lambda done, total, errors: None,
    on_bytes: OnBytes | None = None,
) -> Summary:
    """Answers every row of a file of requests, and goes on from what an earlier call has answered.

    Args:
        bundle: its folder.
        requests: a file, see `requests_file`.
        output: where the answers go, see `answers_file`.
        options: of `Request`, for every row; `sampling` among them.
        batch: rows at once; None = as exported, at most 8.
        threads, backend: of the engine; see `hired_runtime.open`.
        public_keys: see there.
        restart: throw away what an earlier call has left.
        show: progress.
        on_bytes: progress of the bundle's verification.

    Raises:
        InputError: an option, a file of requests or a place that cannot be used, or answers of another run there;
            before the bundle is opened.
        LimitError: a budget, a batch or an answer over what was exported; before it is opened, too.
        BundleError: the bundle cannot be opened, or the engine fails. What was answered is kept.
        KeyboardInterrupt: with a line that says what was answered.
    """
    Request((), **options)
    backend = backends.choose(bundle, backend)
    manifest = read_manifest(Path(bundle), trusted(public_keys))
    rows_at_once = checked_rows(manifest, options, batch)
    with Requests(Path(requests)) as asked:
        if asked.is_file(Path(output)):
            raise InputError(f"-o {output}, the requests", expected="another file", fix="pass another -o")
        known = identity(manifest, asked, options)
        with Answers(Path(output), known, asked.count, restart=restart) as answers:
            if answers.finished:
                return Summary(asked.count, answers.held, answers.errors, 0, 0.0, None)
            model = models.open(
                bundle,
                visual_tokens=options["visual_tokens"],
                batch=rows_at_once,
                threads=threads,
                backend=backend,
                public_keys=public_keys,
                on_bytes=on_bytes,
            )
            try:
                answers.begin({**known, "engine": model.pipeline.backend.name})
                return _ask(model, asked, answers, options, show)
            except KeyboardInterrupt:
                kept = f"{answers.held} of {asked.count} rows are answered; the same command goes on from there"
                raise KeyboardInterrupt(kept) from None
            finally:
                model.close()


def _ask(model: models.Model, asked: Requests, answers: Answers, options: Mapping[str, Any], show: Show) -> Summary:
    before, started = answers.held, time.perf_counter()
    show(before, asked.count, 0)
    missing = (row for row in asked.rows() if answers.missing(row.number))
    for number, line in lines(model.pipeline, together(missing), options):
        answers.add(number, line)
        show(answers.held + answers.errors, asked.count, answers.errors)
    seconds = time.perf_counter() - started
    answers.finish()
    now = asked.count - before
    return Summary(asked.count, answers.held, answers.errors, now, round(seconds, 3), round(now / seconds, 3))


def checked_rows(manifest: Manifest, options: Mapping[str, Any], batch: int | None) -> int:
    """Rows at once, if the bundle can do what is asked for."""
    visual, rules = options["visual_tokens"], manifest.vision.tiling
    names = ("policy", "alpha", "newlines", "partitions", "positions")
    Setting(budget=str(visual or "100%"), **{name: options[name] for name in names}).check(manifest)
    limits = resolve_opening(
        manifest.limits,
        rules,
        visual=None if visual is None else parse_budget(visual),
        new_tokens=options["max_new_tokens"],
        batch=batch,
    )
    return min(MOST_ROWS, limits.batch) if batch is None else batch


def identity(manifest: Manifest, asked: Requests, options: Mapping[str, Any]) -> dict[str, Any]:
    """What answers depend on beside their rows; pictures are known by their paths. The engine is not loaded yet."""
    visual, sampling = options["visual_tokens"], options["sampling"]
    plain = {
        **{name: value for name, value in options.items() if name != "sampling"},
        "visual_tokens": None if visual is None else str(parse_budget(visual)),
        "alpha": str(parse_alpha(options["alpha"])),
    }
    return {
        "bundle": manifest.digest,
        "requests": asked.sha256,
        **plain,
        **asdict(sampling),
        "hired_edge": __version__,
        "engine": ...,
    }
