"""What must never be read in a log."""

from __future__ import annotations

import json
import os

import pytest

from ploinky.security.secrets import SecretBox
from ploinky.telemetry.masking import MASK
from ploinky.telemetry.redaction import Redactor, RememberingBox, secrets_among


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key pk_" + "a" * 43 + " was used", "key pk_*** was used"),
        ("cookie=ps_" + "-_" * 21 + "z;", "cookie=ps_***;"),
        ("https://user:hunter2@git.example/x.git", "https://***@git.example/x.git"),
        ("the package pk_short and caps_lock stay", "the package pk_short and caps_lock stay"),
        ("https://git.example/a@b", "https://git.example/a@b"),
        ("https://git.example:8443/@a/b@c", "https://git.example:8443/@a/b@c"),
        ("see 'git:hunter2@git.example:x.git'", "see '***@git.example:x.git'"),
        ("at 12:30 git@git.example:x.git", "at 12:30 git@git.example:x.git"),
        ("see https://u:p@ss@git.example/x now", "see https://***@git.example/x now"),
        ("see https://u:p/w@git.example/x now", "see https://***@git.example/x now"),
        ('{"url":"https://git.example:x/y","by":"a@b"}',) * 2,
    ],
)
def test_keys_and_passwords_are_masked_wherever_they_stand(text: str, masked: str) -> None:
    """Nobody has to register an API key, a session or a URL's password."""
    assert Redactor()(text) == masked


@pytest.mark.parametrize("text", ["://:a" * 40_000, "a:b " * 40_000, "a" * 200_000, "a:" * 100_000])
def test_no_text_keeps_it_busy(text: str) -> None:
    """It looks at each place for so long at most: anybody's text may be logged, and this would not
    come to an end."""
    assert Redactor()(text) == text


def test_a_registered_secret_is_masked() -> None:
    """Also one with characters that mean something in a pattern, and one within another."""
    redactor = Redactor()
    redactor.add("s3cr.t+", "s3cr.t+longer")
    redactor.add("s3cr.t+")
    assert redactor("a s3cr.t+longer b s3cr.t+ c s3crxt+") == "a *** b *** c s3crxt+"


def test_a_secret_of_few_characters_masks_nothing() -> None:
    """A deployment with PASSWORD=a does not turn the log to stars."""
    redactor = Redactor()
    redactor.add("a", "")
    assert redactor("a banana") == "a banana"


def test_a_secret_is_masked_in_every_spelling() -> None:
    """A private key of several lines, as Python and JSON write it."""
    redactor = Redactor()
    key = '-----BEGIN-----\n"ü"\n-----END-----\n'
    redactor.add(key)
    for text in (key, repr(key), json.dumps(key)):
        assert "BEGIN" not in redactor(text)


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("API_TOKEN", "correcthorse", True),
        ("DATABASE_URL", "postgres://u:pw@db/x", True),
        ("SEED", "f9A3-x91kd02", True),
        ("PASSWORD", "localhost", True),
        ("NODE_ENV", "production", False),
        ("HOST", "db.example.com", False),
        ("BASE", "https://api.example.com/v", False),
        ("PORT_RANGE", "8000:9000", False),
    ],
)
def test_a_deployments_secrets_are_told_from_its_settings(
    name: str, value: str, is_secret: bool
) -> None:
    """By name, or because they look like none; else half of a log would be masked."""
    assert (secrets_among({name: value}) == [value]) is is_secret


def test_what_is_kept_sealed_is_masked_in_logs() -> None:
    """Environments and credentials, when they are written and when they are read again."""
    sealed = SecretBox(b"k" * 32, os.urandom)
    written, read = Redactor(), Redactor()
    secret = RememberingBox(sealed, written).seal(b'{"TOKEN": "hunter22", "MODE": "debug"}', "x")
    assert written("TOKEN=hunter22 MODE=debug") == f"TOKEN={MASK} MODE=debug"
    assert RememberingBox(sealed, read).unseal(secret, "x").startswith(b"{")
    assert read("fatal: hunter22") == f"fatal: {MASK}"
    RememberingBox(sealed, read).seal(b"not json but secret", "y")
    assert read("not json but secret") == MASK
