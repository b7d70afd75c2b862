"""Chat templates, token by token: loops in loops, doubled texts, calls, and whatever jinja2 lets a template say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from tests.fuzz.mutators import raw

_TOKENS = re.compile(r"\{%-?|-?%\}|\{\{-?|-?\}\}|'[^']*'|\w+|\s+|.", re.DOTALL)
_PIECES = (
    *("{% for a in range(99999) %}", "{% for b in messages %}", "{% endfor %}", "{% if true %}", "{% endif %}"),
    *("{% set x = 'ab' %}", "{% set x = x ~ x %}", "{% set n = namespace(x='ab') %}", "{% set n.x = n.x + n.x %}"),
    *("{% macro f(y) %}{{ f(y) }}{{ f(y) }}{% endmacro %}", "{{ f(1) }}", "{{ x }}", "{{ messages }}", "{{ n.x }}"),
    *("{{ 'a' * 1000000000 }}", "{{ [0] * 1000000000 }}", "{{ 9 ** (9 ** 9) }}", "{{ '%1000000000d' % 1 }}"),
    *("{{ 'a'|center(1000000000) }}", "{{ 'a'.ljust(1000000000) }}", "{{ ('a' * 9999).replace('a', 'b' * 9999) }}"),
    *("{{ '{:1000000000}'.format(1) }}", "{{ lipsum(n=100000) }}", "{{ range(100000)|list }}", "{{ 1 / 0 }}"),
    *("{{ messages|tojson(indent=100000000) }}", "{{ ''.__class__.__mro__ }}", "{{ self }}", "{{ loop.index }}"),
    *(
        "{{ raise_exception('no') }}",
        "{{ strftime_now('%Y') }}",
        "{% generation %}",
        "{% endgeneration %}",
        "{% break %}",
    ),
    *("{% include 'x' %}", "{% extends 'x' %}", "{% block a %}{% endblock %}", "{% filter upper %}", "{% endfilter %}"),
    *("{% set x %}", "{% endset %}", "{% call f(1) %}", "{% endcall %}", "{# ", " #}", "{% raw %}", "{% endraw %}"),
    *("|tojson", "|join", "|length", "|trim", "|list|join", "|map('upper')", "|sum", "|batch(3)", "|indent(100000)"),
    *(" recursive", " loop(messages)", " ~ ", " * ", " + ", "[0]", "[::-1]", ".x", "()", "(", ")", "[", "]", "{", "}"),
    *("<image>", "eos_token", "messages", "content", "'text'", "none", "not ", "99999", "-1", "\0", "\ue000", "é"),
)


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    return of_text(data.decode("utf-8", "replace"), random).encode("utf-8", "surrogatepass")


def of_text(text: str, random: Random) -> str:
    """Tokens are left out, doubled, moved, nested, or others come between them."""
    tokens = _TOKENS.findall(text)
    for _ in range(random.choice((1, 1, 2, 3, 5))):
        at = random.randrange(len(tokens) + 1)
        stop = min(len(tokens), at + random.choice((1, 1, 3, 12)))
        match random.randrange(7):
            case 0:
                del tokens[at:stop]
            case 1:
                tokens[at:at] = tokens[at:stop] * random.choice((1, 2, 300))
            case 2:
                moved = tokens[at:stop]
                del tokens[at:stop]
                to = random.randrange(len(tokens) + 1)
                tokens[to:to] = moved
            case 3:
                opening, closing = random.choice((("(", ")"), ("[", "]"), ("-", ""), ("{% if 1 %}", "{% endif %}")))
                depth = random.choice((1, 5, 300))
                tokens[at:stop] = [opening * depth, *tokens[at:stop], closing * depth]
            case _:
                tokens[at:at] = [random.choice(_PIECES) for _ in range(random.choice((1, 1, 2, 3)))]
    return "".join(tokens)[: raw.MOST_BYTES]
