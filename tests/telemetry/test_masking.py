"""Secrets in texts that come piece by piece, or were cut."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ploinky.telemetry.masking import MASK, MOST_OPEN, SHORTEST_SECRET, places_of_logins
from ploinky.telemetry.redaction import Redactor

KEY = "pk_" + "A-b_" * 8
LETTERS = "ab\n/:@p_k "
SECRETS = st.text(LETTERS, min_size=SHORTEST_SECRET, max_size=14)


def redactor(*secrets: str) -> Redactor:
    """One that knows these."""
    made = Redactor()
    made.add(*secrets)
    return made


@st.composite
def told(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Secrets that are much alike, and pieces of a text in which much of them occurs."""
    secrets = draw(st.lists(SECRETS, max_size=4))
    more = [part for secret in secrets for part in (secret, secret[:-1], secret[1:])]
    words = st.sampled_from(
        [*more, KEY, "https://u:pw@host/", "https://u:p/w@h/x ", "http://host/x ", "p", "pk_"]
    )
    parts = st.lists(words | st.text(LETTERS, max_size=4), max_size=12)
    text = "".join(draw(parts))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return secrets, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(told())
@example((["aaaaaa"], ["aaaaa", "aaa", "a", "aaaaaaaaaab"]))
@example((["abcabcab", "cabbage"], ["abcab", "cabba", "ge abcabcab", "bage"]))
@example(([], ["x https:", "//us", "er:pw", "@h pk_AAAA", "A" * 30, "."]))
@example((["one\ntwo"], ["one\n", "two one\n", "three"]))
def test_however_it_is_cut_a_text_is_masked_as_a_whole(case: tuple[list[str], list[str]]) -> None:
    """Of what ends amid a secret the half is masked too; else the two are the same."""
    secrets, pieces = case
    assume(not places_of_logins("".join(pieces)))  # those are found in whole texts alone
    known = redactor(*secrets)
    stream = known.stream()
    shown = "".join(map(stream.feed, pieces)) + stream.end()
    whole = "".join(pieces)
    ended = known(whole + "\0")[:-1]  # so that nothing is cut off at the end
    if shown != ended:
        assert shown.endswith(MASK)
        assert any(s[:n] == whole[-n:] for s in _forms(secrets) for n in range(6, len(s)))


def _forms(secrets: list[str]) -> set[str]:
    return {form for s in secrets for form in (s, repr(s)[1:-1], s.replace("\n", "\\n"))}


@given(told())
def test_a_pause_shows_no_half_of_a_secret(case: tuple[list[str], list[str]]) -> None:
    """Whatever is flushed when nothing came for a while: no more than the few first characters."""
    secrets, pieces = case
    stream = redactor(*secrets).stream()
    shown = ""
    for piece in pieces:
        shown += stream.feed(piece) + stream.flush()
    shown += stream.end()
    assert not any(secret in shown for secret in secrets if "*" not in secret)


def test_what_is_held_back_is_little() -> None:
    """No more than the longest secret, however long the text; a key that never ends is let go."""
    stream = redactor("secret-of-many-characters").stream()
    given_back = "".join(stream.feed("a secret-of-") for _ in range(1000))
    assert len(given_back) > 12_000 - 25
    assert stream.feed("pk_") == "secret-of-pk_"
    assert len("".join(stream.feed("A" * 1000) for _ in range(20))) > 20_000 - MOST_OPEN - 1000


@pytest.mark.parametrize(
    ("cut", "masked"),
    [
        ("many-characters and on", "*** and on"),
        ("so it is secret-of-many", "so it is ***"),
        ("many-characters secret-of-many", "*** ***"),
        ("ters and secre", "ters and secre"),
        ("secret-of-many-characters", "***"),
        ("many", "many"),
        ("", ""),
    ],
)
def test_half_a_secret_where_a_text_was_cut_is_masked(cut: str, masked: str) -> None:
    """The last lines of an output may begin, or end, amid one."""
    assert redactor("secret-of-many-characters").part(cut) == masked


def test_the_last_lines_of_a_key_of_many_lines_are_masked() -> None:
    """As whoever asks for the last five lines would see them."""
    lines = [f"{number:064d}" for number in range(27)]
    key = "\n".join(["-----BEGIN-----", *lines, "-----END-----"])
    tail = "\n".join([*lines[-4:], "-----END-----", "and on"])
    assert redactor(key).part(tail) == "***\nand on"


def test_secrets_that_overlap_are_masked_together() -> None:
    """Nothing of either is left."""
    assert redactor("abcdefgh", "fghijklm")("xabcdefghijklmx") == "x***x"
