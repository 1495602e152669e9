"""What the log can't know of a month any more, or never could: what retention removed, and what was before it began."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.audit.retention import Terms
from appliance.config.audit import Retention

_CHECKPOINT = re.compile(rb'\{"at":"([^"]+)","first":(\d+),"head":"[0-9a-f]*","key":"[0-9a-f]*","last":(\d+),')


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far back the log goes, and what is gone of the month; kinds are those of records."""

    began: str = ""
    """When the oldest record was written that ever was, as records write moments; empty where there is no log."""
    removed: Mapping[str, int] = field(default_factory=Counter)
    """How many records retention removed of the month, by kind."""
    over: frozenset[str] = frozenset()
    """Kinds of which at least the month's first day isn't kept any more."""
    ever: frozenset[str] = frozenset()
    """Kinds of which any were ever removed, whatever the month."""

    def gone(self, *kinds: str) -> int:
        """How many records of these kinds were removed of the month."""
        return sum(self.removed.get(kind, 0) for kind in kinds)


def coverage(folder: Path, span: tuple[str, str], retention: Retention, now: float, oldest: str) -> Coverage:
    """What the stubs and checkpoints in `folder`, the folder of a log, tell of the month `span`.

    `now` in seconds since 1970; `oldest` is the time of the oldest record left, or empty. What is damaged in there is
    left out: a verification tells of it.
    """
    since, until = span
    removed: Counter[str] = Counter()
    ever: set[str] = set()
    stubs = list(_stubs(folder))
    for stub, (first, last) in zip(stubs, _times(folder / "checkpoints.jsonl", stubs), strict=True):
        kinds = {str(kind): int(count) for kind, count in stub["kinds"].items()}
        ever |= kinds.keys()
        if first < until and since <= last:
            removed.update(kinds)
    stays = Terms.of(retention, (), now).first_that_stays
    over = frozenset(kind.decode() for kind, day in stays.items() if day.decode() > since[:10])
    began = min(filter(None, (oldest, _first(folder / "checkpoints.jsonl"))), default="")
    return Coverage(began, removed, over, frozenset(ever))


def _stubs(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.stub.json")):
        try:
            stub = json.loads(file.read_bytes())
            first, last, kinds = int(stub["first"]), int(stub["last"]), dict(stub["kinds"])
            yield {"first": first, "last": last, "kinds": {str(kind): int(count) for kind, count in kinds.items()}}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue


def _times(checkpoints: Path, stubs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """When the records of each stub, which are in order, were signed; any time where no checkpoint says."""
    found = [["", "~"] for _ in stubs]
    index = 0
    try:
        with checkpoints.open("rb") as file:
            for line in file:
                if index >= len(stubs):
                    break
                match = _CHECKPOINT.match(line)
                if match is None:
                    continue
                at, last = match[1].decode("ascii", "replace"), int(match[3])
                if last < stubs[index]["first"]:
                    continue
                found[index][0] = found[index][0] or at
                if last >= stubs[index]["last"]:
                    found[index][1] = at
                    index += 1
    except OSError:
        pass
    return [(first, last) for first, last in found]


def _first(checkpoints: Path) -> str:
    try:
        with checkpoints.open("rb") as file:
            match = _CHECKPOINT.match(file.readline(4096))
    except OSError:
        return ""
    return match[1].decode("ascii", "replace") if match else ""
