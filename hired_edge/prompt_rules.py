"""What a tokenizer and a chat template may not be: an export refuses what a device would. Imports neither's library.

A template is a program that came with a checkpoint. Those on the Hub read messages and join texts; what is left out
pads texts, or formats them by rules of its own, so that a few characters of one make gigabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from hired_edge.errors import CheckpointError
from hired_edge.strict import one_line

TOKENIZER_MEND = "take tokenizer files that transformers can read and export the checkpoint again"

HOLES = 2**16
"""Of a vocabulary: ids that no token has. tokenizers goes through all ids up to the largest, and names every hole."""

MOST_CHARACTERS = 2**16
"""Of a template; those on the Hub have some thousand, with tools up to 20,000."""

FILTERS = frozenset(
    (
        *("center", "filesizeformat", "format", "indent", "pprint", "random"),
        *("striptags", "sum", "urlize", "wordwrap", "xmlattr"),
    )
)
"""jinja2's filters that there are none of."""

METHODS = frozenset(
    (
        *("center", "ljust", "rjust", "zfill", "expandtabs", "translate", "maketrans", "encode", "striptags"),
        *("format", "format_map", "to_bytes", "from_bytes"),
    )
)
"""Of texts and numbers, that may not be called."""


def check_token_ids(ids: Collection[int]) -> None:
    """Of a whole vocabulary, added tokens included.

    Raises:
        CheckpointError: ids that do not count through.
    """
    if max(ids, default=0) >= len(ids) + HOLES:
        raise CheckpointError(
            f"the token id {max(ids)} in a tokenizer of {len(ids)} tokens",
            expected="ids that count through",
            fix=TOKENIZER_MEND,
        )


@contextmanager
def tokenizer_refused(doing: str) -> Iterator[None]:
    """Around a call of the tokenizers library, which raises plain Exceptions. Where a file's parts contradict each
    other, its Rust code may also panic: Python sees a BaseException that no `except Exception` catches.

    Args:
        doing: what the tokenizer is asked to do: "be read".

    Raises:
        CheckpointError: it fails.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"the tokenizer cannot {doing} ({one_line(error) or type(error).__name__})",
            expected="tokenizer files that belong together",
            fix=TOKENIZER_MEND,
        ) from None
