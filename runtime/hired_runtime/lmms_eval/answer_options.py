"""A task's `generation_kwargs` -> how an answer is made and where it ends. Knows neither lmms-eval nor a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hired_edge.errors import InputError
from hired_runtime.sampling import SamplingOptions

_HONOURED = ("until", "max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "seed")
#: Allowed at this value, at which they change nothing.
_NEUTRAL = {"num_beams": 1, "repetition_penalty": 1}
#: Speaks to LLaVA's own code: how a bundle cuts pictures was fixed when it was exported.
_IGNORED = ("image_aspect_ratio",)


@dataclass(frozen=True)
class AnswerOptions:
    """How one answer is made.

    Args:
        max_new_tokens: as the task asks; None = it does not say.
        stop: strings that end the answer and are no part of it.
        sampling: greedy, or drawn.
    """

    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    @property
    def greedy(self) -> bool:
        return self.sampling.temperature == 0


def answer_options(kwargs: Mapping[str, Any]) -> AnswerOptions:
    """Reads a task's `generation_kwargs`.

    Answers are greedy unless `do_sample` is true, or it is missing and `temperature` is above 0, as in lmms-eval's own
    models; `top_p`, `top_k` and `seed` have a say only then. `until` may be a string, a list or None.

    Raises:
        InputError: an option that cannot be honoured, or a value that is none.
    """
    for name, value in kwargs.items():
        if name in _NEUTRAL and value not in (None, _NEUTRAL[name]):
            raise _refused(name, value, f"{_NEUTRAL[name]}, or no {name}")
        if name not in (*_HONOURED, *_NEUTRAL, *_IGNORED):
            raise _refused(name, value, f"only {', '.join(_HONOURED)}")
    until = kwargs.get("until") or ()
    stop = (until,) if isinstance(until, str) else until
    if not isinstance(stop, (list, tuple)) or not all(isinstance(each, str) for each in stop):
        raise _refused("until", until, "a string or a list of strings")
    most = kwargs.get("max_new_tokens")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise _refused("max_new_tokens", most, "a whole number, 1 or more")
    return AnswerOptions(most, tuple(each for each in stop if each), _sampling(kwargs))


def _sampling(kwargs: Mapping[str, Any]) -> SamplingOptions:
    given = {name: kwargs.get(name) for name in ("temperature", "top_p", "top_k", "seed")}
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise _refused(name, value, "a number")
    do_sample = kwargs.get("do_sample")
    if do_sample not in (None, True, False):
        raise _refused("do_sample", do_sample, "true or false")
    temperature = given.pop("temperature")
    if temperature is None:
        temperature = 1.0 if do_sample else 0.0  # transformers' own, where a task says only that it samples
    if do_sample is False or temperature == 0:
        return SamplingOptions()
    return SamplingOptions(temperature, **{name: value for name, value in given.items() if value is not None})


def _refused(name: str, value: object, expected: str) -> InputError:
    return InputError(
        f"{name}={value!r} among a task's generation_kwargs",
        expected=expected,
        fix="choose another task, or set it with lmms-eval's --gen_kwargs",
    )
