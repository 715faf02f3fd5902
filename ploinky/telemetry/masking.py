"""Secrets in texts: where they stand, also in texts that come piece by piece or were cut.

Texts and secrets enter; places, or masked texts, leave.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MASK = "***"
SHORTEST_SECRET = 6
"""Characters; masking ``abc`` wherever it occurs would hide more than it protects.  So much of a
secret that is cut in two has to be there, too."""

MOST_OPEN = 4096
"""Characters of what may yet turn out to be a key, or a URL's password."""

_KEY = r"(?<=\bp[bks]_)[A-Za-z0-9_-]{20,}"
_URL_LOGIN = r"(?<=://)(?:[^\s/]+|[^\s\"'/:@]{0,99}:(?!\d+/)[^\s\"']{1,500})(?=@)"
"""Up to the last ``@``: a password that somebody forgot to escape may have one, or a slash, in it.
What is bounded is so as every ``://`` of a long text is a beginning."""
_FORMS = re.compile(f"{_KEY}|{_URL_LOGIN}")
_SCP_LOGIN = re.compile(r"(?<![^\s\"'])[\w.-]{1,99}:[^\s@\"'/]+(?=@[\w.-]{1,253}:)")
"""Where somebody took ``user@host:path`` for a place to put a password in: in whole texts alone, as
any word may be the beginning of one."""
_KEY_BEGINS = re.compile(r"\bp[bks]_")
_KEY_TURNED = re.compile(r"[A-Za-z0-9_-]*.?")
_WORD_TURNED = re.compile(r"\S*")

Place = tuple[int, int]


class Secret:
    """A secret, and how to find half of one.

    Args:
        text: Is not empty.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._turned = text[::-1]
        self._borders: list[int] | None = None
        self._turned_borders: list[int] | None = None

    def begun(self, text: str) -> int:
        """Tell how many of its first characters end a text; all of it does not count."""
        if self._borders is None:
            self._borders = _borders(self.text)
        return _matched(self.text, self._borders, text[max(0, len(text) - len(self.text) + 1) :])

    def left(self, text: str) -> int:
        """Tell how many of its last characters begin a text; all of it does not count."""
        if self._turned_borders is None:
            self._turned_borders = _borders(self._turned)
        return _matched(self._turned, self._turned_borders, text[: len(self.text) - 1][::-1])


def _borders(text: str) -> list[int]:
    """For each beginning of a text: how much of its own beginning ends it, but for all of it.

    Source: Knuth, Morris, Pratt, *Fast pattern matching in strings*, 1977.
    """
    borders = [0]
    for character in text[1:]:
        length = borders[-1]
        while length and text[length] != character:
            length = borders[length - 1]
        borders.append(length + (text[length] == character))
    return borders


def _matched(text: str, borders: Sequence[int], other: str) -> int:
    """Tell how much of a text's beginning ends another, shorter one."""
    length = 0
    for character in other:
        while length and text[length] != character:
            length = borders[length - 1]
        length += text[length] == character
    return length


def places_of(text: str, secrets: Iterable[Secret]) -> list[Place]:
    """Give where secrets stand, keys and URLs' passwords too, in order; what overlaps is one."""
    places = [match.span() for match in _FORMS.finditer(text)]
    for secret in secrets:
        at = text.find(secret.text)
        while at >= 0:
            places.append((at, at + len(secret.text)))
            at = text.find(secret.text, at + 1)
    return merged(places)


def places_of_logins(text: str) -> list[Place]:
    """Give where a whole text has a password in what was meant for ``user@host:path``."""
    return [match.span() for match in _SCP_LOGIN.finditer(text)]


def places_of_part(text: str, secrets: Sequence[Secret]) -> list[Place]:
    """Give the same of a text that was cut out of another: a half at either end counts as well."""
    halves = _half_at_the_beginning(text, secrets), _half_at_the_end(text, secrets)
    return merged([*places_of(text, secrets), *halves[0], *halves[1]])


def _half_at_the_beginning(text: str, secrets: Iterable[Secret]) -> list[Place]:
    length = max((secret.left(text) for secret in secrets), default=0)
    return [(0, length)] if length >= SHORTEST_SECRET else []


def _half_at_the_end(text: str, secrets: Iterable[Secret]) -> list[Place]:
    length = max((secret.begun(text) for secret in secrets), default=0)
    return [(len(text) - length, len(text))] if length >= SHORTEST_SECRET else []


def covered(text: str, places: Iterable[Place]) -> str:
    """Give a text with a mask at each of these places."""
    parts, shown = [], 0
    for begin, end in places:
        parts += [text[shown:begin], MASK]
        shown = end
    return "".join([*parts, text[shown:]]) if parts else text


def merged(places: list[Place]) -> list[Place]:
    """Give places in order; what overlaps is one."""
    merged: list[Place] = []
    for begin, end in sorted(places):
        if merged and begin < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


class StreamMask:
    """Masks a text that comes piece by piece; it comes out as if it had come whole.

    What may be the beginning of a secret is held back until that is decided: at most as many
    characters as the longest secret has, or `MOST_OPEN`.
    """

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = secrets
        self._text = ""
        self._shown = 0
        self._masked = 0

    def feed(self, piece: str, *, is_cut: bool = False) -> str:
        """Take a piece; give what is decided.

        Args:
            is_cut: It is the first one, and the text may begin amid a secret.
        """
        self._text += piece
        places = places_of(self._text, self._secrets)
        if is_cut:
            places = merged([*places, *_half_at_the_beginning(self._text, self._secrets)])
        return self._show(self._undecided_from(), places)

    def flush(self) -> str:
        """Nothing came for a while: give what is too little of a secret to be one's half."""
        at = self._undecided_from()
        if len(self._text) - at < SHORTEST_SECRET:
            at = len(self._text)
        return self._show(at, places_of(self._text, self._secrets))

    def end(self) -> str:
        """Nothing more will come: give what is left, without halves of secrets."""
        text, secrets = self._text, self._secrets
        places = [*places_of(text, secrets), *_half_at_the_end(text, secrets)]
        return self._show(len(text), merged(places))

    def _undecided_from(self) -> int:
        """Tell from where on more is needed to know what it is."""
        text = self._text
        open_from = len(text) - max((secret.begun(text) for secret in self._secrets), default=0)
        turned = text[: -MOST_OPEN - 1 : -1]
        word = _WORD_TURNED.match(turned)
        if word is not None:
            open_login = word[0].rfind("//:")
            if open_login >= 0:  # it goes as far as the last @ of the word
                open_from = min(open_from, len(text) - open_login)
        word = _KEY_TURNED.match(turned)
        key = _KEY_BEGINS.search(word[0][::-1]) if word is not None else None
        if word is not None and key is not None:
            open_from = min(open_from, len(text) - word.end() + key.end())
        return max(open_from, self._shown)

    def _show(self, to: int, places: Iterable[Place]) -> str:
        """Give what was not shown yet, up to there."""
        parts = []
        for begin, end in places:
            if begin >= to:
                break
            if end <= self._masked or end <= self._shown:
                continue
            parts.append(self._text[max(self._shown, self._masked) : begin])
            if begin >= self._masked:  # else it goes on from one that was shown
                parts.append(MASK)
            self._masked = end
        parts.append(self._text[max(self._shown, self._masked) : to])
        kept = max(0, to - MOST_OPEN)  # what was before tells what a word is
        self._text, self._shown = self._text[kept:], to - kept
        self._masked = max(0, self._masked - kept)
        return "".join(parts)


class NoMask:
    """Stands for a `StreamMask` where there is nothing to hide: all is shown at once."""

    def feed(self, piece: str, *, is_cut: bool = False) -> str:
        """Give it back."""
        return piece

    def flush(self) -> str:
        """Give nothing: nothing is held back."""
        return ""

    end = flush
