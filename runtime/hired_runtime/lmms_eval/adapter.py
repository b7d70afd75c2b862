"""Questions of a benchmark -> answers of a bundle, in the order asked. Knows no lmms-eval: `plugin` speaks to it.

Questions that follow each other about the same picture share one run of the vision tower, and are answered a batch at a
time, as `hired-edge eval` answers them. Data sets keep a picture's questions together, so nothing is sorted: only one
picture is in memory, and each is decoded once.

A benchmark must not lose rows in silence. Questions over the bundle's text limit are found before the first one is
asked, and refused together, with the number that the bundle should be exported with; a picture that cannot be used ends
the run with its document's name. `bad_rows=empty` answers such rows with the empty string, which every benchmark counts
as wrong, and says at the end how many there were and the first of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image

from hired_edge.errors import CheckpointError, HiredEdgeError, InputError, LimitError
from hired_runtime import model as models
from hired_runtime.evaluation.answering import Job, answer
from hired_runtime.evaluation.settings import Setting
from hired_runtime.lmms_eval.answer_options import AnswerOptions
from hired_runtime.prompt import question
from hired_runtime.request import Request
from hired_runtime.text import StopStrings

BAD_ROWS = ("error", "empty")
_SHOWN_BAD_ROWS = 10
_BAD = (InputError, LimitError, CheckpointError)
"""What one question may cause; anything else is the bundle's fault or ours, and ends the run."""

#: Fields of a request that the questions themselves, or other arguments, fill.
_NOT_OPTIONS = ("messages", "images", "max_new_tokens", "sampling", "stop")
#: Request options that answering a batch of rows knows beside the budget; with another one, each is asked alone.
_SETTING = tuple(each.name for each in dataclasses.fields(Setting) if each.name != "budget")


@dataclass(frozen=True)
class Query:
    """One question.

    Args:
        name: of its document, for messages ("pope/test/17").
        text: the question, as the task words it.
        pictures: gives its pictures (PIL); called once, when it is its turn.
        options: how it is to be answered.
    """

    name: str
    text: str
    pictures: Callable[[], Sequence[Any]]
    options: AnswerOptions


class Adapter:
    """An opened bundle that answers a benchmark's questions.

    Args:
        bundle: its folder.
        batch: questions about one picture at once, at most what was exported.
        threads, backend: see `hired_runtime.open`.
        images: pictures of a question, which a percentage is multiplied by and the cache is sized for.
        max_new_tokens: of an answer, at most, whatever a task asks; None = what was exported. A task that asks for more
            gets this many, which is said once.
        bad_rows: "error" or "empty", see above.
        say: takes what a person should know.
        options: of every `Request`: visual_tokens, policy, alpha, newlines, positions, ...; None = its own default.
            Without visual_tokens, the largest budget exported.

    Raises:
        InputError: an argument that is unknown, or a value that is none.
        LimitError: more than was exported.
        BundleError: the bundle cannot be opened.
    """

    def __init__(
        self,
        bundle: object,
        *,
        batch: object = 1,
        threads: object = None,
        backend: str | None = None,
        images: object = 1,
        max_new_tokens: object = None,
        bad_rows: str = "error",
        say: Callable[[str], None] = print,
        **options: Any,
    ) -> None:
        if bundle is None or bundle == "":
            raise InputError("no bundle", expected="a bundle's folder", fix="pass bundle=FOLDER in --model_args")
        if bad_rows not in BAD_ROWS:
            raise InputError(f"bad_rows={bad_rows!r}", expected=" or ".join(BAD_ROWS), fix="pass another bad_rows")
        known = [each.name for each in dataclasses.fields(Request) if each.name not in _NOT_OPTIONS]
        for name in options:
            if name not in known:
                own = ("bundle", "threads", "backend", "images", "max_new_tokens", "bad_rows")
                raise InputError(
                    f"{name}= in --model_args", expected=f"only {', '.join((*own, *known))}", fix="leave it out"
                )
        self._options = {name: value for name, value in options.items() if value is not None}
        request = Request(question(""), **self._options)  # refuses what is no budget, policy, ...
        rows, most = _count("--batch_size ", batch), _count("max_new_tokens=", max_new_tokens)
        pictures, cores = _count("images=", images), _count("threads=", threads)
        self.model = models.open(
            str(bundle),
            visual_tokens=request.budget,
            batch=rows or 1,
            images=pictures,
            threads=cores,
            backend=backend,
        )
        limits = self.model.limits
        if most is not None and most > limits.new_tokens:
            self.close()
            raise LimitError(
                f"max_new_tokens={most}",
                expected=f"at most {limits.new_tokens}, which the bundle was exported with",
                fix="ask for fewer, or export again with a larger --max-new-tokens",
            )
        (budget,) = limits.budgets  # an opening has one
        setting = Setting(budget=budget, **{name: getattr(request, name) for name in _SETTING})
        try:
            setting.check(self.model.pipeline.manifest)
        except InputError:
            self.close()
            raise
        self._key = setting.key
        self._most, self._empty, self._say = most or limits.new_tokens, bad_rows == "empty", say
        self._capped = False
        self._bad: dict[int, str] = {}

    def close(self) -> None:
        """Gives back what the engines hold."""
        self.model.close()

    def answers(self, queries: Sequence[Query], on_answers: Callable[[int], object] = lambda count: None) -> list[str]:
        """Answers questions; the i-th text answers the i-th question.

        Args:
            queries: in any order; only neighbours share a picture's features.
            on_answers: progress: called with answers made since the last call.

        Raises:
            InputError, LimitError, CheckpointError: a question that cannot be asked, by its document's name.
            BundleError: the engine fails.
        """
        self._bad = {}
        self._say_capped(queries)
        self._check_lengths(queries)
        on_answers(len(self._bad))
        texts = [""] * len(queries)
        for run, pictures in self._runs(queries):
            try:
                made = self._answer([query for _, query in run], pictures)
            except _BAD as error:
                for at, query in run:
                    self._refuse(at, query, error)
            else:
                for (at, _), text in zip(run, made, strict=True):
                    texts[at] = text
            on_answers(len(run))
        if self._bad:
            shown = "; ".join(islice(self._bad.values(), _SHOWN_BAD_ROWS))
            self._say(f"{len(self._bad)} of {len(queries)} questions got the empty answer (bad_rows=empty): {shown}")
        return texts

    def _runs(self, queries: Sequence[Query]) -> Iterator[tuple[list[tuple[int, Query]], list[Any]]]:
        """Questions with their places, neighbours about the same picture together, and their pictures."""
        run: list[tuple[int, Query]] = []
        shared: list[Any] = []
        for at, query in enumerate(queries):
            if at in self._bad:
                continue
            pictures = list(query.pictures())
            alike = self._in_batches(query.options, pictures) and run and query.options == run[0][1].options
            if run and not (alike and pictures == shared):
                yield run, shared
                run = []
            run.append((at, query))
            shared = pictures
        if run:
            yield run, shared

    def _in_batches(self, options: AnswerOptions, pictures: Sequence[Any]) -> bool:
        """Whether `hired_runtime.evaluation` can answer it; it does so greedily, about one picture."""
        return options.greedy and len(pictures) == 1 and set(self._options) <= {"visual_tokens", *_SETTING}

    def _answer(self, queries: Sequence[Query], pictures: Sequence[Any]) -> list[str]:
        """The answers to questions about the same pictures, asked with the same options."""
        for each in pictures:
            if not isinstance(each, Image.Image):
                raise InputError(
                    f"a visual of type {type(each).__name__}",
                    expected="pictures (PIL)",
                    fix="choose tasks about pictures: a bundle takes no video and no sound",
                )
        options = queries[0].options
        new_tokens = min(self._most, options.max_new_tokens or self._most)
        if not self._in_batches(options, pictures):
            (query,) = queries
            given = {"max_new_tokens": new_tokens, "sampling": options.sampling, "stop": options.stop}
            return [self.model.ask(query.text, pictures, **given, **self._options).text]
        pipeline, key = self.model.pipeline, self._key
        prompts = [pipeline.prompt.render(question(query.text), pictures=1) for query in queries]
        jobs = [Job(place, prompt, key) for place, prompt in enumerate(prompts)]
        batch = self.model.limits.batch
        made = answer(pipeline, pictures[0], jobs, key.parsed_budget, new_tokens=new_tokens, batch=batch)
        return [_until(options.stop, each.text) for each in made]

    def _check_lengths(self, queries: Sequence[Query]) -> None:
        """Finds the questions that the bundle has no room for, before any is asked. Their pictures, not yet looked at,
        are counted as one: a template's text around several is checked when it is their turn."""
        most = self.model.limits.text_tokens
        longest, name = 0, ""
        for at, query in enumerate(queries):
            try:
                length = len(self.model.pipeline.prompt.render(question(query.text), pictures=1).ids)
            except _BAD as error:
                self._refuse(at, query, error)
                continue
            if length > most:
                self._bad[at] = f"{query.name}: {length} text tokens, at most {most}"
            if length > longest:
                longest, name = length, query.name
        if longest > most and not self._empty:
            raise LimitError(
                f"{len(self._bad)} of {len(queries)} questions are too long: up to {longest} text tokens ({name})",
                expected=f"at most {most}, which the bundle was exported with; nothing was asked",
                fix=f"export again with --max-text-tokens {longest}, or pass bad_rows=empty to count them as wrong",
            )

    def _refuse(self, at: int, query: Query, error: HiredEdgeError) -> None:
        """Notes a bad row, or ends the run with its name.

        Raises:
            HiredEdgeError: of the same kind, where bad_rows is "error".
        """
        if not self._empty:
            fix = f"{error.fix}, or pass bad_rows=empty to count such questions as wrong"
            raise type(error)(f"{query.name}: {error.got}", expected=error.expected, fix=fix) from error
        self._bad[at] = f"{query.name}: {error.got}, expected {error.expected}"

    def _say_capped(self, queries: Sequence[Query]) -> None:
        asked = max((query.options.max_new_tokens or 0 for query in queries), default=0)
        if asked > self._most and not self._capped:
            self._capped = True
            self._say(f"tasks ask for up to {asked} new tokens: answers end at {self._most}, as the bundle was opened")


def _until(stop: Sequence[str], text: str) -> str:
    strings = StopStrings(stop)
    return strings.push(text) + strings.flush()


def _count(name: str, value: object) -> int | None:
    """A whole number from a command line; None where none was given."""
    if value is None:
        return None
    try:
        count = int(str(value))
    except ValueError:
        count = 0
    if count < 1:
        raise InputError(
            f"{name}{value}", expected="a whole number, 1 or more", fix=f"pass another {name.rstrip('= ')}"
        )
    return count
