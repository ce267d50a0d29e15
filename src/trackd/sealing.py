"""What must not be read from the disk alone: sealed with AES-256-GCM, under a key kept elsewhere.

    sealed = version u8 · nonce (12) · ciphertext and tag
    key file = "trackd-key-1 " · 32 bytes in base64 · newline

A sealed text opens only in the place that it was sealed for (the associated data): one record's
secret cannot be moved into another. The key file stands outside the data directory, so that a copy
of the data does not hold it. Nothing here knows what is sealed.
"""

import base64
import binascii
import contextlib
import os
import secrets
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NONCE_LENGTH = 12
_KEY_LENGTH = 32
_KEY_HEAD = b"trackd-key-1 "

_log = structlog.get_logger()


class KeyUnavailable(Exception):
    """There is no key, or not the one; the message says which file it is about."""


class Seal:
    """Seals and opens under the key of one file.

    - The file is made, with mode 0600, when something is sealed for the first time.
    - With `must_exist` a missing file is an error: what is there was sealed with it.
    """

    def __init__(self, path: Path) -> None:
        """Reads nothing yet."""
        self.path = path
        self._cipher: AESGCM | None = None

    def seal(self, plain: bytes, place: bytes, *, must_exist: bool) -> bytes:
        """Sealed for one place. Raises KeyUnavailable. Touches the disk the first time only."""
        cipher = self._opened(make=not must_exist)
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        return _VERSION + nonce + cipher.encrypt(nonce, plain, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """What was sealed for this place. Raises KeyUnavailable, also if it was tampered with."""
        cipher = self._opened(make=False)
        nonce, rest = sealed[1 : 1 + _NONCE_LENGTH], sealed[1 + _NONCE_LENGTH :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return cipher.decrypt(nonce, rest, place)
        except (InvalidTag, ValueError):
            raise KeyUnavailable(
                f"{self.path} is not the key that this was sealed with, or it was tampered with"
            ) from None

    def _opened(self, *, make: bool) -> AESGCM:
        if self._cipher is None:
            self._cipher = AESGCM(self._key(make=make))
        return self._cipher

    def _key(self, *, make: bool) -> bytes:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            if not make:
                raise KeyUnavailable(f"the key file {self.path} is missing") from None
            return self._made()
        except OSError as error:
            raise KeyUnavailable(f"the key file {self.path}: {error.strerror}") from None
        try:
            key = base64.b64decode(text.removeprefix(_KEY_HEAD).strip(), validate=True)
        except binascii.Error:
            key = b""
        if not text.startswith(_KEY_HEAD) or len(key) != _KEY_LENGTH:
            raise KeyUnavailable(f"{self.path} holds no key of trackd")
        return key

    def _made(self) -> bytes:
        """A new key, in its file and on the disk before anything is sealed with it."""
        key = secrets.token_bytes(_KEY_LENGTH)
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with contextlib.closing(os.fdopen(file, "wb")) as out:
                out.write(_KEY_HEAD + base64.b64encode(key) + b"\n")
                out.flush()
                os.fsync(out.fileno())
            parent = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
        except OSError as error:
            raise KeyUnavailable(
                f"the key file {self.path} cannot be made: {error.strerror}"
            ) from None
        _log.warning(
            "a key for secrets was made: keep a copy of it, apart from the data",
            path=str(self.path),
        )
        return key
