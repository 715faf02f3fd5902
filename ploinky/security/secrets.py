"""Secrets at rest: sealed with AES-256-GCM under one master key.

The master key lies beside what it seals, 0600, or comes in
``PLOINKY_MASTER_KEY`` where disk and key are to be kept apart.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from zope.interface import implementer

from ploinky.errors import SettingsInvalid, StateUnusable
from ploinky.interfaces import ISecretBox

KEY_BYTES = 32
VARIABLE = "PLOINKY_MASTER_KEY"
FILE_NAME = "master.key"

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


def read_master_key(
    directory: Path, environment: Mapping[str, str], random_bytes: Callable[[int], bytes]
) -> bytes:
    """Give the master key; it is made and written to ``directory`` where there is none yet.

    Reads and writes one small file, so it belongs before the reactor runs.

    Args:
        directory: The data directory, which exists.
        environment: Usually ``os.environ``.

    Raises:
        SettingsInvalid: The variable or the file does not hold a key, or others may read the file.
    """
    given = environment.get(VARIABLE)
    if given:
        return _decoded(given, f"variable {VARIABLE}")
    path = directory / FILE_NAME
    if path.exists():
        return _from_file(path)
    key = random_bytes(KEY_BYTES)
    try:
        _write(path, base64.urlsafe_b64encode(key) + b"\n")
    except OSError as error:
        raise SettingsInvalid([f"{path}: cannot be written: {error.strerror}"]) from error
    return key


def _write(path: Path, content: bytes) -> None:
    """Write it whole or not at all: half a key would lock everything up."""
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(unfinished, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def _from_file(path: Path) -> bytes:
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
