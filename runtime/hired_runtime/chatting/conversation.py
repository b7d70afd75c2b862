"""What is talked about and what was said: pictures, a budget, exchanges. Knows no terminal.

An exchange counts once its answer is whole: a question that fails or is broken off leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from hired_edge.errors import LimitError
from hired_edge.limits import check_request
from hired_edge.tiling import tile
from hired_runtime.model import Model
from hired_runtime.pictures import KnownPicture, load_picture, read_picture
from hired_runtime.prompt import question
from hired_runtime.request import Answer, Request


class Picture(NamedTuple):
    """A picture that can be read; `size` is (height, width), px."""

    known: KnownPicture
    size: tuple[int, int]


class Exchange(NamedTuple):
    """A question, with the names of the pictures that came with it, and the text of its answer."""

    pictures: tuple[str, ...]
    prompt: str
    text: str


class Answered(NamedTuple):
    """An answer, and the budget that was in force for its question."""

    answer: Answer
    budget: str


class _State(NamedTuple):
    """In one piece, so that it changes at once or not at all.

    Args:
        messages: for the model.
        images: those of `messages`.
        waiting: pictures that come with the next question.
        exchanges: what was said.
    """

    messages: tuple[Mapping[str, Any], ...] = ()
    images: tuple[KnownPicture, ...] = ()
    waiting: tuple[KnownPicture, ...] = ()
    exchanges: tuple[Exchange, ...] = ()


def read(path: str) -> Picture:
    """Raises InputError unless the file is there and is a whole picture."""
    known = read_picture(path)
    width, height = load_picture(known).size
    return Picture(known, (height, width))


class Conversation:
    """Args:
    model: opened.
    options: of `Request`, for every question.
    pictures: for the first question.
    remember: whether a question goes on from those before it. Without, each comes alone with every picture.

    Attributes:
        model: as given.
        last: the latest whole answer.

    Raises:
        LimitError: more pictures or tokens than the model was opened with.
    """

    def __init__(self, model: Model, options: Mapping[str, Any], pictures: tuple[Picture, ...], remember: bool) -> None:
        self.model = model
        self.last: Answered | None = None
        self._options, self._pictures, self._remember = dict(options), pictures, remember
        self._session = model.session()
        new = options.get("max_new_tokens") or 0
        check_request(model.limits, visual=0, text=0, new=new, images=len(pictures))
        self._state = _State()
        self.clear()

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """What was said, the oldest first."""
        return self._state.exchanges

    @property
    def budget(self) -> str:
        """In force for the next question."""
        asked = Request((), **self._options).budget
        return ", ".join(self.model.limits.budgets) if asked is None else str(asked)

    def clear(self) -> None:
        """Forgets what was said. The pictures stay."""
        self._state = _State(waiting=tuple(picture.known for picture in self._pictures))

    def add_picture(self, path: str) -> bool:
        """Another picture, from the next question on; whether there was no room beside the others, which are forgotten
        with the conversation.

        Raises:
            InputError: it cannot be read.
        """
        picture = read(path)
        full = len(self._pictures) == self.model.limits.images
        if full:
            self._pictures = (picture,)
            self.clear()
        else:
            self._pictures = (*self._pictures, picture)
            self._state = self._state._replace(waiting=(*self._state.waiting, picture.known))
        return full

    def set_budget(self, text: str) -> None:
        """From the next question on.

        Raises:
            InputError: it is none, or the policy takes none.
            LimitError: more than the model was opened with.
        """
        options = {**self._options, "visual_tokens": text}
        budget = Request((), **options).budget
        assert budget is not None
        rules, limits = self.model.pipeline.manifest.vision.tiling, self.model.limits
        tilings = [tile(*picture.size, rules) for picture in self._pictures]
        if options["partitions"] == "base":
            tilings = [tiling.base_picture for tiling in tilings]
        visual = budget.tokens(tilings) if tilings else 0
        check_request(limits, visual=visual, text=0, new=0)
        self._options = options

    def ask(self, prompt: str) -> Generator[str, None, None]:
        """The answer as it is made; `last` and `exchanges` have it once it is whole.

        Raises (while iterating):
            InputError, LimitError, BundleError: as of `Model.ask`.
        """
        if not self._remember:
            kept = self._state.exchanges
            self.clear()
            self._state = self._state._replace(exchanges=kept)
        state, session, budget = self._state, self._session, self.budget
        self._check_length(prompt)
        session.messages, session.images = list(state.messages), list(state.images)
        with closing(session.stream(prompt, state.waiting, **self._options)) as generation:
            yield from generation
            answer = generation.answer
        exchange = Exchange(tuple(each.name for each in state.waiting), prompt, answer.text)
        self.last = Answered(answer, budget)
        self._state = _State(tuple(session.messages), tuple(session.images), exchanges=(*state.exchanges, exchange))

    def _check_length(self, prompt: str) -> None:
        """Raises LimitError where the question would fit, were it not for what was said before it."""
        render, most = self.model.pipeline.prompt.render, self.model.limits.text_tokens
        asked = question(prompt, len(self._state.waiting))
        whole = len(render([*self._state.messages, *asked]).ids)
        if self._state.messages and whole > most >= len(render(asked).ids):
            raise LimitError(
                f"a conversation of {whole} text tokens with this question",
                expected=f"at most {most}, which the bundle was opened with",
                fix="forget what was said with /clear, or begin with --no-history",
            )
