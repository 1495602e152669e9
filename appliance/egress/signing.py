"""A report's canonical bytes, its hash and signature, and the line of the ledger that these make."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.signing import Document, canonical, fingerprint, public, written

_LINE = ("number", "time", "holds", "kept", "broken", "previous", "key", "sha256")


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


def sign(document: Document, key: Ed25519PrivateKey) -> Document:
    """`document` with its `key`, `sha256` and `signature`. Raises ValueError for what has no canonical bytes."""
    made = document | {"key": public(key)}
    made["sha256"] = hashlib.sha256(canonical(made)).hexdigest()
    return made | {"signature": key.sign(_signed(made)).hex()}


def line(document: Document) -> bytes:
    """What of a signed document stands in the ledger."""
    return written({name: document[name] for name in (*_LINE, "signature")})


def of_report(text: bytes, file: Path) -> Entry:
    """The entry in a whole report. Raises ValueError, to be read after a name, if anything in it is false."""
    document = _document(text)
    entry = _entry(document, file)
    content = {name: value for name, value in document.items() if name not in ("sha256", "signature")}
    if hashlib.sha256(written(content)).hexdigest() != entry.sha256:
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
        if written(document) != text or not isinstance(document, dict):
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
    return written({name: document[name] for name in _LINE})
