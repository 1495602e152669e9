"""Words of a caller's own choice as they go on record: as they are where they can't be a name, else unreadable.

The same word is hidden alike each time, so that who has it finds it again. Guessing it takes the key, which lies in the
key store and never in the log.
"""

from __future__ import annotations

import hmac
import re

_MACHINE_MADE = re.compile(
    r"req_[0-9a-f]{24}|[0-9A-Fa-f]{16,64}|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
)
"""Ours, those of traces, and UUIDs: none has room for a word, not even in front."""
_AS_RECORDED = re.compile(r"id_[0-9a-f]{24}")


class Hidden:
    """Hides words under a key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"words that may be names", "sha256")

    def request(self, id_: str) -> str:
        """A request's id as it stands in logs: as it is where a machine surely made it."""
        return id_ if _MACHINE_MADE.fullmatch(id_) else f"id_{self._digits(id_)[:24]}"

    def asked(self, id_: str) -> str:
        """The same for an id that somebody looks for, who may have it from the log."""
        return id_ if _AS_RECORDED.fullmatch(id_) else self.request(id_)

    def word(self, word: str) -> str:
        """What stands in place of a word."""
        return f"hidden-{self._digits(word)[:8]}"

    def _digits(self, word: str) -> str:
        return hmac.digest(self._key, word.encode("utf-8", "surrogatepass"), "sha256").hex()

    def __repr__(self) -> str:
        return "<Hidden>"
