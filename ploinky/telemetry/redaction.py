"""Keeps secrets out of what is written down.

Texts enter and leave, with ``***`` in place of what nobody should read in a log:
a safety net below rooms that do not log secrets in the first place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from zope.interface import implementer

from ploinky.leader_interfaces import ISecretBox
from ploinky.telemetry.masking import (
    SHORTEST_SECRET,
    Secret,
    StreamMask,
    covered,
    merged,
    places_of,
    places_of_logins,
    places_of_part,
)

SHORTEST_LINE = 16
"""Characters of one line of a secret that is masked by itself."""

_TELLING_NAME = re.compile(
    r"key|token|secret|pass|pwd|credential|auth|private|salt|cookie|session|dsn|cert", re.IGNORECASE
)
_PLAIN_VALUE = re.compile(
    r"[a-z][a-z.-]*|[0-9.:]+|(?:https?://)?[a-z0-9.-]+(?::[0-9]+)?(?:/[a-z/]*)?"
)
"""What is no secret by its looks: words, numbers, addresses."""


class Redactor:
    """Masks API keys, session tokens, credentials in URLs, and every secret that it was told.

    It may be told by any thread.
    """

    def __init__(self) -> None:
        self._secrets: dict[str, Secret] = {}

    def add(self, *secrets: str) -> None:
        """Mask these from now on; those under `SHORTEST_SECRET` characters are not masked."""
        long = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
        long += [line for secret in long for line in _telling_lines(secret)]
        # Also as `repr` and JSON write it: a key of several lines shows up so in messages.
        new = {form(secret) for secret in long for form in (str, _as_repr, _as_json)}
        if not new <= self._secrets.keys():
            # Another one in its place: a thread may be going through the one that there was.
            self._secrets = {**self._secrets, **{text: Secret(text) for text in new}}

    def __call__(self, text: str) -> str:
        """Give `text` with every secret masked."""
        places = [*places_of(text, self._secrets.values()), *places_of_logins(text)]
        return covered(text, merged(places))

    def part(self, text: str) -> str:
        """Give a text that was cut out of another one, with halves of secrets masked as well."""
        return covered(text, places_of_part(text, tuple(self._secrets.values())))

    def stream(self) -> StreamMask:
        """Give what masks a text that comes piece by piece."""
        return StreamMask(tuple(self._secrets.values()))


def secrets_among(variables: Mapping[str, Any]) -> list[str]:
    """Give the values of variables that are secret: by their name, or as they do not look plain.

    ``NODE_ENV=production`` is none, or half of a log would be masked.
    """
    return [
        value
        for name, value in variables.items()
        if isinstance(value, str)
        and (_TELLING_NAME.search(name) or not _PLAIN_VALUE.fullmatch(value))
    ]


@implementer(ISecretBox)
class RememberingBox:
    """An `ISecretBox` that tells a redactor of whatever it seals or opens.

    Every secret that this server keeps passes here before it can be used: environments,
    credentials.

    Args:
        box: Does the work.
    """

    def __init__(self, box: ISecretBox, redactor: Redactor) -> None:
        self._box = box
        self._redactor = redactor

    def seal(self, plain: bytes, purpose: str) -> bytes:
        """See `ISecretBox`."""
        self._remember(plain)
        return self._box.seal(plain, purpose)

    def unseal(self, sealed: bytes, purpose: str) -> bytes:
        """See `ISecretBox`."""
        plain = self._box.unseal(sealed, purpose)
        self._remember(plain)
        return plain

    def _remember(self, plain: bytes) -> None:
        try:
            document = json.loads(plain)
        except ValueError:
            document = plain.decode("utf-8", "replace")
        if isinstance(document, Mapping):
            self._redactor.add(*secrets_among(document))
        elif isinstance(document, str):
            self._redactor.add(document)


def _telling_lines(secret: str) -> list[str]:
    """Give the lines of a secret of several, such as a private key: some print it line by line."""
    lines = secret.splitlines()
    return [line for line in lines if len(line) >= SHORTEST_LINE] if len(lines) > 1 else []


def _as_repr(secret: str) -> str:
    return repr(secret)[1:-1]


def _as_json(secret: str) -> str:
    return json.dumps(secret)[1:-1]
