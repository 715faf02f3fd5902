"""Bodies: JSON to attrs classes, every problem at once.

Fields are ``snake_case`` here and ``camelCase`` outside.  Nothing is coerced: a
number is not text, and a text is not a list of its letters.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.cols import is_sequence, list_structure_factory
from cattrs.gen import make_dict_structure_fn, override

from ploinky.errors import BadJson, ValidationFailed

T = TypeVar("T")


class _Misfit(ValueError):
    """What was expected, in words."""


def parse_json(raw_body: bytes) -> Any:
    """Read a body; an empty one is an empty object.

    Raises:
        BadJson: With line and column, counted from 1.
    """
    if not raw_body.strip():
        return {}
    try:
        return json.loads(raw_body.decode("utf-8"), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadJson(
            f"the body is not JSON: {error.msg}, line {error.lineno}, column {error.colno}",
            details={"line": error.lineno, "column": error.colno},
        ) from error
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not UTF-8 text (byte {error.start})") from error
    except _Misfit as error:
        raise BadJson(f"the body is not JSON: {error}") from error
    except (RecursionError, ValueError) as error:
        raise BadJson("the body is nested too deeply or has a number too long") from error


def structured(form: type[T], document: Any, others: Iterable[str] = ()) -> T:
    """Make a ``form`` of a JSON document.

    Args:
        form: An attrs class.
        others: Names of fields that someone else reads, to suggest for a misspelt one.

    Raises:
        ValidationFailed: One entry a field.
    """
    if not isinstance(document, Mapping):
        raise ValidationFailed({"body": f"expected an object, got {_called(document)}"})
    names = [_outside(field.name) for field in attrs.fields(form)]  # type: ignore[arg-type]
    problems: dict[str, str] = {}
    for name in document:
        if name not in names:
            near = difflib.get_close_matches(name, [*names, *others], n=1)
            problems[name] = "there is no such field" + (f"; is it {near[0]}?" if near else "")
    value = None
    try:
        value = _converter().structure(document, form)
    except cattrs.BaseValidationError as error:
        for line in cattrs.transform_error(error, format_exception=_in_words):
            problem, _, place = line.rpartition(" @ $")
            problems[_outside(place.lstrip("."))] = problem
    if problems or value is None:
        raise ValidationFailed(problems)
    return value


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind, words in ((str, "text"), (bool, "true or false"), (int, "a whole number")):
        converter.register_structure_hook(kind, _exactly(kind, words))
    converter.register_structure_hook_factory(attrs.has, lambda form: _reader(form, converter))
    converter.register_structure_hook_factory(
        is_sequence, lambda kind: _list_reader(kind, converter)
    )
    return converter


def _exactly(kind: type, words: str) -> Callable[[Any, Any], Any]:
    def read(raw_value: Any, _: Any) -> Any:
        if type(raw_value) is not kind:
            raise _Misfit(f"expected {words}, got {_called(raw_value)}")
        return raw_value

    return read


def _reader(form: type[Any], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    names = {field.name: override(rename=_outside(field.name)) for field in attrs.fields(form)}
    read_fields = make_dict_structure_fn(form, converter, **names)  # type: ignore[arg-type]

    def read(raw_value: Any, _: Any) -> Any:
        if not isinstance(raw_value, Mapping):
            raise _Misfit(f"expected an object, got {_called(raw_value)}")
        return read_fields(raw_value, form)

    return read


def _list_reader(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    read_items = list_structure_factory(kind, converter)

    def read(raw_value: Any, _: Any) -> Any:
        if not isinstance(raw_value, list):
            raise _Misfit(f"expected a list, got {_called(raw_value)}")
        return read_items(raw_value, kind)

    return read


def _in_words(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "is required"
    if isinstance(error, _Misfit):
        return str(error)
    return "expected an object"


def _called(value: Any) -> str:
    """Name a JSON value's type, as a user of JSON knows it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _outside(name: str) -> str:
    """``ssh_key`` to ``sshKey``; what stands in brackets is a user's own name and stays."""
    field, bracket, rest = name.partition("[")
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), field) + bracket + rest


def _no_constant(name: str) -> Any:
    raise _Misfit(f"{name} is not a JSON number")
