"""Keeps secrets out of what is written down.

Texts enter and leave, with ``***`` in place of what nobody should read in a log:
a safety net below rooms that do not log secrets in the first place.
"""

from __future__ import annotations

import json
import re

MASK = "***"
SHORTEST_SECRET = 6
"""Characters; masking ``abc`` wherever it occurs would hide more than it protects."""

_KEY = r"(?<=\bp[ks]_)[A-Za-z0-9_-]{20,}"
_URL_LOGIN = r"(?<=://)[^\s/@]+(?=@)"


class Redactor:
    """Masks API keys, session tokens, credentials in URLs, and every secret that it was told."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._pattern = self._compiled()

    def add(self, *secrets: str) -> None:
        """Mask these from now on; those under `SHORTEST_SECRET` characters are not masked."""
        long = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
        # Also as `repr` and JSON write it: a key of several lines shows up so in messages.
        new = {form(secret) for secret in long for form in (str, _as_repr, _as_json)}
        if not new <= self._secrets:
            self._secrets |= new
            self._pattern = self._compiled()

    def __call__(self, text: str) -> str:
        """Give `text` with every secret masked."""
        return self._pattern.sub(MASK, text)

    def _compiled(self) -> re.Pattern[str]:
        # The longest first: of two secrets where one begins with the other, all is masked.
        known = sorted(self._secrets, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, known), _KEY, _URL_LOGIN]))


def _as_repr(secret: str) -> str:
    return repr(secret)[1:-1]


def _as_json(secret: str) -> str:
    return json.dumps(secret)[1:-1]
