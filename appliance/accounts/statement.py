"""What was used and what is left, as people read it: rows of sums, and a caller's own account.

Amounts in euros are text with nine decimals, `0.001250000`: exact, so that rows add up to their total.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from appliance.accounts.calendar import Calendar, Period
from appliance.accounts.entries import NANO, Account, Balance, Event, Kind, Scope, Span, Unit, UsageKey, Used
from appliance.accounts.persons import Persons
from appliance.accounts.terms import NEVER, Limits, Terms
from appliance.core import Caller

Row = dict[str, str | int]


class By(StrEnum):
    """What sums can be kept apart by."""

    DAY = "day"
    MONTH = "month"
    KEY = "key"
    USER = "user"
    TEAM = "team"
    USE_CASE = "use_case"
    MODEL = "model"


HOLDERS = (By.KEY, By.USER, By.TEAM, By.USE_CASE, By.MODEL)
"""Those of them that sums can be picked by, too."""
FIGURES = ("requests", "prompt_tokens", "completion_tokens", "euros", "unsettled")
_FIELDS = {each: str(each) for each in HOLDERS} | {By.KEY: "key_id"}


class Books(Protocol):
    """What is asked of the store. Each method raises `BooksUnavailable`."""

    def usage(
        self, since: str, until: str, per: Span | None, by: Iterable[str] = (), where: Mapping[str, str] | None = None
    ) -> list[tuple[UsageKey, Used]]:
        """What was used from one day to another, both included, oldest first."""

    def balances(self, accounts: Collection[Account]) -> dict[Account, Balance]:
        """Those of the accounts that were ever used."""


@dataclass(frozen=True, slots=True)
class Question:
    """Whose use is asked for, over which days (both included), and by what it is kept apart."""

    since: date
    until: date
    by: tuple[By, ...] = ()
    where: Mapping[By, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of its rows."""
        return (*map(str, self.by), *FIGURES)


def month_of(day: date) -> tuple[date, date]:
    """The first and the last day of the month that holds `day`."""
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def pages(books: Books, question: Question, total: Used, persons: Persons) -> Iterator[list[Row]]:
    """The rows that answer `question`, and in `total` their sum. Of rows by time, each day or month is a page.

    On a page they stand in the order of what is shown, never by amount: nobody is ranked. Raises `BadRequest` for a
    filter that names a person where persons are shown by pseudonym.

    A small page lets others have their turn: rows of a whole company's month kept all of Python waiting.
    """
    per = Span.DAY if By.DAY in question.by else Span.MONTH if By.MONTH in question.by else None
    by = {_FIELDS[each] for each in question.by if each in _FIELDS}
    if By.KEY in question.by:
        by.add(_FIELDS[By.USER])  # whose a key was when it was used
    where = persons.meant({_FIELDS[each]: value for each, value in question.where.items()})
    since = question.since
    while since <= question.until:
        until = {None: question.until, Span.MONTH: min(month_of(since)[1], question.until), Span.DAY: since}[per]
        found = books.usage(since.isoformat(), until.isoformat(), per, by, where)
        for _, used in found:
            total.add(used)
        yield _rows(question.by, found, persons)
        since = until + timedelta(days=1)


def _rows(by: Sequence[By], found: Iterable[tuple[UsageKey, Used]], persons: Persons) -> list[Row]:
    """One row for each combination that is shown: keys of one person may be one."""
    sums: dict[tuple[str, ...], Used] = {}
    for key, used in found:
        shown = {
            By.DAY: key.day, By.MONTH: key.day[:7], By.TEAM: key.team, By.USE_CASE: key.use_case, By.MODEL: key.model,
        }  # fmt: skip
        if By.KEY in by:
            shown[By.KEY] = persons.key(key.key_id, key.user)
        if By.USER in by:
            shown[By.USER] = persons.user(key.user)
        sums.setdefault(tuple(shown[each] for each in by), Used()).add(used)
    rows: list[Row] = []
    for names in sorted(sums):
        row: Row = dict(zip(map(str, by), names, strict=True))
        rows.append(row | figures(sums[names]))
    return rows


def heading(question: Question, zone: str) -> dict[str, Any]:
    """What stands above the rows in JSON."""
    return {
        "object": "list",
        "from": question.since.isoformat(),
        "to": question.until.isoformat(),
        "time_zone": zone,
        "by": [str(each) for each in question.by],
    }


def figures(used: Used) -> Row:
    """Sums as they are shown."""
    return {
        "requests": used.requests,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "euros": euros(used.nanoeuros),
        "unsettled": used.unsettled,
    }


def euros(nanoeuros: int) -> str:
    """An amount that isn't negative, exactly: `12.000000500`."""
    return f"{nanoeuros // NANO}.{nanoeuros % NANO:09d}"


def csv_lines(rows: Iterable[Sequence[str | int]]) -> str:
    """Lines as RFC 4180 has them. Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    for row in rows:
        writer.writerow([_FORMULA.sub("'", cell) if isinstance(cell, str) else cell for cell in row])
    return lines.getvalue()


_FORMULA = re.compile(r"(?:^|(?<=;))(?=[=+\-@\t\r])")
"""Where one would begin; for a German Excel a semicolon ends a cell, and quotes inside of a line say nothing."""


def shown(event: Event, calendar: Calendar, persons: Persons) -> dict[str, Any]:
    """A threshold event, for JSON."""
    scope, span, start = event.account
    return {
        "at": _iso(event.at, calendar),
        "holder": str(scope.kind),
        "name": persons.scope(scope),
        "span": str(span),
        "start": start,
        "unit": _unit(event.unit),
        "percent": event.percent,
    }


def own(
    books: Books, terms: Terms, calendar: Calendar, caller: Caller, now: float, since: str | None = None
) -> dict[str, Any]:
    """What `caller` used, by its key and as a user, and what is left of each allowance that holds for it.

    Of its own allowances in full. Of a team's and a use case's only the percentage that is left: what colleagues
    used is nobody's business, and that there is nothing left is.

    With `since`, a day or empty, the key alone says who asks, and may have come to somebody else: then only what was
    used with this very key is told in full, from that day on, and of the person's allowances the percentage.
    """
    period = calendar.at(now)
    scopes = [Scope(Kind.KEY, caller.key_id)]
    scopes += [Scope(Kind.USER, caller.user)] if caller.user is not None else []
    scopes += [Scope(Kind.TEAM, caller.team)] if caller.team is not None else []
    scopes += [Scope(Kind.USE_CASE, name) for name in sorted(caller.use_cases)]
    limits = {scope: terms.limits(scope) for scope in scopes}
    accounts = {
        Account(scope, span, start)
        for scope in scopes
        for span, start in ((Span.DAY, period.day), (Span.MONTH, period.month))
        if any(spent is span for spent, _ in limits[scope].budgets)
    }
    balances = books.balances(accounts) if accounts else {}
    answer: dict[str, Any] = {
        "object": "usage",
        "time_zone": calendar.zone.key,
        "key": {"id": caller.key_id} | _spent(books, period, {By.KEY: caller.key_id}, since or ""),
        "user": None,
        "budgets": [
            budget for scope in scopes for budget in _budgets(scope, limits[scope], period, calendar, balances, since)
        ],
        "limits": [limit for scope in scopes for limit in _limits(scope, limits[scope])],
    }
    if caller.user is not None:
        answer["user"] = {"name": caller.user}
        if since is None:
            answer["user"] |= _spent(books, period, {By.USER: caller.user})
    return answer


def _spent(books: Books, period: Period, where: Mapping[By, str], since: str = "") -> dict[str, Row]:
    today, month = Used(), Used()
    first, last = max(period.month, since), date.fromisoformat(period.day)
    own = Persons()  # whoever asks knows the own name
    for _ in pages(books, Question(date.fromisoformat(first), last, (), where), month, own):
        pass
    if first <= period.day:
        for _ in pages(books, Question(last, last, (), where), today, own):
            pass
    return {"today": figures(today), "month": figures(month)}


def _budgets(
    scope: Scope,
    limits: Limits,
    period: Period,
    calendar: Calendar,
    balances: Mapping[Account, Balance],
    since: str | None,
) -> Iterator[dict[str, Any]]:
    for (span, unit), most in limits.budgets.items():
        start, ends = (period.day, period.day_ends) if span is Span.DAY else (period.month, period.month_ends)
        used, reserved = amounts(balances.get(Account(scope, span, start), Balance()), unit)
        left = max(most - used - reserved, 0)
        budget: dict[str, Any] = {
            "holder": str(scope.kind),
            "name": scope.name,
            "span": str(span),
            "unit": _unit(unit),
            "left_percent": left * 100 // most,
            "resets_at": _iso(ends, calendar),
            "at_limit": limits.at_limit,
            "step_down_to": limits.step_down_to,
        }
        if (scope.kind is Kind.KEY and (since or "") <= start) or (scope.kind is Kind.USER and since is None):
            figures = {"limit": most, "used": used, "reserved": reserved, "left": left}
            budget |= {name: _amount(amount, unit) for name, amount in figures.items()}
        yield budget


def amounts(balance: Balance, unit: Unit) -> tuple[int, int]:
    """What is used and what is reserved in `unit`, of those that budgets have."""
    if unit is Unit.NANOEUROS:
        return balance.nanoeuros, balance.reserved_nanoeuros
    return balance.tokens, balance.reserved_tokens


def _limits(scope: Scope, limits: Limits) -> Iterator[dict[str, Any]]:
    about = {"holder": str(scope.kind), "name": scope.name}
    for unit, most in limits.minute.items():
        yield about | {"unit": f"{_unit(unit)}_per_minute", "limit": _amount(most, unit)}
    if limits.parallel < NEVER:
        yield about | {"unit": "parallel_requests", "limit": limits.parallel}


def _unit(unit: Unit) -> str:
    return "euros" if unit is Unit.NANOEUROS else str(unit)


def _amount(amount: int, unit: Unit) -> str | int:
    return euros(amount) if unit is Unit.NANOEUROS else amount


def _iso(moment: float, calendar: Calendar) -> str:
    return datetime.fromtimestamp(moment, calendar.zone).isoformat(timespec="seconds")
