"""Frozen dataclasses to JSON and back, strictly: the type hints are the schema.

`from_json` refuses unknown keys, missing keys and wrong types, each with its path ("manifest.text.layers"). Whatever
the text holds (NaN, a duplicate key, ten thousand brackets), the only error is a `BundleError`. It knows no field's
meaning: a rule about values belongs in the `__post_init__` of the dataclass, whose error is passed on with the path
in front. A field made by `optional` may be missing, and is left out where it has its default: so a format grows.
"""

from __future__ import annotations

import json
import math
import types
from dataclasses import field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from hired_edge.errors import BundleError, HiredEdgeError

T = TypeVar("T")

MEND = "copy the bundle again, or export it again"
INTEGER_LIMIT = 2**63
"""Integers are 64-bit, so that no product of two manifest fields becomes a number that Python will not print."""
_OPTIONAL = "hired_edge.strict.optional"


def optional(default: Any) -> Any:
    """A dataclass's field that came later: its key may be missing, which means `default`, and is then never written."""
    return field(default=default, metadata={_OPTIONAL: True})


def loads(text: str, where: str = "manifest") -> object:
    """Parse JSON text, refusing what Python's parser lets through: duplicate keys, NaN and Infinity.

    Raises:
        BundleError: the text is not strict JSON.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        data: dict[str, object] = {}
        for key, value in pairs:
            if key in data:
                raise BundleError(f"{where} has the key {show(key)} twice", expected="every key once", fix=MEND)
            data[key] = value
        return data

    def constant(name: str) -> NoReturn:
        raise BundleError(f"{where} holds {name}", expected="finite numbers", fix=MEND)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except RecursionError:
        raise BundleError(f"{where} is nested too deeply", expected="plain JSON", fix=MEND) from None
    except ValueError as error:  # also an integer of more digits than Python converts
        raise BundleError(f"{where} is not JSON ({one_line(error)})", expected="plain JSON", fix=MEND) from None


def from_json(cls: type[T], data: object, where: str = "manifest") -> T:
    """Build the dataclass `cls` from parsed JSON.

    Understood are str, int, float, bool, `X | None`, Literal, tuple[X, ...], tuple[X, Y], dict[str, X] and
    dataclasses of these.

    Args:
        cls: a dataclass.
        data: what `loads` returned.
        where: the path that errors begin with.

    Raises:
        BundleError: anything is missing, unknown, of a wrong type, not finite or beyond 64 bits; or `cls` itself
            refuses it.
    """
    if not isinstance(data, dict):
        _refuse(where, data, "an object")
    hints = _hints(cls)
    for key in data:
        if key not in hints:
            raise BundleError(
                f"{where} has an unknown key {show(key)}",
                expected=f"only {', '.join(hints)}",
                fix="install the hired-edge that wrote this bundle, or export it again",
            )
    for key in hints:
        if key not in data and key not in _optional_fields(cls):
            raise BundleError(f"{where}.{key} is missing", expected=f"every key of {cls.__name__}", fix=MEND)
    values = {key: _value(hint, data[key], f"{where}.{key}") for key, hint in hints.items() if key in data}
    try:
        return cls(**values)
    except HiredEdgeError as error:
        raise BundleError(f"{where}: {error.got}", expected=error.expected, fix=error.fix) from None


def to_json(obj: object) -> dict[str, Any]:
    """A dataclass as plain JSON data: keys in declared order, dictionaries sorted, tuples as lists; see `optional`."""
    data = _plain(obj)
    assert isinstance(data, dict)
    return data


def dumps(obj: object) -> str:
    """A dataclass as JSON text; the same object gives the same bytes. ASCII, indented by 2, ending in a newline.

    Raises:
        BundleError: a number is not finite.
    """
    try:
        return json.dumps(to_json(obj), indent=2, allow_nan=False) + "\n"
    except ValueError:
        raise BundleError(
            f"a number of {type(obj).__name__} is NaN or infinite", expected="finite numbers", fix="export again"
        ) from None


def show(value: object) -> str:
    """A value for an error message: on one line, and short."""
    text = ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else _kind(value)
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(error: BaseException) -> str:
    """An exception's text on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else text[:117] + "..."


@cache
def _hints(cls: type) -> dict[str, Any]:
    assert is_dataclass(cls), cls
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


@cache
def _optional_fields(cls: type) -> dict[str, object]:
    """Names and defaults."""
    assert is_dataclass(cls), cls
    return {field.name: field.default for field in fields(cls) if _OPTIONAL in field.metadata}


def _value(hint: Any, data: object, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return from_json(hint, data, where)
    if hint in _SCALARS:
        return _SCALARS[hint](data, where)
    return _GENERICS[get_origin(hint)](get_args(hint), data, where)


def _string(data: object, where: str) -> str:
    if not isinstance(data, str):
        _refuse(where, data, "a string")
    if any("\ud800" <= character <= "\udfff" for character in data):
        raise BundleError(f"{where} holds half a character", expected="text that UTF-8 can hold", fix=MEND)
    return data


def _integer(data: object, where: str) -> int:
    if not isinstance(data, int) or isinstance(data, bool):
        _refuse(where, data, "an integer")
    if not -INTEGER_LIMIT <= data < INTEGER_LIMIT:
        raise BundleError(f"{where} is an integer of {data.bit_length()} bits", expected="at most 64 bits", fix=MEND)
    return data


def _float(data: object, where: str) -> float:
    number = data if isinstance(data, float) else float(_integer(data, where))
    if not math.isfinite(number):
        _refuse(where, number, "a finite number")
    return number


def _boolean(data: object, where: str) -> bool:
    if not isinstance(data, bool):
        _refuse(where, data, "true or false")
    return data


def _tuple(args: tuple[Any, ...], data: object, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        _refuse(where, data, "a list")
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(data)
    if len(args) != len(data):
        raise BundleError(f"{where} has {len(data)} entries", expected=f"{len(args)}", fix=MEND)
    return tuple(_value(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(args, data, strict=True)))


def _dictionary(args: tuple[Any, ...], data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        _refuse(where, data, "an object")
    return {_string(key, where): _value(args[1], item, f"{where}[{show(key)}]") for key, item in data.items()}


def _literal(args: tuple[Any, ...], data: object, where: str) -> Any:
    # by type as well as by value, because True == 1
    if not any(type(data) is type(choice) and data == choice for choice in args):
        _refuse(where, data, f"one of {', '.join(map(show, args))}")
    return data


def _optional(args: tuple[Any, ...], data: object, where: str) -> Any:
    (hint,) = (arg for arg in args if arg is not type(None))
    return None if data is None else _value(hint, data, where)


_SCALARS = {str: _string, int: _integer, float: _float, bool: _boolean}
_GENERICS = {
    tuple: _tuple,
    dict: _dictionary,
    Literal: _literal,
    Union: _optional,
    types.UnionType: _optional,
}


def _plain(value: object) -> object:
    if is_dataclass(value):
        left_out = _optional_fields(type(value))
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _plain(v) for name, v in held.items() if name not in left_out or v != left_out[name]}
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list"}.get(type(value), type(value).__name__)


def _refuse(where: str, data: object, expected: str) -> NoReturn:
    raise BundleError(f"{where} is {show(data)}", expected=expected, fix=MEND)
