"""A person, or a key of nobody's, as the log speaks of it."""

from __future__ import annotations

import base64
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12
FILL = b"\xff"
"""Stands in no UTF-8; behind each name, so that its length can't be told, also not where the key is gone."""


class Subject:
    """Has a key of its own, under which all that is personal is sealed."""

    __slots__ = ("_aead", "_name", "pseudonym")

    def __init__(self, key: bytes, tag: bytes, name: bytes) -> None:
        """`tag`: what the store finds it by, and stands for its whole name. `name`: its beginning, sealed."""
        self._aead = AESGCM(key)
        self._name = name
        self.pseudonym = f"p_{hmac.digest(key, tag, 'sha256').hex()[:24]}"

    @property
    def name(self) -> str:
        """The name; of one that is longer than 300 bytes, its beginning."""
        return self._open(self._name).rstrip(FILL).decode("utf-8", "surrogatepass")

    def seal(self, content: bytes) -> str:
        """`content` under its key (AES-256-GCM): base64 of nonce, ciphertext and tag. Never the same twice."""
        return base64.b64encode(sealed(self._aead, content)).decode()

    def open(self, sealed: str) -> bytes:
        """What `seal` was given. Raises ValueError for what wasn't sealed under this key."""
        return self._open(base64.b64decode(sealed, validate=True))

    def _open(self, sealed: bytes) -> bytes:
        try:
            return self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except InvalidTag:
            raise ValueError("this wasn't sealed under the key of this subject") from None

    def __repr__(self) -> str:
        return f"<Subject {self.pseudonym}>"


def sealed(aead: AESGCM, content: bytes) -> bytes:
    """`content`, encrypted behind a nonce of its own."""
    nonce = os.urandom(_NONCE)
    return nonce + aead.encrypt(nonce, content, None)
