"""What is removed from the log, and when: by kind, age and holds. Pure.

All records of a kind and of the same UTC day go together, once that day lies more than the kind's days back. Whether
one goes is decided by its line, and by the lines before it: how late it was, and which of them are held.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from appliance.audit.holds import Hold
from appliance.audit.record import Kind, moment
from appliance.config.audit import Retention

_DAYS: Mapping[Kind, str] = {
    Kind.INTENT: "requests_days",
    Kind.OUTCOME: "requests_days",
    Kind.STRANGERS: "requests_days",
    Kind.REFUSAL: "refusals_days",
    Kind.CONTENT: "content_days",
    Kind.ACT: "acts_days",
    Kind.INCIDENT: "incidents_days",
}
"""Which setting says how long a kind stays."""
_AT = re.compile(rb'\{"at":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)",')
_END = re.compile(rb',"kind":"([a-z]+)","prev":"([0-9a-f]{64})","seq":(\d+)\}\n\Z')
_LONGEST_END = 140
_GONE = re.compile(rb'\{"kind":"([a-z]+)","seq":(\d+),"sha256":"([0-9a-f]{64})"\}\n')
_OF = re.compile(rb'"(?:intent|of)":(\d+)')
"""By which a record names an earlier one; a quotation mark in a caller's text has a backslash before it."""


class Line(NamedTuple):
    """What a line of a segment says of itself: a record, or what stands in the place of one."""

    kind: bytes
    seq: int
    at: bytes
    """Empty for one that is gone."""
    prev: bytes
    """Empty for one that is gone."""
    sha256: bytes
    """Of the record that is gone, in hex; else empty."""


def read(line: bytes) -> Line:
    """What a line says. Raises ValueError for what is no whole line of a log."""
    end, begin = _END.search(line, max(0, len(line) - _LONGEST_END)), _AT.match(line)
    if end is not None and begin is not None:
        return Line(end[1], int(end[3]), begin[1], end[2], b"")
    if gone := _GONE.fullmatch(line):
        return Line(gone[1], int(gone[2]), b"", b"", gone[3])
    raise ValueError("a line in it is no record")


def in_place_of(line: Line, sha256: bytes) -> bytes:
    """The line that stands in the place of a removed one."""
    return b'{"kind":"%s","seq":%d,"sha256":"%s"}\n' % (line.kind, line.seq, sha256)


@dataclass(slots=True)
class Terms:
    """What goes on one day. Lines have to be shown in the order of the log: of what is held, outcomes come after."""

    first_that_stays: Mapping[bytes, bytes]
    """By kind, the first UTC day that stays; a kind that isn't there stays for ever."""
    now: bytes
    latest: bytes = b""
    """The newest moment in the log before the line that comes next, but none of the future."""
    _spans: list[tuple[bytes, bytes]] = field(default_factory=list)
    _persons: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    _marks: list[bytes] = field(default_factory=list)
    _held: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, settings: Retention, holds: Iterable[Hold], now: float) -> Terms:
        """Those of the moment `now`, in seconds since 1970."""
        today = datetime.fromtimestamp(now, UTC).date()
        stays = {
            kind.value.encode(): (today - timedelta(days=getattr(settings, days))).isoformat().encode()
            for kind, days in _DAYS.items()
        }
        terms = cls(stays, moment(now).encode())
        for hold in holds:
            since, until = (each.encode() for each in hold.span)
            terms._marks.append(hold.id.encode())
            if hold.subject is None:
                terms._spans.append((since, until))
            else:
                terms._persons.append((hold.subject.encode(), since, until))
        return terms

    @property
    def persons(self) -> list[bytes]:
        """The pseudonyms that are held: `held` has to be asked of all lines that name one, old or not."""
        return [person for person, _, _ in self._persons]

    def written(self, line: Line) -> bytes:
        """When the record of a line, the next one, was written: no earlier than those before it.

        So a clock that is set back doesn't make what is written meanwhile old, whoever set it.
        """
        if self.latest < line.at <= self.now:
            self.latest = line.at
        return max(line.at, self.latest)

    def old(self, kind: bytes, at: bytes) -> bool:
        """Whether a record of that kind and moment, or day, has stayed for long enough."""
        return at < self.first_that_stays.get(kind, b"")

    def spanned(self, oldest: bytes, newest: bytes) -> bool:
        """Whether everything from one moment to the other is held, whoever it speaks of."""
        return any(since <= oldest and newest < until for since, until in self._spans)

    def held(self, line: Line, text: bytes, at: bytes) -> bool:
        """Whether a record may not be removed, however old it is. `text`: the whole line; `at`: when it was written."""
        named = any(person in text and since <= line.at < until for person, since, until in self._persons)
        if named or (self._held and any(int(of) in self._held for of in _OF.findall(text))):
            self._held.add(line.seq)
            return True
        if line.kind == b"act" and any(mark in text for mark in self._marks):
            return True
        return self.spanned(line.at, line.at) or self.spanned(at, at)


@dataclass(slots=True)
class Contents:
    """Which records a segment still has: by kind, how many, and the oldest and newest moment."""

    kinds: dict[str, tuple[int, str, str]] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count a line in; not one that is gone."""
        if line.at:
            kind, at = line.kind.decode(), line.at.decode()
            count, oldest, newest = self.kinds.get(kind, (0, at, at))
            self.kinds[kind] = count + 1, min(oldest, at), max(newest, at)

    def latest(self, terms: Terms, before: bytes) -> bytes:
        """`Terms.latest` behind the segment, where it is `before` in front of it."""
        newest = [newest.encode() for _, _, newest in self.kinds.values()]
        return max([before, *(each for each in newest if each <= terms.now)])

    def due(self, terms: Terms, before: bytes) -> bool:
        """Whether anything in it may have to go; `before` is `Terms.latest` in front of it."""
        return any(
            terms.old(kind.encode(), max(before, oldest.encode()))
            and not terms.spanned(oldest.encode(), newest.encode())
            for kind, (_, oldest, newest) in self.kinds.items()
        )

    def spared(self, terms: Terms, before: bytes) -> int:
        """How many old records aren't even looked at, where all that is old is held."""
        return sum(
            count
            for kind, (count, _, newest) in self.kinds.items()
            if not self.due(terms, before) and terms.old(kind.encode(), max(before, newest.encode()))
        )


@dataclass(slots=True)
class Removed:
    """What went, or would go."""

    kinds: dict[str, int] = field(default_factory=dict)
    oldest: str | None = None
    newest: str | None = None
    held: int = 0
    """Records that are old enough to go, and are held."""

    def add(self, line: Line) -> None:
        """Count a removed record in."""
        kind, at = line.kind.decode(), line.at.decode()
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.oldest, self.newest = min(self.oldest or at, at), max(self.newest or at, at)

    def __iadd__(self, more: Removed) -> Removed:
        for kind, count in more.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count
        moments = [at for at in (self.oldest, self.newest, more.oldest, more.newest) if at]
        self.oldest, self.newest = min(moments, default=None), max(moments, default=None)
        self.held += more.held
        return self

    def told(self) -> dict[str, Any]:
        """As it stands in a record."""
        return {"held": self.held, "newest": self.newest, "oldest": self.oldest, "removed": self.kinds}
