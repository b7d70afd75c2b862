"""A conversation about pictures. What was said stays in the cache: a follow-up costs its own tokens, no more.

Which visual tokens are kept does not depend on the question, so that a follow-up finds them where the first question
left them. The tokens are those of asking the whole conversation from scratch, or first part from them at a near-tie of
the logits.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hired_runtime.generation import Generation
from hired_runtime.pictures import KnownPicture, PictureSource, read_picture
from hired_runtime.prompt import question
from hired_runtime.request import Answer, Request

if TYPE_CHECKING:
    from hired_runtime.pipeline import Pipeline


class Session:
    """`Model.session` makes one. Several may share a model; the cache then belongs to the latest, if it has one row.

    Args:
        pipeline: the opened bundle's.
        images: the first question's pictures, read once.
        system: a system message, for templates that take one.
        options: those of `Request`, for every question of the session.

    Attributes:
        messages: what was said so far.
        images: its pictures, in the order of their image parts.

    Raises:
        InputError: a picture that is not there, or an option that is none.
    """

    def __init__(
        self, pipeline: Pipeline, images: Sequence[PictureSource] = (), system: str | None = None, **options: Any
    ) -> None:
        Request((), **options)
        self._pipeline, self._options = pipeline, options
        self.messages: list[Mapping[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self.images: list[KnownPicture] = []
        self._next = [read_picture(image) for image in images]

    def ask(self, prompt: str, images: Sequence[PictureSource] = (), **options: Any) -> Answer:
        """Asks on. `images` come before this question, after those of the session that were not shown yet.

        Args:
            prompt: the question.
            images: further pictures.
            options: those of `Request`, for this question alone.

        Raises:
            InputError, LimitError, BundleError: as of `Model.ask`; the conversation is then as it was before.
        """
        return self.stream(prompt, images, **options).answer

    def stream(self, prompt: str, images: Sequence[PictureSource] = (), **options: Any) -> Generation:
        """As `ask`, but iterating over the result gives the text as it is made. The question follows what was said by
        then."""
        options = {**self._options, **options, "reuse": True}
        Request((), **options)
        own = [read_picture(image) for image in images]
        return Generation(self._run(prompt, own, options), self._pipeline.turns)

    def _run(self, prompt: str, own: list[KnownPicture], options: dict[str, Any]) -> Generator[str, None, Answer]:
        shown = [*self._next, *own]
        messages = [*self.messages, *question(prompt, len(shown))]
        images = [*self.images, *shown]
        answer = yield from self._pipeline.run(Request(messages, images, **options))
        # Only a whole exchange becomes a part of the conversation.
        self.messages = [*messages, {"role": "assistant", "content": answer.text}]
        self.images, self._next = images, []
        return answer

    def clear(self) -> None:
        """Forgets what was said. The pictures stay, to be shown with the next question."""
        self.messages = [message for message in self.messages if message["role"] == "system"]
        self._next, self.images = [*self.images, *self._next], []
