"""Chat templates that would run for ever or fill the memory, and those that must not be taken for such."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest

from hired_edge.errors import CheckpointError
from hired_edge.prompt_rules import MOST_CHARACTERS
from hired_runtime.chat_template import ChatTemplate

END = "{% for m in messages %}{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}{% endfor %}"
"""What makes a template of it that reads its messages."""
TWICE = "{% for i in range(60) %}{% set n.x = n.x OP n.x %}{% endfor %}{{ n.x }}"
BOMBS = {
    "a loop in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
    "a loop that writes nothing": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "text in loops": "{% for a in range(9999) %}{% for b in range(9999) %}" + "x" * 9999 + "{% endfor %}{% endfor %}",
    "a loop that calls itself": "{% for a in range(9999) recursive %}{{ loop(range(9999)) }}{% endfor %}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "a long text in a macro": "{% macro f() %}"
    + "x" * 9999
    + "{% endmacro %}{% for i in range(99999) %}{{ f() }}{% endfor %}",
    "a product": "{{ 'a' * 1000000000 }}",
    "a product from the right": "{{ 1000000000 * 'a' }}",
    "a list's product": "{{ ([0] * 1000000000)|length }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a power of a power": "{% set n = namespace(x=3) %}" + TWICE.replace("OP", "*"),
    "doubled by +": "{% set n = namespace(x='ab') %}" + TWICE.replace("OP", "+"),
    "doubled by ~": "{% set n = namespace(x='ab') %}" + TWICE.replace("OP", "~"),
    "a doubled list": "{% set n = namespace(x=[1]) %}" + TWICE.replace("OP", "+"),
    "lists of lists": "{% set n = namespace(x=[1]) %}" + TWICE.replace("n.x OP n.x", "[n.x, n.x]"),
    "many slices": "{% set x = 'a' * 200000 %}{% set n = namespace(x=[]) %}{% for i in range(9999) %}"
    "{% set n.x = n.x + [x[1:]] %}{% endfor %}",
    "a width": "{{ '%1000000000d' % 1 }}",
    "a width that is given": "{{ '%*d' % (1000000000, 1) }}",
    "str.format": "{{ '{:1000000000}'.format(1) }}",
    "str.format as an attribute": "{{ ('{:1000000000}'|attr('format'))(1) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "center": "{{ 'a'.center(1000000000) }}",
    "the filter center": "{{ 'a'|center(1000000000) }}",
    "the filter format": "{{ '%1000000000d'|format(1) }}",
    "indent": "{{ 'a'|indent(1000000000, true) }}",
    "translate": "{{ ('a' * 200000).translate({97: 'b' * 200000}) }}",
    "replace": "{{ ('a' * 200000).replace('a', 'b' * 200000) }}",
    "the filter replace": "{{ ('a' * 200000)|replace('a', 'b' * 200000) }}",
    "join": "{{ ('b' * 200000).join('a' * 200000) }}",
    "the filter join": "{{ ('a' * 200000)|join('b' * 200000) }}",
    "batch": "{{ [1]|batch(1000000000, 0)|list|length }}",
    "round": "{{ 1.5|round(1000000000, 'ceil') }}",
    "tojson": "{{ [[1]]|tojson(indent=1000000000) }}",
    "a text as indent": "{{ ([0] * 20000)|tojson(indent='a' * 20000) }}",
    "an indent in many lists": "{% set n = namespace(x=[0] * 30000) %}{% for i in range(99) %}{% set n.x = [n.x] %}"
    "{% endfor %}{{ n.x|tojson(indent=999) }}",
    "long separators": "{{ ([0] * 20000)|tojson(separators=('a' * 20000, ':')) }}",
    "an attribute in attributes": "{{ ('a' * 50000)|list|map(attribute='" + "0." * 20000 + "0')|list }}",
    "join by an attribute": "{% set n = namespace(x='a' * 200000) %}{{ ([n] * 3000)|join(attribute='x') }}",
    "a test of a whole list": "{% set l = range(19999)|list %}{{ range(99999)|select('in', l)|list }}",
    "a markup's replace": "{{ (('a' * 20000)|safe).replace('a', 'b' * 20000) }}",
    "a markup's join": "{{ (('a' * 20000)|safe).join(['a'] * 20000) }}",
    "one text many times by ~": "{% set a = 'a' * 200000 %}{{ " + "~".join("a" * 3000) + " }}",
    "a loop that is called by a keyword": "{% for a in [0] recursive %}{% if a == 0 %}"
    "{{ loop(iterable=range(1, 99999)) }}{% else %}" + "x" * 9999 + "{% endif %}{% endfor %}",
    "a macro's name": "{% macro " + "m" * 30000 + "() %}{% endmacro %}{{ ([" + "m" * 30000 + "] * 20000)|join }}",
    "a number of many bits": "{% set a = ('0x' ~ 'f' * 200000)|int(base=16) %}"
    "{% set b = ('0x' ~ 'f' * 100000)|int(base=16) %}{% for i in range(999) %}{{ a // b > 1 }}{% endfor %}",
    "a number of many digits": "{{ " + "9" * 5000 + " }}",
    "strip": "{{ ('\u0100' * 130000).strip('\u1100' * 130000 ~ '\u0100') }}",
    "trim": "{{ ('\u0100' * 130000)|trim('\u1100' * 130000 ~ '\u0100') }}",
    "a search from the end": "{{ ('a' * 200000).rfind('ab' ~ 'a' * 100000) }}",
    "a date": "{{ strftime_now('%999999999Y') }}",
    "lipsum": "{{ lipsum(n=1000000) }}",
    "nested brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "nested conditions": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "nested loops": "{% for a in [1] %}" * 300 + "{% endfor %}" * 300,
    "minus signs": "{{ " + "-" * 5000 + "1 }}",
    "too long": "{#" + "x" * MOST_CHARACTERS + "#}",
}


def chat(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]} for text in texts]


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_wastes_time_or_memory_is_refused_soon(name: str) -> None:
    peak, spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, list[float]()
    while not spent or (min(spent) > 1 and len(spent) < 3):  # a machine may pause, but not three times
        begin = time.thread_time()
        with pytest.raises(CheckpointError, match="the chat template") as refused:
            ChatTemplate(BOMBS[name] + END, {}, "<image>").render(chat("Hello"), add_generation_prompt=True)
        spent.append(time.thread_time() - begin)
        assert len(str(refused.value).splitlines()) == 1
    assert min(spent) < 1.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200 * 2**10  # KiB


def test_a_pause_of_the_machine_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A faked clock: half a minute passes in the middle of an ordinary template, as a hypervisor may take it."""
    passed = iter((0.0, 0.001, 30.0))
    last = [0.0]

    def clock() -> float:
        last[0] = next(passed, last[0] + 1e-5)
        return last[0]

    template = ChatTemplate(END, {}, "<image>")
    monkeypatch.setattr("hired_runtime.template_meter.time.thread_time", clock)
    assert template.render(chat("Hello", "you"), add_generation_prompt=True) == "Helloyou"
    assert last[0] > 30


def test_a_long_conversation_is_none_of_them() -> None:
    texts = [f"Question {i}: what is on the table, and what is under it?" for i in range(3000)]
    gathered = "{% set n = namespace(x='') %}{% for m in messages %}{% set n.x = n.x + m.content[0].text %}{% endfor %}"
    template = ChatTemplate(gathered + "{{ n.x }}", {}, "<image>")
    assert template.render(chat(*texts[:300]), add_generation_prompt=True) == "".join(texts[:300])
    template = ChatTemplate(END, {}, "<image>")
    assert template.render(chat(*texts), add_generation_prompt=True) == "".join(texts)


def test_a_long_text_is_none_of_them() -> None:
    text = "What is on the table? " * 100_000
    template = ChatTemplate(
        "{{ (messages[0].content|selectattr('text')|map(attribute='text')|join(', '))|trim }}!", {}, ""
    )
    assert template.render(chat(text), add_generation_prompt=True) == f"{text.strip()}!"


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("'a' ~ 1 ~ none", "a1None"),
        ("'ab' * 3", "ababab"),
        ("2 ** 10 * 3 % 7", str(2**10 * 3 % 7)),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("'%s of %d%%' % ('x', 5)", "x of 5%"),
        ("'a b'.replace(' ', '-').upper().split('-')[::-1]", "['B', 'A']"),
        ("', '.join(['a', 'b'])", "a, b"),
        ("[1, 2]|join(', ')", "1, 2"),
        ("[{'a': 1}]|join(attribute='a')", "1"),
        ("[{'a': {'b': 1}}, {'a': {'b': 2}}]|join(', ', 'a.b')", "1, 2"),
        ("'<b>'|escape ~ '&'", "&lt;b&gt;&"),
        ("(' a-b '|safe).replace('-', '+').strip(' ')", "a+b"),
        ("' a '|trim ~ '--b--'|trim('-') ~ 'c/d'.rsplit('/', 1)[-1]", "abd"),
        ("[1, 2, 3]|select('in', [1, 3])|list", "[1, 3]"),
        ("[{'a': 1}, {'a': 2}]|selectattr('a', 'gt', 1)|map(attribute='a')|list", "[2]"),
        ("'a-a'|replace('-', '+')", "a+a"),
        ("{'a': [1, 'é']}|tojson", '{"a": [1, "é"]}'),
        ("{'a': 1}|tojson(indent=1)", '{\n "a": 1\n}'),
        ("{'b': 1, 'a': [none, 1.5]}|tojson(separators=(',', ':'), sort_keys=true)", '{"a":[null,1.5],"b":1}'),
        ("'a'|tojson", '"a"'),
        ("(1, 'b')", "(1, 'b')"),
        ("{'a': 1}.items()|list", "[('a', 1)]"),
        ("[3, 1, 2]|sort|map('string')|list", "['1', '2', '3']"),
        ("dict(a=1)['a'] + range(3)|length", "4"),
        ("1.25|round(1)", "1.2"),
        ("namespace(a=1).a", "1"),
        ("missing", ""),
        ("missing.x is defined", None),
    ],
)
def test_expressions_come_to_what_jinja2_makes_of_them(expression: str, result: str | None) -> None:
    """Of those that a stock environment also renders, the result is its own."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = "{{ " + expression + " }}"
    template = ChatTemplate(source, {}, "<image>")
    if result is None:
        with pytest.raises(CheckpointError, match="UndefinedError"):
            template.render(chat("x"), add_generation_prompt=False)
        return
    assert template.render(chat("x"), add_generation_prompt=False) == result
    if "tojson" not in expression:  # which transformers replaces
        assert ImmutableSandboxedEnvironment().from_string(source).render() == result


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in [[1, [2]], [3]] recursive %}{% if a is iterable %}{{ loop(a) }}"
        "{% else %}{{ a }},{% endif %}{% endfor %}",
        "{% for a in [1, 2, 3] %}{{ loop.index }}{{ loop.length }}{{ loop.last }}{{ loop.previtem }}"
        "{% else %}x{% endfor %}",
        "{% for a in [] %}{{ a }}{% else %}none{% endfor %}{% for a in 'abc' if a != 'b' %}{{ a }}{% endfor %}",
        "{% macro f(a, b='c') %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call f(1) %}!{% endcall %}",
        "{% set (a, b) = (1, 2) %}{{ a + b }}{% set x %}y{{ a }}{% endset %}{{ x|upper }}",
        "{% filter upper %}abc{% endfilter %}{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}",
        "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ joiner()() }}",
    ],
)
def test_statements_render_as_in_jinja2(source: str) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    expected = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source).render()
    assert ChatTemplate(source, {}, "<image>").render(chat("x"), add_generation_prompt=False) == expected
