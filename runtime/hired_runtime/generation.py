"""An answer being made, and whose turn it is: one cache can hold one request."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

from hired_edge.errors import InputError
from hired_runtime.request import Answer


class Turns:
    """Who may use the engines. The lock is held while they run; a newer request takes the turn of an unfinished one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._latest = 0

    def take(self, turn: int | None) -> int:
        """The caller's turn, a new one if it has none.

        Raises:
            InputError: a newer request has begun meanwhile, and with it the cache holds other tokens.
        """
        if turn is None:
            self._latest += 1
            return self._latest
        if turn != self._latest:
            raise InputError(
                "a stream goes on after another request was made of its model",
                expected="one request at a time",
                fix="read a stream to its end first, or open the bundle once more",
            )
        return turn


class Generation(Iterator[str]):
    """Iterate over the text as it comes, then read `answer`.

    Threads may share a model: whole answers wait for each other. A stream that another request overtakes between two
    pieces ends in an InputError, never in that request's text.
    """

    def __init__(self, pieces: Generator[str, None, Answer], turns: Turns) -> None:
        self._pieces, self._turns = pieces, turns
        self._turn: int | None = None
        self._answer: Answer | None = None

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> str:
        with self._turns.lock:
            if self._answer is None:
                self._turn = self._turns.take(self._turn)
                try:
                    return next(self._pieces)
                except StopIteration as end:
                    self._answer = end.value
            raise StopIteration

    def close(self) -> None:
        """Gives the answer up. The model is free for the next request, which may begin without this call as well."""
        self._pieces.close()

    @property
    def answer(self) -> Answer:
        """The finished answer; runs the rest of the generation if it was not consumed.

        Raises:
            InputError: the generation has ended in an error before, or was overtaken; or whatever ends it now.
        """
        with self._turns.lock:
            for _ in self:
                pass
        if self._answer is None:
            raise InputError(
                "a generation that ended in an error has no answer",
                expected="one that was read to its end",
                fix="ask again",
            )
        return self._answer
