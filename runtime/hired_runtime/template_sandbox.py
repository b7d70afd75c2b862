"""A jinja2 environment in which a template can neither run for ever nor fill the memory.

jinja2's immutable sandbox keeps a template from the machine, not from wasting it: loops in loops and `'a' * 10**9` are
allowed there. Here every turn of a loop, call, filter and operator looks at a `Meter`, and what pads or formats is left
out (`hired_edge.prompt_rules`). What a template that takes neither makes of its messages is the same.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes, pass_context, pass_eval_context
from jinja2.ext import Extension
from jinja2.filters import make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext, Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from hired_edge.prompt_rules import FILTERS, METHODS
from hired_runtime.template_meter import Meter

_EACH, _JOINED, _MADE = "_each", "_joined", "_made"
"""Filters that a template's tree is sent through."""
_NUMBERED = ("batch", "round", "slice", "tojson")
_SEARCHING = ("strip", "lstrip", "rstrip", "rfind", "rindex", "rsplit", "rpartition")
"""Methods of texts that may take a text's length times their argument's."""
_LONGEST_NAME = 100
"""Characters of a macro's name, which is printed where the macro is."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox for one template, which is rendered inside `metered`.

    Args:
        extensions: of jinja2.
        filters, functions: of one's own, by name.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(
        self,
        extensions: list[str | type[Extension]],
        filters: dict[str, Callable[..., Any]],
        functions: dict[str, Callable[..., Any]],
    ) -> None:
        self._local, self._text = threading.local(), 0

        @pass_context  # so that nothing is computed while the template is compiled
        def counted(context: Context, value: Any) -> Any:
            self.meter.look()
            return self.meter.made(value)

        @pass_eval_context
        def joined(context: EvalContext, values: list[Any]) -> str:
            self.meter.joined("", values)
            return markup_join(values) if context.autoescape else str_join(values)

        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, optimized=False, finalize=counted)
        known = {**self.filters, **filters}
        self.filters = {name: self._bounded(name, each) for name, each in known.items() if name not in FILTERS}
        self.filters |= {_EACH: self._each, _JOINED: joined, _MADE: lambda value: self.meter.made(value)}
        self.tests = {name: self._looking(each) for name, each in self.tests.items()}
        self.globals |= {**functions, "namespace": _Namespace}
        del self.globals["lipsum"]

    def compiled(self, source: str) -> Template:
        """A template.

        Raises:
            TemplateSyntaxError: it is none.
            RecursionError, SyntaxError, MemoryError: it is nested too deeply for jinja2 or for Python.
            ValueError: it has a number of more digits than Python converts.
        """
        tree = self.parse(source)
        for macro in tree.find_all(nodes.Macro):
            if len(macro.name) > _LONGEST_NAME:
                raise TemplateSyntaxError(f"a macro's name of {len(macro.name)} characters", macro.lineno)
        self._text = _text_in(tree)
        tree = _Metering().visit(tree)
        tree.set_environment(self)
        return self.from_string(tree)

    @contextmanager
    def metered(self, given: int, parts: int) -> Iterator[None]:
        """While a template is rendered, by this thread, of so many characters and parts."""
        self._local.meter = Meter(given, parts)
        try:
            yield
        finally:
            del self._local.meter

    @property
    def meter(self) -> Meter:
        return self._local.meter

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """None of the safe attributes, even wrapped."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.meter.look()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.look()  # filters that take an attribute come here for each item and each of its parts
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.meter.operated(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # jinja2's own names
        meter = __self.meter
        meter.look()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(__obj, Macro):
            meter.take(__self._text)
        elif isinstance(__obj, LoopContext):  # `loop(...)` of a recursive loop
            args = tuple(__self._each(each, __self._text) for each in args)
            kwargs = {key: __self._each(each, __self._text) for key, each in kwargs.items()}
        elif isinstance(owner, str):  # a Markup too, whose methods are Python's
            if name == "replace" and len(args) > 1:
                meter.replaced(owner, str(args[0]), str(args[1]))
            elif name == "join" and args:
                args = (list(args[0]), *args[1:])
                meter.joined(owner, args[0])
            elif name in _SEARCHING:
                meter.searched(owner, *args, *kwargs.values())
        return meter.made(super().call(__context, __obj, *args, **kwargs))

    def _each(self, values: Iterable[Any], text: int) -> Iterator[Any]:
        """What a loop goes over; `text`: characters that a turn of it writes as they are."""
        meter = self.meter
        for value in values:
            meter.look()
            meter.take(text)
            yield value

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter with its own look at the meter. jinja2 may give it a context before the value."""
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            meter = self.meter
            meter.look()
            if name == "replace":
                texts = [*args[skipped : skipped + 3], *(kwargs[key] for key in ("old", "new") if key in kwargs)]
                meter.replaced(*map(str, texts))
            elif name == "join":
                items, separator, attribute = _join_arguments(*args[skipped:], **kwargs)
                items = list(items if attribute is None else map(make_attrgetter(self, attribute), items))
                meter.joined(str(separator), items)
                args, kwargs = (*args[:skipped], items, separator), {}
            elif name == "trim":
                meter.searched(*args[skipped:], *kwargs.values())
            elif name in _NUMBERED:
                meter.numbered(*args[skipped + 1 :], *kwargs.values())
                meter.made(args[skipped])
            return meter.made(function(*args, **kwargs))

        return bounded

    def _looking(self, test: Callable[..., Any]) -> Callable[..., Any]:
        """A test with its own look at the meter: a filter may send a whole list through one."""

        @functools.wraps(test)
        def looking(*args: Any, **kwargs: Any) -> Any:
            self.meter.look()
            return test(*args, **kwargs)

        return looking


class _Namespace(Namespace):
    """It prints nothing of what it holds: namespaces may hold each other."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Metering(NodeTransformer):
    """What is looped over goes through `_each`, what `~` joins through `_joined`; lists and slices that are made go
    through `_made`."""

    def visit_For(self, node: Any) -> nodes.Node:  # jinja2's names, here and below
        text = sum(_text_in(each) for each in node.body)
        self.generic_visit(node)
        node.iter = _filtered(_EACH, node.iter, nodes.Const(text))
        return node

    def visit_Getitem(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(_MADE, node) if isinstance(node.arg, nodes.Slice) else node

    def _expression(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(_MADE, node) if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Tuple = visit_Dict = _expression

    def visit_Concat(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(_JOINED, nodes.List(node.nodes, lineno=node.lineno))


def _filtered(name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _join_arguments(value: Iterable[Any], d: Any = "", attribute: Any = None) -> tuple[Iterable[Any], Any, Any]:
    """As jinja2 names them."""
    return value, d, attribute


def _text_in(node: nodes.Node) -> int:
    """Characters that it writes as they are."""
    return sum(len(each.data) for each in node.find_all(nodes.TemplateData))
