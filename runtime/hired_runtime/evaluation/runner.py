"""Runs an evaluation: which questions are still to be asked, picture by picture, and what is kept on the way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from hired_edge import __version__
from hired_edge.budget import Budget
from hired_edge.bundle import read_manifest
from hired_edge.errors import CheckpointError, HiredEdgeError, InputError, LimitError, NoSelectionError
from hired_edge.hashing import OnBytes
from hired_edge.limits import check_request, resolve_opening
from hired_edge.manifest import Manifest
from hired_edge.questions import BadRow, Question, check_any_good, read_dataset
from hired_runtime import model as models
from hired_runtime.evaluation.answering import Job, RowAnswer, answer
from hired_runtime.evaluation.intervals import RESAMPLES
from hired_runtime.evaluation.metrics import check_scorable, metric_named
from hired_runtime.evaluation.record import Identity, Record
from hired_runtime.evaluation.result import Evaluation
from hired_runtime.evaluation.settings import Key, Setting
from hired_runtime.prompt import EncodedPrompt, question
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted

BATCH = 8
OnPicture = Callable[[int, int, int], None]
"""Called with pictures done, pictures in all, and answers made since the last call."""


def evaluate(
    model: models.Model | str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    settings: Sequence[Setting],
    *,
    metric: str = "exact",
    max_new_tokens: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    backend: str | None = None,
    public_keys: Sequence[PublicKey] | None = None,
    report: str | os.PathLike[str] | None = None,
    restart: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_picture: OnPicture | None = None,
    on_bytes: OnBytes | None = None,
) -> Evaluation:
    """Answers a data set's questions at every setting, greedily.

    The vision tower runs once a picture. Settings that come to the same (100 % of any policy) are answered once.

    Args:
        model: an opened model, or a bundle's folder, which is opened at the largest of the budgets.
        dataset: a folder with `questions.jsonl`.
        settings: at least one.
        metric: a name in `METRICS`.
        max_new_tokens: of an answer; None = as exported.
        batch: rows at once; None = up to 8, as far as the bundle allows.
        threads, backend, public_keys: where it is opened here; see `hired_runtime.open`.
        report: a folder whose `answers.jsonl` keeps what is answered; a later call goes on from it. None = nothing is
            written.
        restart: do not go on: throw away what that file holds, and an earlier report in `report`.
        resamples, seed: of the bootstrap.
        on_picture: progress, see `OnPicture`.
        on_bytes: progress of the bundle's verification.

    Raises:
        InputError: an option or a data set that cannot be used, or answers of another run in `report`.
        LimitError: a budget, a batch or an answer over what was exported or opened; before any question is asked.
        BundleError: the bundle cannot be opened.
    """
    started = time.perf_counter()
    metric_named(metric)
    if not settings:
        raise InputError("no setting to evaluate", expected="at least one", fix="pass a policy and a budget")
    rows = read_dataset(Path(dataset))
    check_scorable(metric, rows.questions)
    opened = _opened(model, settings, max_new_tokens, batch, threads, backend, public_keys, on_bytes)
    pipeline = opened.pipeline
    new_tokens = opened.limits.new_tokens if max_new_tokens is None else max_new_tokens
    size = min(opened.limits.batch, BATCH if batch is None else batch)
    prompts, bad = _encode(opened, rows.questions, new_tokens)
    keys = list(dict.fromkeys(setting.key for setting in settings))
    largest = _largest(settings, pipeline.manifest)
    pictures: dict[Path, list[Question]] = {}
    for each in rows.questions:
        if each.line in prompts:
            pictures.setdefault(each.picture, []).append(each)
    identity = Identity(
        bundle=pipeline.manifest.digest,
        questions=rows.sha256,
        max_new_tokens=new_tokens,
        engine=pipeline.backend.name,
        hired_edge=__version__,
    )
    answered: dict[tuple[int, Key], tuple[str, int]] = {}
    made = 0
    with nullcontext() if report is None else Record(Path(report), identity, restart=restart) as record:
        if record is not None:
            answered.update(record.answers)
        for done, (picture, questions) in enumerate(pictures.items(), 1):
            jobs = [
                Job(q.line, prompts[q.line], key) for q in questions for key in keys if (q.line, key) not in answered
            ]
            answers: list[RowAnswer] = []
            if jobs:
                try:
                    data = picture.read_bytes()
                    answers = answer(pipeline, data, jobs, largest, new_tokens=new_tokens, batch=size)
                except NoSelectionError as error:  # leaving the picture out would favour the other policies' pictures
                    got = f"{questions[0].image}: {error.got}"
                    raise LimitError(got, expected=error.expected, fix=error.fix) from None
                except (InputError, LimitError) as error:
                    bad += [BadRow(each.line, f"{each.image}: {_reason(error)}") for each in questions]
                except OSError as error:  # pipeline's errors are its own: this is the picture's file
                    bad += [BadRow(each.line, f"{each.image} cannot be read ({error.strerror})") for each in questions]
            if record is not None and answers:
                record.add((each.job.line, each.job.key, each.text, each.visual_tokens) for each in answers)
            answered.update({(each.job.line, each.job.key): (each.text, each.visual_tokens) for each in answers})
            made += len(answers)
            if on_picture is not None:
                on_picture(done, len(pictures), len(answers))
    bad = sorted([*rows.bad_rows, *bad])
    refused = {row.line for row in bad}
    good = [each for each in rows.questions if each.line not in refused]
    check_any_good(good, bad)
    facts = {
        "bundle": pipeline.bundle.root.resolve().name,
        "manifest_digest": pipeline.manifest.digest,
        "dataset_sha256": rows.sha256,
        "questions": len(good),
        "pictures": len({each.picture for each in good}),
        "answers": len(good) * len(keys),
        "answers_made_now": made,
        "metric": metric,
        "max_new_tokens": new_tokens,
        "resamples": resamples,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 3),
        "engine": pipeline.backend.name,
        "hired_edge": __version__,
    }
    return Evaluation(
        settings=list(settings),
        questions=good,
        bad_rows=bad,
        texts={key: [answered[each.line, key][0] for each in good] for key in keys},
        visual_tokens={key: [answered[each.line, key][1] for each in good] for key in keys},
        positions={setting.budget: setting.key.max_tokens(pipeline.manifest.vision.tiling) for setting in settings},
        metric=metric,
        facts=facts,
        resamples=resamples,
        seed=seed,
    )


def _largest(settings: Sequence[Setting], manifest: Manifest) -> Budget:
    """The budget of the setting that takes most of the largest picture; in tokens where it is of the base picture."""
    rules = manifest.vision.tiling
    key = max((setting.key for setting in settings), key=lambda key: key.max_tokens(rules))
    return key.parsed_budget if key.partitions == "all" else Budget(absolute=key.max_tokens(rules))


def _opened(
    model: models.Model | str | os.PathLike[str],
    settings: Sequence[Setting],
    new_tokens: int | None,
    batch: int | None,
    threads: int | None,
    backend: str | None,
    public_keys: Sequence[PublicKey] | None,
    on_bytes: OnBytes | None,
) -> models.Model:
    """The model, opened for the largest budget if it is not; everything that can be refused is refused first."""
    given = isinstance(model, models.Model)
    manifest = model.pipeline.manifest if given else read_manifest(Path(model), trusted(public_keys))
    limits = model.limits if given else manifest.limits
    largest, rules = _largest(settings, manifest), manifest.vision.tiling
    for setting in settings:
        setting.check(manifest)
    for name, value in (("max_new_tokens", new_tokens), ("batch", batch)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}", expected="1 or more", fix=f"pass another {name}")
    # An exported limit or an opened one, the check is the same.
    opening = resolve_opening(limits, rules, visual=largest, new_tokens=new_tokens, batch=batch, images=1)
    if given:
        return model
    rows = min(BATCH, opening.batch) if batch is None else batch
    return models.open(
        model,
        visual_tokens=largest,
        batch=rows,
        images=1,
        threads=threads,
        backend=backend,
        public_keys=public_keys,
        on_bytes=on_bytes,
    )


def _encode(
    model: models.Model, questions: Sequence[Question], new_tokens: int
) -> tuple[dict[int, EncodedPrompt], list[BadRow]]:
    """Every question's prompt by its line, and the questions that the model refuses."""
    prompts: dict[int, EncodedPrompt] = {}
    bad = []
    for each in questions:
        try:
            prompt = model.pipeline.prompt.render(question(each.prompt), pictures=1)
            check_request(model.limits, visual=0, text=len(prompt.ids), new=new_tokens)
            prompts[each.line] = prompt
        except (InputError, LimitError, CheckpointError) as error:
            bad.append(BadRow(each.line, _reason(error)))
    return prompts, bad


def _reason(error: HiredEdgeError) -> str:
    """What a report says: without what to do, which is meant for one request."""
    return f"{error.got}, expected {error.expected}"
