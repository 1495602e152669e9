"""What of the log is asked for, in the words of a query: filters, and the form of the answer. Strict, as bodies are."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, NoReturn

from appliance.accounts.keys import PREFIX
from appliance.accounts.statement import csv_lines
from appliance.api.bodies.base import refuse
from appliance.api.query import whole
from appliance.audit import names, table
from appliance.audit.hidden import Hidden
from appliance.audit.question import FIELDS, LAST, Question
from appliance.audit.record import Kind
from appliance.audit.search import Step
from appliance.config import Accounts
from appliance.core import Role

MOST_LISTED = 1000
_ROWS = 40
"""Rows of a table that are made at once: about a millisecond of work, for which others wait."""
_DAY = re.compile(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,15}(Z|[+-][0-9]{2}:[0-9]{2})")
_SUBJECT = re.compile(r"p_[0-9a-f]{24}")
_KEY = re.compile(r"key_(?:local|[0-9a-f]{1,32})")
_WORDS = frozenset({"team", "role", "model", "use_case", "act", "incident", "outcome", "code"})
"""Filters by a word that anybody may have typed there; the others are of a form that no name has."""

FILTERS = {
    "from": "From this day on, `2026-11-22`, in `accounts.time_zone`; or from a moment, `2026-11-22T15:50:11Z`.",
    "to": "Up to this day or moment, which is included.",
    "kind": f"One of {', '.join(f'`{kind}`' for kind in Kind)}.",
    "subject": "A pseudonym: who asked, did something, or had it done to them.",
    "key": "A key that belongs to nobody. Those of persons stand sealed in the log: ask by `subject`.",
    "team": "A team.",
    "role": "A role.",
    "model": "A model, by its public name.",
    "use_case": "A use case.",
    "request": "A request, by the `x-request-id` that its answer had.",
    "intent": "What came of an intent, by the intent's number.",
    "act": "An act, such as `keys.create`.",
    "incident": "An incident, such as `audit_unwritable`.",
    "outcome": "What became of a request.",
    "code": "The code of an error.",
    "min_seq": "From this number on.",
    "max_seq": "Up to this number.",
}
LIST_PARAMETERS = {
    **FILTERS,
    "order": "`newest` or `oldest` first; if left out, `newest`.",
    "after": "Go on after this number: the `next` of the page before.",
    "limit": f"How many at most, up to {MOST_LISTED}; if left out, 100.",
}
EXPORT_PARAMETERS = {"format": "`jsonl` or `csv`; if left out, `jsonl`.", **FILTERS}


def question_of(given: Mapping[str, str], zone: tzinfo, hidden: Hidden) -> Question:
    """What the filters ask for; days are those of `zone`. Raises `BadRequest`, which names the wrong one."""
    for name, value in given.items():
        if PREFIX in value:
            _refuse(name, "holds an API key, which others may have seen: have it revoked. Ask for keys by their id")
    since = _moment("from", given["from"], zone) if "from" in given else ""
    until = _moment("to", given["to"], zone, end=True) if "to" in given else Question.until
    if until <= since:
        _refuse("to", "lies before `from`")
    least = whole("min_seq", given.get("min_seq", "1"), LAST)
    most = whole("max_seq", given.get("max_seq", str(LAST)), LAST)
    if most < least:
        _refuse("max_seq", "is less than `min_seq`")
    kind = Kind(one_of("kind", given["kind"], tuple(Kind))) if "kind" in given else None
    if not _SUBJECT.fullmatch(given.get("subject", "p_" + "0" * 24)):
        _refuse("subject", "must be a pseudonym, as records have it: `p_` and 24 digits (0-9, a-f)")
    fields: dict[str, str | int] = {name: given[name] for name in FIELDS if name in given}
    if "intent" in given:
        fields["intent"] = whole("intent", given["intent"], LAST)
    if "request" in given:
        fields["request"] = hidden.asked(given["request"])
    return Question(since, until, least, most, kind, fields)


def one_of(name: str, word: str, known: Sequence[str]) -> str:
    """`word`, if it is known. Raises `BadRequest`."""
    if word not in known:
        _refuse(name, f"must be one of {', '.join(known)}")
    return word


def _moment(name: str, text: str, zone: tzinfo, *, end: bool = False) -> str:
    """A day's or moment's beginning as records write moments; with `end`, what comes right after it."""
    at = None
    with contextlib.suppress(ValueError, OverflowError):
        if _DAY.fullmatch(text):
            day = date.fromisoformat(text) + timedelta(days=1 if end else 0)
            at = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        elif _MOMENT.fullmatch(text):
            at = datetime.fromisoformat(text).astimezone(UTC) + timedelta(milliseconds=1 if end else 0)
    if at is None:
        _refuse(name, "must be a day such as 2026-11-30, or a moment such as 2026-11-30T15:50:11Z (in a URL, + is %2B)")
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told(given: Mapping[str, str], known: Container[str], hidden: Hidden) -> dict[str, str]:
    """The parameters as they go on record before anything is looked for.

    What may be a name or a secret, as it is neither one of the words `known` nor of a form that says what it is, is
    hidden.
    """
    return {name: _told(name, value, known, hidden) for name, value in given.items()}


def _told(name: str, value: str, known: Container[str], hidden: Hidden) -> str:
    if name == "request":
        return hidden.asked(value)
    fits = _KEY.fullmatch(value) if name == "key" else name not in _WORDS or value in known
    return value if fits else hidden.word(value)


def found(given: Mapping[str, str], before: Mapping[str, str], records: int) -> dict[str, Any]:
    """What to tell of a search in its end: how many records were found, and what was asked for in words.

    `before` is what was `told`. What was found stands in the log as it was asked for, so it may stand there again.
    """
    shown = {name: value if name == "key" or name in _WORDS else before[name] for name, value in given.items()}
    return {"records": records} | ({"filters": shown} if records and shown != before else {})


def words(accounts: Accounts, models: Iterable[str]) -> frozenset[str]:
    """The words that stand in the config or in the appliance itself, and may so stand in the log."""
    return frozenset({*accounts.teams, *accounts.use_cases, *models, *Role, *names.ACTS, *names.INCIDENTS})


def going_on(question: Question, after: int, *, newest_first: bool) -> Question:
    """What is left of `question` after the record of the number `after`."""
    if newest_first:
        return replace(question, most=min(question.most, after - 1))
    return replace(question, least=max(question.least, after + 1))


def shaped(steps: Iterable[Step], form: str) -> Iterator[tuple[int, bytes]]:
    """What a file in the form `jsonl` or `csv` has of the steps, in small pieces, each with its number of records."""
    if form == "csv":
        yield 0, csv_lines([table.COLUMNS]).encode()
    for step in steps:
        if form == "jsonl":
            yield len(step.lines), b"".join(line + b"\n" for line in step.lines)
            continue
        for start in range(0, len(step.lines), _ROWS):
            rows = list(_rows(step.lines[start : start + _ROWS]))
            yield len(rows), csv_lines(rows).encode()


def _rows(lines: Iterable[bytes]) -> Iterator[tuple[str | int, ...]]:
    for line in lines:
        with contextlib.suppress(ValueError):  # damaged, or removed
            yield table.row(line)


def _refuse(name: str, what: str) -> NoReturn:
    refuse(name, f"{name} {what}")
