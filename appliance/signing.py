"""Canonical bytes, fingerprints and Ed25519 keys: what every chain of this appliance is made of."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

BEFORE_THE_FIRST = "0" * 64
"""What the first link of a chain holds in place of a hash of the one before."""
_EXACT = 2**53

Document = dict[str, Any]


def canonical(value: object) -> bytes:
    """`value` as RFC 8785 writes it. Raises ValueError for what two programs might write in two ways.

    Reports hold texts, integers, truth values and null only: no fractions, no integers beyond 2**53, no half
    surrogates, and no characters beyond U+FFFF in names of fields, whose order would be doubtful.
    """
    _require_exact(value)
    return written(value)


def written(value: object) -> bytes:
    """`value` in the one way, unchecked: for what is known to have one."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _require_exact(value: object) -> None:
    match value:
        case None | bool() | str():
            pass
        case int():
            if abs(value) > _EXACT:
                raise ValueError(f"the number {value} is too large to be read exactly everywhere")
        case list() | tuple():
            for item in value:
                _require_exact(item)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or max(key, default="") > "\uffff":
                    raise ValueError(f"{key!r} can't be the name of a field")
                _require_exact(item)
        case _:
            raise ValueError(f"a {type(value).__name__} has no one way to be written")


def fingerprint(key: str) -> str:
    """Eight groups of four digits for the public key `key` (hexadecimal), to be noted and compared by people."""
    digits = hashlib.sha256(bytes.fromhex(key)).hexdigest()[:32]
    return " ".join(digits[start : start + 4] for start in range(0, 32, 4))


def load_key(pem: bytes) -> Ed25519PrivateKey | None:
    """The key in a PEM file; None where there is none in it."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def new_key() -> tuple[Ed25519PrivateKey, bytes]:
    """A key, and its PEM file."""
    key = Ed25519PrivateKey.generate()
    form, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key, key.private_bytes(serialization.Encoding.PEM, form, bare)


def public(key: Ed25519PrivateKey) -> str:
    """The public key, 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def about_key(key: str) -> str:
    """What key.pub holds of the public key `key`: its fingerprint for people, and itself for programs."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    loaded = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    return f"fingerprint {fingerprint(key)}\n{loaded.public_bytes(serialization.Encoding.PEM, form).decode()}"
