"""The box that secrets are kept in, and its key."""

from __future__ import annotations

import base64
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from ploinky.errors import SettingsInvalid, StateUnusable
from ploinky.leader_interfaces import ISecretBox
from ploinky.security.secrets import SecretBox, master_keys

KEY = b"k" * 32
BOX = SecretBox(KEY, os.urandom)


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_was_sealed_comes_back(plain, purpose):
    """Any bytes, for any purpose; never twice the same on disk."""
    assert verifyObject(ISecretBox, BOX)
    sealed = BOX.seal(plain, purpose)
    assert BOX.unseal(sealed, purpose) == plain
    assert BOX.seal(plain, purpose) != sealed


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_noticed(position, change):
    """Wherever it is; a secret is never read as something else."""
    sealed = bytearray(BOX.seal(b"secret", "here"))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(StateUnusable):
        BOX.unseal(bytes(sealed), "here")


@pytest.mark.parametrize("length", [0, 1, 5, 13, 20])
def test_a_truncated_secret_is_noticed(length):
    """However little is left of it."""
    with pytest.raises(StateUnusable):
        BOX.unseal(BOX.seal(b"secret", "here")[:length], "here")


def test_a_secret_opens_in_its_own_place_only():
    """One moved to another row, or met by another key, stays shut; the message says what to do."""
    sealed = BOX.seal(b"secret", "release/a/1")
    with pytest.raises(StateUnusable, match="master key"):
        BOX.unseal(sealed, "release/a/2")
    with pytest.raises(StateUnusable, match="PLOINKY_MASTER_KEY"):
        SecretBox(b"o" * 32, os.urandom).unseal(sealed, "release/a/1")


def test_the_master_key_is_made_once(tmp_path):
    """0600, the same at every start, and gone with the data directory alone."""
    before = os.umask(0)
    try:
        (key,) = master_keys(tmp_path, {}, os.urandom)
    finally:
        os.umask(before)
    assert len(key) == 32
    assert master_keys(tmp_path, {}, os.urandom) == [key]
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_variable_keeps_the_key_off_the_disk(tmp_path):
    """It wins over a file, and none is written."""
    given_key = {"PLOINKY_MASTER_KEY": base64.urlsafe_b64encode(KEY).decode()}
    assert master_keys(tmp_path, given_key, os.urandom) == [KEY]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["short", "!" * 44, "ü" * 44, base64.b64encode(b"x" * 31).decode()]
)
def test_a_variable_that_is_no_key_is_refused(tmp_path, text):
    """Its name and form are told, its value is not."""
    with pytest.raises(SettingsInvalid, match=r"PLOINKY_MASTER_KEY: expected 32 bytes") as raised:
        master_keys(tmp_path, {"PLOINKY_MASTER_KEY": text}, os.urandom)
    assert text not in str(raised.value)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    """With the command that mends it."""
    master_keys(tmp_path, {}, os.urandom)
    (tmp_path / "master.key").chmod(0o640)
    with pytest.raises(SettingsInvalid, match=r"chmod 600 .*master\.key"):
        master_keys(tmp_path, {}, os.urandom)


def test_a_key_that_is_missing_is_not_replaced(tmp_path):
    """What was sealed with it would stay so; a new one in its place would pass for it."""
    with pytest.raises(SettingsInvalid, match=r"is missing.*put .*/master\.key back"):
        master_keys(tmp_path, {}, os.urandom, is_new=False)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """With the system's reason."""
    with pytest.raises(SettingsInvalid, match="No such file"):
        master_keys(tmp_path / "absent", {}, os.urandom)
