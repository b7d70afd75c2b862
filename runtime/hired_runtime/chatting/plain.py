"""Text that is safe to show on a terminal. What a model or a file's name says must never steer it."""

from __future__ import annotations

import re

# Control characters but line feed and tab; what makes a terminal break a line or turn its direction.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    r"""The text with every such character written out: an escape character becomes `\x1b`."""
    return _STEERING.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """As `plain`, without line feeds."""
    return plain(" ".join(text.splitlines()))
