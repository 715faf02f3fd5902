"""``manifest.json`` as bytes to a plain JSON object.  It comes from a repository nobody vouches for.

So: a bounded size and depth, never through a symbolic link, no name twice, and an error that says
the line, the column and, for the usual slips, what to change.  What the fields mean is not known here.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from ploinky.errors import ManifestInvalid

MANIFEST = "manifest.json"
LARGEST_BYTES = 256 * 1024
DEEPEST = 16


class _Twice(ValueError):
    """One object has the same name two times."""


def read_manifest_file(directory: Path) -> bytes | None:
    """Read a checkout's manifest; None where there is none.  Blocks.

    Raises:
        ManifestInvalid: It is not a regular file, or over 256 KiB.
    """
    try:
        descriptor = os.open(
            directory / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ManifestInvalid(
            f"{MANIFEST} cannot be read ({error.strerror}); it must be a regular file, not a link"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ManifestInvalid(f"{MANIFEST} is not a regular file")
        raw_manifest = file.read(LARGEST_BYTES + 1)
    if len(raw_manifest) > LARGEST_BYTES:
        raise ManifestInvalid(f"{MANIFEST} is over {LARGEST_BYTES // 1024} KiB")
    return raw_manifest


def parse_manifest(raw_manifest: bytes) -> dict[str, Any]:
    """Give the JSON object.

    Raises:
        ManifestInvalid: With line, column and a hint in message and ``details``.
    """
    try:
        text = raw_manifest.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"{MANIFEST} is not UTF-8 text (byte {error.start})") from error
    try:
        document = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_not_json_number,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        raise _located(text, error) from error
    except _Twice as error:
        raise ManifestInvalid(f"{MANIFEST}: {error}") from error
    except (RecursionError, ValueError) as error:
        raise ManifestInvalid(
            f"{MANIFEST} is nested too deeply or has a number too long"
        ) from error
    if not isinstance(document, dict):
        raise ManifestInvalid(f'{MANIFEST}: expected a JSON object, {{"about": ...}}')
    if deeper_than(document, DEEPEST):
        raise ManifestInvalid(f"{MANIFEST} is nested over {DEEPEST} levels deep")
    if has_halves(document):
        raise ManifestInvalid(
            f"{MANIFEST} has half a character in a text: \\ud800 to \\udfff come in pairs"
        )
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(f"the name {name[:60]!r} stands twice in one object")
            seen.add(name)
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _not_json_number(name: str) -> Any:
    raise _Twice(f"{name} is not a JSON number")


def has_halves(document: Any) -> bool:
    """Tell whether a text in a JSON document has half a character, which cannot be written as UTF-8.

    Routes with one reach no worker, and neither does any other from then on.
    """
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def deeper_than(document: Any, levels: int) -> bool:
    """Tell whether a JSON document is nested deeper than so many levels."""
    layer = [document]
    for _ in range(levels + 1):
        children: list[Any] = []
        for value in layer:
            if isinstance(value, dict):
                children += value.values()
            elif isinstance(value, list):
                children += value
        layer = children
    return bool(layer)


def _located(text: str, error: json.JSONDecodeError) -> ManifestInvalid:
    """Say where, and what usually causes it; Python's versions differ in where they point."""
    position, said, hint = error.pos, error.msg, ""
    at, before = text[position : position + 1], text[:position].rstrip()
    after_comma = text[position + 1 :].lstrip()[:1]
    if at in ("}", "]") and before.endswith(","):
        position, at, after_comma = len(before) - 1, ",", at
    if not text.strip():
        said = "the file is empty"
    elif at == "," and after_comma in ("}", "]"):
        said = f"a comma stands before {after_comma!r}"
        hint = "remove the trailing comma"
    elif at == "'":
        hint = "JSON takes double quotes only"
    elif at in ("/", "#"):
        hint = "JSON has no comments"
    elif "control character" in said:
        hint = r"a line break inside a text is written \n"
    elif said.startswith("Expecting ',' delimiter"):
        hint = "a comma is missing before this"
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    ending = f"; {hint}" if hint else ""
    return ManifestInvalid(
        f"{MANIFEST}, line {line}, column {column}: {said}{ending}",
        details={"line": line, "column": column, "problem": said, "hint": hint},
    )
