"""API keys: shown once, stored only as a keyed hash.

A key is 256 random bits, so a plain keyed hash is enough; there is nothing to guess slowly. Looking a
digest up in a dictionary tells an attacker nothing, since he can't choose digests without the pepper.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
from pathlib import Path

from appliance.core import Caller
from appliance.errors import Invalid, Problem, Unauthenticated

PREFIX = "sk-appliance-"
_LONGEST = 256
_PEPPER_BYTES = 32


class Keys:
    """The keys that open the appliance, kept in two files: `pepper` and `keys.json`, both mode 0600."""

    def __init__(self, folder: Path) -> None:
        """Open or create the store in `folder` (which has to be private).

        Raises `Invalid` when one of the files is broken, or only `keys.json` is there.
        """
        self._file = folder / "keys.json"
        pepper = folder / "pepper"
        if not pepper.exists():
            if self._file.exists():  # a new pepper would lock all callers out without a word
                raise _broken(pepper, "is missing, and without it no key in keys.json opens")
            _write(pepper, secrets.token_bytes(_PEPPER_BYTES))
        self._pepper = pepper.read_bytes()
        if len(self._pepper) != _PEPPER_BYTES:
            raise _broken(pepper, f"has to be {_PEPPER_BYTES} bytes; it has {len(self._pepper)}")
        try:
            self._records: list[dict[str, str]] = json.loads(self._file.read_text()) if self._file.exists() else []
            self._callers = {bytes.fromhex(record["digest"]): Caller(record["id"]) for record in self._records}
        except (ValueError, LookupError, TypeError) as cause:
            raise _broken(self._file, "can't be read as a list of keys") from cause
        self._fleeting: dict[bytes, float] = {}

    @property
    def empty(self) -> bool:
        """Whether no key was ever made here."""
        return not self._records

    def create(self) -> str:
        """Make a key, store its digest, and return it: the only time that it is seen."""
        key = PREFIX + secrets.token_urlsafe(32)
        digest = self._digest(key)
        record = {"id": f"key_{secrets.token_hex(4)}", "digest": digest.hex(), "created": time.strftime("%F")}
        _write(self._file, json.dumps([*self._records, record], indent=1).encode())
        self._records.append(record)
        self._callers[digest] = Caller(record["id"])
        return key

    def lend(self, seconds: float) -> str:
        """Make a key that lives in memory only, for `seconds`: benchmarks on this host use one."""
        key = PREFIX + secrets.token_urlsafe(32)
        digest = self._digest(key)
        self._fleeting = {known: ends for known, ends in self._fleeting.items() if ends > time.monotonic()}
        self._fleeting[digest] = time.monotonic() + seconds
        return key

    def authenticate(self, presented: str | None) -> Caller:
        """Whose key it is. Raises `Unauthenticated` for none or an unknown one."""
        if not presented:
            raise Unauthenticated(
                "no API key: send `Authorization: Bearer <key>` or `x-api-key: <key>`", code="missing_api_key"
            )
        digest = self._digest(presented[:_LONGEST])
        caller = self._callers.get(digest)
        if caller is not None:
            return caller
        if self._fleeting.get(digest, 0) > time.monotonic():
            return Caller("key_local")
        raise Unauthenticated("this API key is not known here", code="invalid_api_key")

    def _digest(self, key: str) -> bytes:
        return hmac.digest(self._pepper, key.encode("utf-8", "surrogateescape"), "sha256")


def _broken(file: Path, what: str) -> Invalid:
    way_out = "restore it from a backup, or delete pepper and keys.json both: a new key is then shown at the next start"
    return Invalid(str(file), [Problem("", f"{what}; {way_out}")])


def _write(path: Path, content: bytes) -> None:
    """Replace `path` as a whole, so that a crash leaves the old content or the new."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
