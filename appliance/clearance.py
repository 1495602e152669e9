"""The word of the privacy gate that one request may leave: for one provider, this body, once, and soon.

A clearance names nothing itself. Whoever checks it puts together from the request what it would have to say, so
there is nothing to compare and nothing that could be left out. It is signed with Ed25519: the gate signs in a
process of its own, and the outlet, which checks, holds no key with which it could clear anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HEADER = "x-clearance"
LONGEST_SECONDS = 30
"""From signing to the end of the request's last byte."""
_FORM = re.compile(r"([0-9]{1,12})\.([0-9a-f]{32})\.([A-Za-z0-9_-]{86})")


class NotCleared(Exception):
    """A request may not leave; the message says why, and holds nothing of the request."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a clearance says."""

    provider: str
    method: str
    path: str
    """The request's target, with its query."""
    body_sha256: str
    expires: int
    """Seconds since 1970."""
    serial: str
    """32 hexadecimal digits, never the same twice."""

    def message(self) -> bytes:
        """What is signed."""
        said = [self.provider, self.method, self.path, self.body_sha256, self.expires, self.serial]
        return json.dumps(["appliance clearance", *said]).encode()


def digest(body: bytes) -> str:
    """A body's SHA-256, in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def sign(key: Ed25519PrivateKey, cleared: Cleared) -> str:
    """The clearance, as the header's value."""
    signature = base64.urlsafe_b64encode(key.sign(cleared.message())).decode().rstrip("=")
    return f"{cleared.expires}.{cleared.serial}.{signature}"


def verify(
    key: Ed25519PublicKey, clearance: str, *, provider: str, method: str, path: str, body: bytes, now: float
) -> Cleared:
    """What `clearance` says, if it says it of this request. Raises `NotCleared`."""
    form = _FORM.fullmatch(clearance)
    if form is None:
        raise NotCleared("the clearance is malformed")
    cleared = Cleared(provider, method, path, digest(body), int(form[1]), form[2])
    try:
        key.verify(base64.urlsafe_b64decode(f"{form[3]}=="), cleared.message())
    except InvalidSignature:
        raise NotCleared("the clearance is not for this request") from None
    if not now < cleared.expires <= now + LONGEST_SECONDS:
        raise NotCleared("the clearance is of another time")
    return cleared


class Clearances:
    """Checks the clearances for one provider, and takes each only once."""

    def __init__(self, key: bytes | None, provider: str) -> None:
        """`key` is the raw public key of the gate; None where there is no gate, so nothing is cleared."""
        self._key = Ed25519PublicKey.from_public_bytes(key) if key is not None else None
        self._provider = provider
        self._spent: dict[str, int] = {}

    def spend(self, clearance: str, *, method: str, path: str, body: bytes, now: float) -> None:
        """Take a clearance for this request. Raises `NotCleared`, also when it was taken before."""
        if self._key is None:
            raise NotCleared("nothing here clears requests")
        cleared = verify(
            self._key, clearance, provider=self._provider, method=method, path=path, body=body, now=now
        )  # fmt: skip
        # one that has expired is refused for that, so it need not be kept
        self._spent = {serial: expires for serial, expires in self._spent.items() if expires > now}
        if cleared.serial in self._spent:
            raise NotCleared("the clearance has been used")
        self._spent[cleared.serial] = cleared.expires
