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

from ploinky.interfaces import ISecretBox

MASK = "***"
SHORTEST_SECRET = 6
"""Characters; masking ``abc`` wherever it occurs would hide more than it protects."""

_KEY = r"(?<=\bp[bks]_)[A-Za-z0-9_-]{20,}"
_URL_LOGIN = r"(?<=://)(?:[^\s/]+|[^\s\"'/:@]{0,99}:(?!\d+/)[^\s\"']{1,500})(?=@)"
"""Up to the last ``@``: a password that somebody forgot to escape may have one, or a slash, in it.
What is bounded is so as every ``://`` of a long text is a beginning."""
_SCP_LOGIN = r"(?<![^\s\"'])[\w.-]{1,99}:[^\s@\"'/]+(?=@[\w.-]{1,253}:)"
"""Where somebody took ``user@host:path`` for a place to put a password in."""
_FORMS = re.compile(f"{_KEY}|{_URL_LOGIN}|{_SCP_LOGIN}")


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
        self._secrets: frozenset[str] = frozenset()
        self._known: tuple[str, ...] | None = ()

    def add(self, *secrets: str) -> None:
        """Mask these from now on; those under `SHORTEST_SECRET` characters are not masked."""
        long = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
        # Also as `repr` and JSON write it: a key of several lines shows up so in messages.
        new = {form(secret) for secret in long for form in (str, _as_repr, _as_json)}
        if not new <= self._secrets:
            self._secrets |= new
            self._known = None

    def __call__(self, text: str) -> str:
        """Give `text` with every secret masked."""
        known = self._known
        if known is None:
            # The longest first: of two secrets where one begins with the other, all is masked.
            known = self._known = tuple(sorted(self._secrets, key=len, reverse=True))
        for secret in known:
            if secret in text:
                text = text.replace(secret, MASK)
        return _FORMS.sub(MASK, text)


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


def _as_repr(secret: str) -> str:
    return repr(secret)[1:-1]


def _as_json(secret: str) -> str:
    return json.dumps(secret)[1:-1]
