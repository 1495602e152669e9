"""A report's canonical bytes, its hash and signature, and the line of the ledger that these make."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_LINE = ("number", "time", "holds", "kept", "broken", "previous", "key", "sha256")
BEFORE_THE_FIRST = "0" * 64
"""What the first report holds in place of a hash of the one before."""
_EXACT = 2**53

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One report's place in the chain."""

    number: int
    time: str
    """Of the verification: UTC, ISO 8601."""
    holds: bool
    kept: bool
    """Whether the report stays for good; all others go when NEWEST have come after them."""
    broken: list[str]
    """What was found wrong with the chain when this report was entered."""
    previous: str
    """SHA-256 of the report before; zeros for the first."""
    key: str
    """The public key that signs this one, 64 hexadecimal digits."""
    sha256: str
    """Of the report's canonical bytes, without its last two fields: this and the signature."""
    signature: str
    """Of the canonical bytes of all fields above."""
    file: Path = field(compare=False)

    @property
    def fingerprint(self) -> str:
        """The key's, as people compare it."""
        return fingerprint(self.key)

    def signed_by(self, told: str) -> bool:
        """Whether `told` is the fingerprint, however a person has written it."""
        return told.replace(" ", "").replace(":", "").lower() == self.fingerprint.replace(" ", "")


def canonical(value: object) -> bytes:
    """`value` as RFC 8785 writes it. Raises ValueError for what two programs might write in two ways.

    Reports hold texts, integers, truth values and null only: no fractions, no integers beyond 2**53, no half
    surrogates, and no characters beyond U+FFFF in names of fields, whose order would be doubtful.
    """
    _require_exact(value)
    return _written(value)


def _written(value: object) -> bytes:
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


def sign(document: Document, key: Ed25519PrivateKey) -> Document:
    """`document` with its `key`, `sha256` and `signature`. Raises ValueError for what has no canonical bytes."""
    made = document | {"key": public(key)}
    made["sha256"] = hashlib.sha256(canonical(made)).hexdigest()
    return made | {"signature": key.sign(_signed(made)).hex()}


def line(document: Document) -> bytes:
    """What of a signed document stands in the ledger."""
    return _written({name: document[name] for name in (*_LINE, "signature")})


def of_report(text: bytes, file: Path) -> Entry:
    """The entry in a whole report. Raises ValueError, to be read after a name, if anything in it is false."""
    document = _document(text)
    entry = _entry(document, file)
    content = {name: value for name, value in document.items() if name not in ("sha256", "signature")}
    if hashlib.sha256(_written(content)).hexdigest() != entry.sha256:
        raise ValueError("was changed since its hash was taken")
    return entry


def of_line(text: bytes, file: Path) -> Entry:
    """The entry in a line of the ledger. Raises ValueError, to be read after a name, if anything in it is false."""
    document = _document(text)
    if document.keys() - {*_LINE, "signature"}:
        raise ValueError("holds more than was signed")
    return _entry(document, file)


def _document(text: bytes) -> Document:
    try:
        document = json.loads(text, parse_float=_refuse, parse_constant=_refuse)
        if _written(document) != text or not isinstance(document, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise ValueError("can't be read, or was written anew") from None
    return document


def _refuse(number: str) -> None:
    raise ValueError(number)


def _entry(document: Document, file: Path) -> Entry:
    try:
        entry = Entry(**{name: document[name] for name in (*_LINE, "signature")}, file=file)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry.key))
        signature = bytes.fromhex(entry.signature)
        if signature.hex() != entry.signature:  # the one field that nothing else vouches for: no second spelling of it
            raise ValueError
        key.verify(signature, _signed(document))
        if type(entry.number) is not int or not isinstance(entry.broken, list):  # signed, but not by our code
            raise TypeError
    except (ValueError, TypeError, LookupError, InvalidSignature):
        raise ValueError("was changed since it was signed") from None
    return entry


def _signed(document: Document) -> bytes:
    return _written({name: document[name] for name in _LINE})


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
