"""Figures in a page of docs/: what stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`."""

from __future__ import annotations

import re
from pathlib import Path

from hired_edge.errors import InputError
from hired_runtime.whole import whole


def put(page: Path, name: str, content: str) -> None:
    """Replaces a page's figures, the page whole or not at all.

    Raises:
        InputError: the page has no such place.
    """
    text = filled(page.read_text(encoding="utf-8"), name, content, page)
    with whole(page) as partial:
        partial.write_text(text, encoding="utf-8")


def filled(text: str, name: str, content: str, page: Path | None = None) -> str:
    """A page's text with other figures in their place."""
    old = _found(text, name, page)
    return text[: old.start(1)] + content + text[old.end(1) :]


def standing(text: str, name: str) -> str:
    """The figures that a page's text has."""
    return _found(text, name, None)[1]


def _found(text: str, name: str, page: Path | None) -> re.Match[str]:
    found = [*re.finditer(rf"<!-- figures: {re.escape(name)} -->\n(.*?)<!-- end of figures -->", text, re.DOTALL)]
    if len(found) != 1:
        raise InputError(
            f"{page or 'the page'} has no place for {name}", expected="its comments, once", fix="put them back"
        )
    return found[0]
