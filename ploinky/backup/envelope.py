"""A stream sealed under a passphrase: whole, in order, and to its end, or not opened at all.

The key is made by scrypt (RFC 7914) of the passphrase and a salt of the file's own.  The stream
is cut into chunks, each sealed with AES-256-GCM; the nonce counts them and marks the last one, so
that none can be left out, moved or cut off: the STREAM construction of Hoang, Reyhanitabar, Rogaway
and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (2015).
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ploinky.backup import MAGIC
from ploinky.errors import BackupInvalid

CHUNK_BYTES = 64 * 1024
LEAST_PASSPHRASE = 12
"""Characters: whoever has the file may guess as fast as they like."""

_TAG_BYTES = 16
_SALT_BYTES = 16
_COST, _BLOCK_SIZE, _PARALLEL = 17, 8, 1
"""128 MiB and some tenths of a second a guess (OWASP, Password Storage)."""
_MOST_COST = 20
_HEAD = struct.Struct(f">{len(MAGIC)}sBBB{_SALT_BYTES}s")
_NONCE = struct.Struct(">xxxQB")


class Seal:
    """Seals a stream.

    Args:
        random_bytes: Gives that many unpredictable bytes.

    Making one takes `_COST`'s time and memory: do it in a thread.
    """

    def __init__(self, passphrase: str, random_bytes: Callable[[int], bytes]) -> None:
        salt = random_bytes(_SALT_BYTES)
        self.head = _HEAD.pack(MAGIC, _COST, _BLOCK_SIZE, _PARALLEL, salt)
        self._cipher = AESGCM(_key(passphrase, salt, _COST, _BLOCK_SIZE, _PARALLEL))
        self._waiting = bytearray()
        self._count = 0

    def add(self, data: bytes) -> bytes:
        """Take the next bytes; gives what can be written so far."""
        self._waiting += data
        sealed = []
        while len(self._waiting) > CHUNK_BYTES:  # what is left may be the last
            sealed.append(self._chunk(bytes(self._waiting[:CHUNK_BYTES]), last=False))
            del self._waiting[:CHUNK_BYTES]
        return b"".join(sealed)

    def end(self) -> bytes:
        """Give the rest."""
        return self._chunk(bytes(self._waiting), last=True)

    def _chunk(self, plain: bytes, *, last: bool) -> bytes:
        sealed = self._cipher.encrypt(_NONCE.pack(self._count, last), plain, self.head)
        self._count += 1
        return sealed


class Opened:
    """What was sealed, read from a file.

    Args:
        read: Gives at most so many bytes; fewer only at the end.

    Raises:
        BackupInvalid: At once, or from `read`: the passphrase is another, or the file is damaged.
    """

    def __init__(self, read: Callable[[int], bytes], passphrase: str) -> None:
        self._source = read
        head = read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise BackupInvalid("the backup is cut off")
        magic, cost, block_size, parallel, salt = _HEAD.unpack(head)
        bounded = 1 <= cost <= _MOST_COST and block_size == _BLOCK_SIZE and parallel == _PARALLEL
        if magic != MAGIC or not bounded:  # another cost would fill this machine's memory
            raise BackupInvalid("the backup is sealed in a way that this version does not know")
        self._head = head
        self._cipher = AESGCM(_key(passphrase, salt, cost, block_size, parallel))
        self._count = 0
        self._next = read(CHUNK_BYTES + _TAG_BYTES)
        self._ready = b""
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Give at most so many bytes, all of them authentic; ``b""`` at the end alone."""
        while not self._ready and not self._ended:
            chunk, self._next = self._next, self._source(CHUNK_BYTES + _TAG_BYTES)
            self._ended = not self._next
            try:
                nonce = _NONCE.pack(self._count, self._ended)
                self._ready = self._cipher.decrypt(nonce, chunk, self._head)
            except InvalidTag as error:
                raise BackupInvalid(self._why()) from error
            self._count += 1
        size = len(self._ready) if size < 0 else size
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _why(self) -> str:
        if self._count == 0:
            return "the passphrase is not the one that the backup was made with, or it is damaged"
        return "the backup is cut off" if self._ended else "the backup is damaged"


def _key(passphrase: str, salt: bytes, cost: int, block_size: int, parallel: int) -> bytes:
    kdf = Scrypt(salt=salt, length=32, n=1 << cost, r=block_size, p=parallel)
    return kdf.derive(unicodedata.normalize("NFC", passphrase).encode())
