"""A record: one line of canonical JSON that holds the hash of the line before.

    {"at":"2026-11-22T15:50:11.123Z","body":{...},"kind":"intent","prev":"9f86…","seq":123}

The chain's own two fields stand last, so that a line can be held against the one before without being parsed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from appliance.signing import BEFORE_THE_FIRST, canonical


class Kind(StrEnum):
    """What a record tells of. Each has a time of its own for which it is kept."""

    INTENT = "intent"
    """A request that is about to be answered: who asks which model, on what terms."""
    OUTCOME = "outcome"
    """What became of an intent."""
    REFUSAL = "refusal"
    """A request of somebody known that was refused before it came to an intent."""
    STRANGERS = "strangers"
    """How many requests without a valid key were refused in a minute, by reason."""
    CONTENT = "content"
    """What was asked and answered, encrypted; only for use cases that store it."""
    ACT = "act"
    """Something an administrator, an auditor or the appliance itself did, or is about to do."""
    INCIDENT = "incident"
    """Something that went wrong, or is well again: engines, store, log, proof of the seal."""


_EXACT = 2**53
_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


class Chain:
    """The end of a chain: where the next record goes. Pure."""

    __slots__ = ("_millisecond", "_stamp", "head", "seq")

    def __init__(self, seq: int = 0, head: str = BEFORE_THE_FIRST) -> None:
        """`seq` and `head` of the last record: its number, and the SHA-256 of its line, in hex."""
        self.seq = seq
        self.head = head
        self._millisecond = -1
        self._stamp = ""

    def append(self, kind: Kind, body: Mapping[str, Any], at: float) -> bytes:
        """The line of the next record, without its end. `at`: seconds since 1970.

        `body` has to be of texts, whole numbers up to 2**53, truth values, null, lists and mappings. Raises
        ValueError for anything else, or what two programs might write in two ways; then nothing was appended.
        """
        try:
            if not _plain(body):
                canonical(body)  # which is slower, and says what is wrong
            told = _encode(body).encode()
        except (TypeError, UnicodeEncodeError, RecursionError) as cause:
            raise ValueError(f"this can't be put on record: {type(cause).__name__}") from cause
        seq = self.seq + 1
        line = b'{"at":"%s","body":%s,"kind":"%s","prev":"%s","seq":%d}' % (
            self._time(at), told, kind.value.encode(), self.head.encode(), seq,
        )  # fmt: skip
        self.seq, self.head = seq, hashlib.sha256(line).hexdigest()
        return line

    def _time(self, at: float) -> bytes:
        millisecond = int(at * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._stamp = moment(at)
        return self._stamp.encode()


def moment(at: float) -> str:
    """Seconds since 1970 as records write them: UTC, to the millisecond."""
    seconds, rest = divmod(int(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"


def _plain(value: Any) -> bool:
    """Whether there is one way to write a value, seen at a glance; False also where a closer look is needed."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True  # half surrogates are found when it is encoded
    if kind is int:
        return bool(abs(value) <= _EXACT)
    if kind is dict:
        return "".join(value).isascii() and all(map(_plain, value.values()))
    return kind is list and all(map(_plain, value))


def clean(text: str, most: int = 256) -> str:
    """`text` as it may stand in a record: no half surrogates, at most `most` characters; what is cut is marked."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"
