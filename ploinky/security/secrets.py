"""Secrets at rest: sealed with AES-256-GCM under one master key.

The master key lies beside what it seals, 0600, or comes in
``PLOINKY_MASTER_KEY`` where disk and key are to be kept apart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from zope.interface import implementer

from ploinky.errors import SettingsInvalid, StateUnusable
from ploinky.leader_interfaces import ISecretBox

KEY_BYTES = 32
VARIABLE = "PLOINKY_MASTER_KEY"
NEW_VARIABLE = "PLOINKY_NEW_MASTER_KEY"
FILE_NAME = "master.key"
NEXT_NAME = "master.key.next"
"""There while the key is being replaced: the database says which of the two is in force."""

_VERSION = b"\x01"
_NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.2; random, so fine for 2**32 seals under one key


@implementer(ISecretBox)
class SecretBox:
    """Seals bytes for a purpose.

    What is sealed is one version byte, the nonce, and ciphertext with tag; the purpose is
    authenticated along with it, so that a row's secret cannot be moved to another row.

    Args:
        master_key: 32 bytes.
        random_bytes: Gives that many unpredictable bytes; ``os.urandom`` outside of tests.
    """

    def __init__(self, master_key: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(master_key)
        self._random_bytes = random_bytes

    def seal(self, plain: bytes, purpose: str) -> bytes:
        """See `ISecretBox`."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, purpose.encode())

    def unseal(self, sealed: bytes, purpose: str) -> bytes:
        """See `ISecretBox`."""
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION or len(nonce) != _NONCE_BYTES:
                raise InvalidTag
            return self._cipher.decrypt(nonce, ciphertext, purpose.encode())
        except InvalidTag as error:
            raise StateUnusable(
                f"a secret ({purpose}) cannot be read with this master key; start with the"
                f" {FILE_NAME} or {VARIABLE} that the data directory was made with"
            ) from error


def fingerprint(master_key: bytes) -> str:
    """Name a master key without giving it away."""
    return hmac.new(master_key, b"ploinky master key", hashlib.sha256).hexdigest()[:32]


def master_keys(
    directory: Path,
    environment: Mapping[str, str],
    random_bytes: Callable[[int], bytes],
    *,
    is_new: bool = True,
) -> list[bytes]:
    """Give the master key, and the one that a rotation was about to put in its place, if any.

    The first is made and written to ``directory`` where there is none, and nothing was sealed
    yet.  Reads and writes small files.

    Args:
        directory: The data directory, which exists.
        environment: Usually ``os.environ``.
        is_new: Whether nothing was sealed yet.

    Raises:
        SettingsInvalid: The variable or a file does not hold a key, or others may read the file;
            or the key is missing.
    """
    given = environment.get(VARIABLE)
    if given:
        return [_decoded(given, f"variable {VARIABLE}")]
    path, unfinished = directory / FILE_NAME, directory / NEXT_NAME
    if is_new and not path.exists():
        write_key(path, random_bytes(KEY_BYTES))
    if not (path.exists() or unfinished.exists()):
        raise SettingsInvalid(
            [
                f"the master key is missing, with which the secrets in the database were sealed:"
                f" put {path} back, or set {VARIABLE}"
            ]
        )
    return [read_key(one) for one in (path, unfinished) if one.exists()]


def key_in_force(candidates: Sequence[bytes], noted: str) -> bytes:
    """Choose the key that the database was sealed with.

    Args:
        noted: Its `fingerprint`, as the database has it; ``""`` where it has none yet.

    Raises:
        SettingsInvalid: None of them is.
    """
    for key in candidates:
        if not noted or fingerprint(key) == noted:
            return key
    raise SettingsInvalid(
        [
            f"the secrets in the database were sealed with another master key; start with the"
            f" {FILE_NAME} or {VARIABLE} that the data directory was made with, or that its last"
            " rotation gave"
        ]
    )


def settle_key(directory: Path, key: bytes) -> None:
    """Finish, or forget, a rotation of the file: ``key`` is in force, and no other stays.

    Where the key comes from the environment nothing is touched.
    """
    path, unfinished = directory / FILE_NAME, directory / NEXT_NAME
    if not unfinished.exists():
        return
    if read_key(unfinished) == key:
        unfinished.rename(path)
    else:
        unfinished.unlink()
    _sync(directory)


def new_key(environment: Mapping[str, str]) -> bytes:
    """Give the key that is to come in place of ``PLOINKY_MASTER_KEY``.

    Raises:
        SettingsInvalid: ``PLOINKY_NEW_MASTER_KEY`` does not hold one.
    """
    given = environment.get(NEW_VARIABLE)
    if not given:
        raise SettingsInvalid(
            [
                f"the master key comes from {VARIABLE}, so the new one must come from"
                f" {NEW_VARIABLE}; make one with: openssl rand -base64 32 | tr +/ -_"
            ]
        )
    return _decoded(given, f"variable {NEW_VARIABLE}")


def write_key(path: Path, key: bytes) -> None:
    """Write a key to a file of its own, for its owner alone; it is on disk when this returns.

    Raises:
        SettingsInvalid: It cannot be written.
    """
    try:
        _write(path, base64.urlsafe_b64encode(key) + b"\n")
        _sync(path.parent)
    except OSError as error:
        raise SettingsInvalid([f"{path}: cannot be written: {error.strerror}"]) from error


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    """Write it whole or not at all: half a key would lock everything up."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(unfinished, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def read_key(path: Path) -> bytes:
    """Read a key's file.

    Raises:
        SettingsInvalid: There is none, it holds something else, or others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsInvalid([f"{path}: others may read it; run chmod 600 {path}"])
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid([f"{path}: cannot be read: {error}"]) from error
    return _decoded(text, str(path))


def _decoded(text: str, source: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text.strip().encode())
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsInvalid([f"{source}: expected {KEY_BYTES} bytes in URL-safe base64"])
    return key
