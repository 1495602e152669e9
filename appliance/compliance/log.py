"""What the audit log tells of a month, in one pass over it: sums, acts and incidents. Never who asked what."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from appliance.audit import segments
from appliance.audit.record import Kind
from appliance.compliance.access import NAMED
from appliance.compliance.insight import Act, Insight, summed
from appliance.errors import AuditFailed

MOST = 500
"""Acts of one name, and incidents of one name, that are kept whole; of more, how many there were."""
WHOLE = frozenset({"config.apply", "erase", "export", "hold", "holds.repair", "release", "retention"})
"""Acts that are all kept: who wants to hide one in a crowd can't."""
_NAMED = frozenset({*NAMED, "host"})
_EVERY = 20_000
_AT = slice(7, 31)
"""Where the time stands in each line."""
_BEGINS, _REMOVED = b'{"at":"', b'{"kind":"'
"""How lines begin: those of records, and those in the place of records that retention removed."""


@dataclass(slots=True)
class Sum:
    """Requests that have something in common."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nanoeuros: int = 0

    def add(self, other: Sum) -> None:
        """Add those of `other`."""
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.nanoeuros += other.nanoeuros


@dataclass(slots=True)
class Incident:
    """Something that went wrong; of one that is over, `told` says after how many seconds."""

    seq: int
    at: str
    name: str
    told: dict[str, Any]


Asked = tuple[str, str, str]
"""The model, the route and the use case of a request."""


@dataclass(slots=True)
class Log:
    """What was found."""

    kinds: Counter[str] = field(default_factory=Counter)
    sums: defaultdict[tuple[str, str, str, str], Sum] = field(default_factory=lambda: defaultdict(Sum))
    """By model, route, use case and outcome. A request without an outcome has the outcome ``."""
    refusals: Counter[str] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)
    acts: defaultdict[str, list[Act]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    """How many acts there were, by name."""
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many of them ended how, by name and end."""
    insight: Insight = field(default_factory=lambda: Insight(UTC))
    administrators: set[str] = field(default_factory=set)
    """The pseudonyms of those who did something as administrators, as auditors or on this host."""
    incidents: defaultdict[str, list[Incident]] = field(default_factory=lambda: defaultdict(list))
    incident_counts: Counter[str] = field(default_factory=Counter)
    incident_last: dict[str, str] = field(default_factory=dict)
    """When the last one was, by name."""
    first_use: dict[str, str] = field(default_factory=dict)
    """When each of the weights that were asked about answered for the first time, as far as the log goes back."""
    asked_in: Counter[int] = field(default_factory=Counter)
    """How many requests were asked in each of the gaps that were asked about, by its index."""
    unreadable: int = 0
    """Lines that are no records."""
    trouble: list[str] = field(default_factory=list)
    """Files that could not be read to the end."""
    begins: str = ""
    """The time of the first record that there is; empty where there is none."""

    @property
    def records(self) -> int:
        """How many there are of the month."""
        return self.kinds.total()


def read(
    folder: Path,
    span: tuple[str, str],
    *,
    weights: Sequence[str] = (),
    gaps: Sequence[tuple[str, str]] = (),
    zone: tzinfo = UTC,
    say: Callable[[str], None] = lambda _: None,
) -> Log:
    """Read the log in `folder`. Needs memory for the sums, for the acts in `WHOLE` and for `MOST` of all others.

    `span` is the month, as records write moments; `weights` are fingerprints, as intents tell them; `gaps` are spans
    in order, none in another; days are those of `zone`. `say` hears how many records were read. A damaged log is read
    as far as it can be.
    """
    reading = _Reading(span, weights, gaps, zone)
    seen = 0
    for segment in _listed(folder, reading.log):
        try:
            for line in segments.lines(segment):
                reading.take(line)
                seen += 1
                if seen % _EVERY == 0:
                    say(f"{seen:,} records of the log read")
        except AuditFailed:
            reading.log.trouble.append(segment.file.name)
    reading.finish()
    return reading.log


def _listed(folder: Path, log: Log) -> list[segments.Segment]:
    try:
        return segments.listed(folder)
    except FileNotFoundError:
        return []
    except OSError as cause:
        log.trouble.append(f"{folder}: {cause.strerror}")
        return []


class _Reading:
    def __init__(
        self, span: tuple[str, str], weights: Sequence[str], gaps: Sequence[tuple[str, str]], zone: tzinfo
    ) -> None:
        self.log = Log(insight=Insight(zone))
        self._since, self._until = (moment.encode() for moment in span)
        self._sought = {each.encode(): each for each in weights}
        self._gaps = gaps
        self._asked: dict[int, Asked] = {}
        self._open: dict[int, Act] = {}
        self._lasting: dict[tuple[str, str | None], Incident] = {}
        self._take: Mapping[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
            Kind.INTENT: self._intent, Kind.OUTCOME: self._outcome, Kind.REFUSAL: self._refusal,
            Kind.STRANGERS: self._strangers, Kind.ACT: self._act, Kind.INCIDENT: self._incident,
        }  # fmt: skip

    def take(self, line: bytes) -> None:
        """Count one record."""
        at = line[_AT]
        if not line.startswith(_BEGINS):
            self.log.unreadable += not line.startswith(_REMOVED)
            return
        if not self.log.begins:
            self.log.begins = at.decode("ascii", "replace")
        for each in [each for each in self._sought if each in line]:
            self.log.first_use[self._sought.pop(each)] = at.decode("ascii", "replace")
        within = self._since <= at < self._until
        if not within and not (self._asked or self._open):
            return
        try:
            record = json.loads(line)
            body, kind = record["body"], record["kind"]
            if within:
                self.log.kinds[kind] += 1
            elif kind not in (Kind.OUTCOME, Kind.ACT):
                return
            take = self._take.get(kind)
            if take is not None and (within or "intent" in body or "of" in body):
                take(record, body)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.log.unreadable += 1

    def finish(self) -> None:
        """Count what never came to an end."""
        self._lost()

    def _intent(self, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._asked[record["seq"]] = str(body["model"]), str(body["route"]), str(body.get("use_case", ""))
        if self._gaps:
            found = bisect_right(self._gaps, record["at"], key=lambda gap: gap[0]) - 1
            if found >= 0 and record["at"] < self._gaps[found][1]:
                self.log.asked_in[found] += 1

    def _outcome(self, _: dict[str, Any], body: dict[str, Any]) -> None:
        asked = self._asked.pop(body["intent"], None)
        if asked is not None:  # else it was asked in the month before
            tokens = int(body["prompt_tokens"]), int(body["completion_tokens"])
            self.log.sums[(*asked, str(body["outcome"]))].add(Sum(1, *tokens, int(body["nanoeuros"])))

    def _refusal(self, _: dict[str, Any], body: dict[str, Any]) -> None:
        self.log.refusals[str(body.get("code", body.get("status", "")))] += 1

    def _strangers(self, _: dict[str, Any], body: dict[str, Any]) -> None:
        self.log.strangers.update({str(code): int(count) for code, count in body["counts"].items()})

    def _act(self, record: dict[str, Any], body: dict[str, Any]) -> None:
        phase, of = body.get("phase", "done"), body.get("of")
        told = {name: value for name, value in body.items() if name not in ("act", "by", "of", "phase", "target")}
        begun = self._open.pop(of, None) if of is not None else None
        if begun is not None:
            begun.end = str(phase)
            begun.told |= told
            self._over(begun)
            return
        if of is not None:
            return  # begun in the month before
        name, by, target = str(body["act"]), body.get("by") or {}, body.get("target") or {}
        if name == "start":
            self._lost()
        act = Act(
            int(record["seq"]), str(record["at"]), name, str(by.get("subject", "")), str(by.get("role", "")),
            str(target.get("subject", "")), told, "open" if phase == "intent" else str(phase), str(by.get("key", "")),
        )  # fmt: skip
        self.log.counts[name] += 1
        if act.by and act.role in _NAMED:
            self.log.administrators.add(act.by)
        few = self.log.counts[name] <= MOST
        if not summed(name) and (few or name in WHOLE or (name == "start" and told.get("sections"))):
            self.log.acts[name].append(act)
        if phase == "intent":
            self._open[act.seq] = act
        else:
            self._over(act)

    def _over(self, act: Act) -> None:
        self.log.ends[act.name, act.end] += 1
        if summed(act.name):
            self.log.insight.take(act)

    def _lost(self) -> None:
        """Whatever was asked before the appliance started anew has no outcome, and never will."""
        for asked in self._asked.values():
            self.log.sums[(*asked, "")].add(Sum(1))
        self._asked.clear()
        for act in self._open.values():
            self._over(act)
        self._open.clear()

    def _incident(self, record: dict[str, Any], body: dict[str, Any]) -> None:
        name = str(body["incident"])
        told = {key: value for key, value in body.items() if key not in ("incident", "phase")}
        begun = self._lasting.pop((name, body.get("model")), None)
        if begun is not None and body.get("phase") == "end":
            begun.told |= told
            return
        self.log.incident_counts[name] += 1
        self.log.incident_last[name] = str(record["at"])
        if self.log.incident_counts[name] <= MOST:
            incident = Incident(int(record["seq"]), str(record["at"]), name, told)
            self.log.incidents[name].append(incident)
            if body.get("phase") == "begin":
                self._lasting[name, body.get("model")] = incident
