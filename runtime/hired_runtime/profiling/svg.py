"""A matplotlib figure as SVG that stands inside a page: its text in the page's fonts, its ink in the page's colours.

Needs matplotlib (the `eval` extra). The same figure gives the same text. It knows nothing of what is drawn.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that stand for the page's own: drawn with these, written as those.
INK, GRID = "#010101", "#020202"
_PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 10,
}


@contextmanager
def style() -> Iterator[None]:
    """Figures made and written inside it take the page's ink."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def inline(figure: Figure, name: str, description: str) -> str:
    """An `<svg>` element without a prolog, a namespace or anything else that names an address.

    Args:
        figure: drawn inside `style`.
        name: letters; it keeps this figure's ids apart from those of others on the page.
        description: for who does not see it.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)  # it would hold page-wide
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    (box,) = re.findall(r'viewBox="([^"]+)"', head)
    width = float(box.split()[2])
    head = (
        f'<svg viewBox="{box}" role="img" aria-label="{html.escape(description)}" '
        f'style="width:{width * 4 / 3:.0f}px;stroke-linejoin:round;stroke-linecap:butt"'
    )
    for pattern, into in (
        (r'\bid="', f'id="{name}-'),
        (r"url\(#", f"url(#{name}-"),
        (r'xlink:href="#', f'href="#{name}-'),
        (r"font: (\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px"),
    ):
        rest = re.sub(pattern, into, rest)
    for colour, into in _PAGE_COLOURS.items():
        rest = rest.replace(colour, into)
    return f"{head}>{rest}"
