"""Which records somebody asks for, and whether a stretch of the log holds some. Pure.

Lines are canonical, so what stands in one is looked for as bytes. JSON is parsed only where those bytes were found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

from appliance.audit.record import Kind
from appliance.signing import written

FIELDS = (
    "intent", "request", "subject", "key", "act", "incident", "code", "use_case", "team", "model", "outcome", "role",
)  # fmt: skip
"""What can be asked for by its value, the rarest first. It may stand in a record's body, in `by` or in `target`."""
LAST = 2**53
_PARTS = ("by", "target")
_AT = slice(7, 31)
"""Where a line has its time."""
SEQ = rb'"seq":([0-9]{1,16})(?:,"sha256":"[0-9a-f]{64}")?\}'
"""How a line ends, also one that stands in the place of a record that retention removed."""
_SEQ = re.compile(SEQ + rb"\Z")
_END = re.compile(rb'\},"kind":"([a-z]+)","prev":"[0-9a-f]{64}","seq":([0-9]{1,16})\}\Z')
_END_BYTES = 160


def seq_of(line: bytes) -> int | None:
    """The number of a record by its line, without its end, also of one that was removed; None for a damaged line."""
    found = _SEQ.search(line[-_END_BYTES:])
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Question:
    """Asks for the records that all of it holds for."""

    since: str = ""
    """Not before this moment, written as records write theirs."""
    until: str = "~"
    """Before this moment."""
    least: int = 1
    """From this number on."""
    most: int = LAST
    """Up to this number."""
    kind: Kind | None = None
    fields: Mapping[str, str | int] = field(default_factory=dict)
    """Of FIELDS: `intent` is a whole number, the others are texts."""

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """What stands in every line that is asked for; the rarest first."""
        found = [written(name) + b":" + written(self.fields[name]) for name in FIELDS if name in self.fields]
        if self.kind is not None:
            found.append(b'},"kind":"%s","prev":"' % self.kind.value.encode())
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.since, self.until, strict=False)))
        if same:
            found.append(b'{"at":"%s' % self.since[:same].encode())
        return tuple(found)

    @cached_property
    def for_all(self) -> bool:
        """Whether numbers are all that it asks by."""
        return not self.fields and self.kind is None and not self.since and self.until == Question.until

    def pick(self, block: bytes) -> list[bytes]:
        """The lines of `block` that are asked for, in their order. `block`: whole lines, without the last end.

        Damaged lines, and those in the place of removed records, are among them only if numbers are all that is asked
        by: then a copy has all there is.
        """
        if self.for_all:
            lines = block.split(b"\n")
            first, last = seq_of(lines[0]), seq_of(lines[-1])
            if first is not None and last is not None and self.least <= first and last <= self.most:
                return lines
            return [line for line in lines if (seq := seq_of(line)) is None or self.least <= seq <= self.most]
        needle = self.needles[0] if self.needles else b""
        return [line for line in _holding(block, needle) if self.fits(line)]

    def fits(self, line: bytes) -> bool:
        """Whether the record of this line is asked for."""
        end = _END.search(line[-_END_BYTES:])
        if end is None or not self.least <= int(end[2]) <= self.most:
            return False
        if self.kind is not None and end[1] != self.kind.value.encode():
            return False
        if not self.since.encode() <= line[_AT] < self.until.encode():
            return False
        return not self.fields or (all(needle in line for needle in self.needles) and self._says(line))

    def _says(self, line: bytes) -> bool:
        try:
            body: dict[str, Any] = json.loads(line)["body"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return False  # damaged: `appliance audit verify` names it
        parts = [body, *(part for name in _PARTS if isinstance(part := body.get(name), dict))]
        return all(any(part.get(name) == value for part in parts) for name, value in self.fields.items())


def _holding(block: bytes, needle: bytes) -> Iterator[bytes]:
    """The lines of `block` that hold `needle`."""
    if not needle:
        yield from block.split(b"\n")
        return
    found = block.find(needle)
    while found >= 0:
        start, end = block.rfind(b"\n", 0, found) + 1, block.find(b"\n", found)
        if end < 0:
            yield block[start:]
            return
        yield block[start:end]
        found = block.find(needle, end)
