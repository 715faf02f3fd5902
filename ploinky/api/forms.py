"""JSON and queries to attrs classes, every problem at once; and attrs classes to JSON.

Fields are ``snake_case`` here and ``camelCase`` outside.  Nothing is coerced in a body: a
number is not text, and a text is not a list of its letters.  A query is text, and is read as
what its field says.  cattrs reads and writes, as msgspec stops at the first problem; what a
field may hold beyond its type is a ``msgspec.Meta``, from which `ploinky.api.openapi` describes it.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, get_args

import attrs
import cattrs
from cattrs.cols import is_sequence, list_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from msgspec import Meta

from ploinky.deployment.documents import deeper_than, has_halves
from ploinky.errors import BadJson, ValidationFailed

T = TypeVar("T")

DEEPEST = 64
"""Levels of a body: as p-cli takes of a file."""


class _Misfit(ValueError):
    """What was expected, in words."""


def parse_json(raw_body: bytes) -> Any:
    """Read a body; none at all is an empty object.

    It is bounded in depth, as a part of it may be kept and shown again: whatever reads that later
    could go less deep than this does.

    Raises:
        BadJson: With line and column, counted from 1.
    """
    if not raw_body:
        return {}
    document = _parsed(raw_body)
    if deeper_than(document, DEEPEST):
        raise BadJson(f"the body is nested over {DEEPEST} levels deep")
    return document


def _parsed(raw_body: bytes) -> Any:
    try:
        text = raw_body.decode("utf-8")
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
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


def check_characters(document: Any) -> None:
    """See that all of a document can be written down and handed on, as UTF-8.

    Raises:
        BadJson: A text in it has half a character.
    """
    if has_halves(document):
        raise BadJson("the body has half a character in a text: \\ud800 to \\udfff come in pairs")


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
    return _read(form, document, "field", others, _converter())


def from_query(form: type[T], query: Mapping[str, str]) -> T:
    """Make a ``form`` of a query's values.

    Raises:
        ValidationFailed: One entry a parameter.
    """
    return _read(form, query, "query parameter", (), _converter(from_text=True))


def plain(document: Any) -> Any:
    """Give what JSON can hold: attrs classes as objects, their fields in ``camelCase``."""
    return _writer().unstructure(document)


def outside_names(form: type[Any]) -> dict[str, str]:
    """Give the fields of an attrs class by their names outside."""
    return {outside(field.name): field.name for field in attrs.fields(form)}


def outside(name: str) -> str:
    """``ssh_key`` to ``sshKey``; what stands in brackets is a user's own name and stays."""
    field, bracket, rest = name.partition("[")
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), field) + bracket + rest


def _read(
    form: type[T],
    given: Mapping[str, Any],
    kind: str,
    others: Iterable[str],
    converter: cattrs.Converter,
) -> T:
    names = list(outside_names(form))
    problems: dict[str, str] = {}
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, [*names, *others], n=1)
            problems[name] = f"there is no such {kind}" + (f"; is it {near[0]}?" if near else "")
    value = None
    try:
        value = converter.structure(given, form)
    except cattrs.BaseValidationError as error:
        for line in cattrs.transform_error(error, format_exception=_in_words):
            problem, _, place = line.rpartition(" @ $")
            problems[outside(place.lstrip("."))] = problem
    if problems or value is None:
        raise ValidationFailed(problems)
    return value


@cache
def _writer() -> cattrs.Converter:
    converter = cattrs.Converter()

    def write(form: type[Any]) -> Callable[[Any], Any]:
        names = {inside: override(rename=name) for name, inside in outside_names(form).items()}
        return make_dict_unstructure_fn(form, converter, **names)  # type: ignore[arg-type]

    converter.register_unstructure_hook_factory(attrs.has, write)
    return converter


@cache
def _converter(from_text: bool = False) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    readers = _FROM_TEXT if from_text else _FROM_JSON
    for kind, read in readers.items():
        converter.register_structure_hook(kind, read)
    converter.register_structure_hook_factory(attrs.has, lambda form: _reader(form, converter))
    converter.register_structure_hook_factory(
        is_sequence, lambda kind: _list_reader(kind, converter)
    )
    converter.register_structure_hook_factory(
        lambda kind: hasattr(kind, "__metadata__"), lambda kind: _bounded(kind, converter)
    )
    return converter


def _bounded(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Hold a value to what its ``Meta`` says."""
    inner, *notes = get_args(kind)
    read_inner = converter.get_structure_hook(inner)
    metas = [note for note in notes if isinstance(note, Meta)]

    def read(raw_value: Any, _: Any) -> Any:
        value = read_inner(raw_value, inner)
        for meta in metas:
            if not _within(value, meta):
                raise _Misfit(f"expected a whole number from {meta.ge} to {meta.le}")
        return value

    return read


def _within(value: Any, meta: Meta) -> bool:
    return (meta.ge is None or value >= meta.ge) and (meta.le is None or value <= meta.le)


def _exactly(kind: type, words: str) -> Callable[[Any, Any], Any]:
    def read(raw_value: Any, wanted: Any) -> Any:
        if isinstance(wanted, type) and issubclass(wanted, Enum):  # one of texts is a text as well
            return _choice(raw_value, wanted)
        if type(raw_value) is not kind:
            raise _Misfit(f"expected {words}, got {_called(raw_value)}")
        return raw_value

    return read


def _number(raw_value: Any, _: Any) -> float:
    if type(raw_value) not in (int, float):
        raise _Misfit(f"expected a number, got {_called(raw_value)}")
    return float(raw_value)


def _choice(raw_value: Any, kind: type[Enum]) -> Enum:
    try:
        return kind(raw_value)
    except ValueError:
        raise _Misfit(f"expected one of {', '.join(one.value for one in kind)}") from None


def _whole_from_text(raw_value: str, _: Any) -> int:
    if not (raw_value.isascii() and raw_value.isdigit() and len(raw_value) < 16):
        raise _Misfit("expected a whole number")
    return int(raw_value)


def _flag_from_text(raw_value: str, _: Any) -> bool:
    found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if raw_value.lower() not in found:
        raise _Misfit("expected true or false")
    return found[raw_value.lower()]


_FROM_JSON: dict[Any, Callable[[Any, Any], Any]] = {
    str: _exactly(str, "text"),
    bool: _exactly(bool, "true or false"),
    int: _exactly(int, "a whole number"),
    float: _number,
}
_FROM_TEXT: dict[Any, Callable[[Any, Any], Any]] = {
    str: _exactly(str, "text"),
    bool: _flag_from_text,
    int: _whole_from_text,
}


def _reader(form: type[Any], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    names = {inside: override(rename=name) for name, inside in outside_names(form).items()}
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


def _finite(text: str) -> float:
    """Read a number; one that is beyond all others would be written as what is no JSON."""
    value = float(text)
    if not math.isfinite(value):
        raise _Misfit(f"{text[:20]} is too large a number")
    return value


def _no_constant(name: str) -> Any:
    raise _Misfit(f"{name} is not a JSON number")
