"""`appliance usage`: who used how much, straight from the store, so it works whether the appliance runs or not."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from appliance.commands import OK, store_of, write

if TYPE_CHECKING:
    from appliance.accounts.entries import Account, Balance, Used
    from appliance.accounts.keys import KeyRecord
    from appliance.accounts.persons import Persons
    from appliance.accounts.statement import By, Question, Row
    from appliance.accounts.terms import Terms
    from appliance.config import Config

_BAR = 12


def month(text: str) -> date:
    """The first day of a month such as `2026-11`."""
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise argparse.ArgumentTypeError("give a month such as 2026-11") from None


def by(text: str) -> tuple[By, ...]:
    """What sums are kept apart by."""
    from appliance.accounts.statement import By

    words = text.split(",")
    if len(set(words)) < len(words) or not set(words) <= set(By):
        raise argparse.ArgumentTypeError(f"give some of {', '.join(By)}, each once, with commas")
    return tuple(map(By, words))


def usage(options: argparse.Namespace) -> int:
    """Show who used how much in a month."""
    from appliance import config
    from appliance.accounts.calendar import Calendar
    from appliance.accounts.entries import Used
    from appliance.accounts.statement import Question, csv_lines, figures, heading, month_of, pages
    from appliance.accounts.terms import Terms

    loaded = config.load(options.config)
    accounts = loaded.settings.accounts
    first = options.month or date.fromisoformat(Calendar(accounts.zone).at(time.time()).month)
    question, total = Question(*month_of(first), options.by), Used()
    with store_of(loaded) as store:
        keys = store.keys()
        persons = _persons(loaded, keys)
        rows = [row for page in pages(store, question, total, persons) for row in page]
        held = _accounts(question, rows, persons)
        balances = store.balances(held.values()) if held else {}
    allowances = {record.id: record.allowance for record in keys if record.allowance is not None}
    if options.csv:
        sys.stdout.write(csv_lines([question.columns, *(tuple(row.values()) for row in rows)]))
    elif options.json:
        about = heading(question, accounts.time_zone)
        write(json.dumps({**about, "data": rows, "total": figures(total)}, indent=1))
    else:
        shares = {name: _share(Terms(accounts, allowances), account, balances) for name, account in held.items()}
        named = [record for record in keys if persons.key(record.id, record.user) == record.id]
        whose = {record.id: record.name or record.user or "" for record in named}
        write(_text(question, accounts.time_zone, rows, total, shares, whose))
    return OK


def _persons(config: Config, keys: Iterable[KeyRecord]) -> Persons:
    """How people are shown, with the pseudonyms that the appliance on this state folder has given them."""
    from appliance.accounts.persons import Persons
    from appliance.audit.subjects import pseudonyms

    owners = {record.id: record.user for record in keys}
    if not config.settings.audit.works_council:
        return Persons(None, owners.get)
    return Persons(_Asked(pseudonyms(config.state / "audit-keys")), owners.get, veiled=True)


class _Person(NamedTuple):
    name: str
    pseudonym: str


class _Asked:
    """Those whose pseudonym was asked for."""

    def __init__(self, pseudonym: Callable[[str], str | None]) -> None:
        self._pseudonym = pseudonym
        self._persons: dict[str, _Person] = {}

    def known(self, name: str) -> _Person | None:
        """Whoever has that name."""
        found = self._pseudonym(name)
        return self._persons.setdefault(found, _Person(name, found)) if found is not None else None

    def find(self, pseudonym: str) -> _Person | None:
        """Whoever has that pseudonym."""
        return self._persons.get(pseudonym)


def _accounts(question: Question, rows: Sequence[Row], persons: Persons) -> dict[str, Account]:
    """The month's account of each row, by its name, if rows are of those who hold budgets."""
    from appliance.accounts.entries import Account, Kind, Scope, Span

    (only,) = question.by if len(question.by) == 1 else (None,)
    if only is None or str(only) not in list(Kind):
        return {}
    holders = {name: persons.behind(Scope(Kind(str(only)), name)) for row in rows if (name := str(row[only]))}
    start = question.since.isoformat()
    return {name: Account(scope, Span.MONTH, start) for name, scope in holders.items() if scope is not None}


def _share(terms: Terms, account: Account, balances: Mapping[Account, Balance]) -> float | None:
    """How much of its month's budget is used, of the one that is used most; None without one."""
    from appliance.accounts.entries import Balance
    from appliance.accounts.statement import amounts

    used = balances.get(account, Balance())
    budgets = terms.limits(account.scope).budgets
    return max(
        (amounts(used, unit)[0] / most for (span, unit), most in budgets.items() if span is account.span), default=None
    )


def _text(
    question: Question,
    zone: str,
    rows: Sequence[Row],
    total: Used,
    shares: Mapping[str, float | None],
    whose: Mapping[str, str],
) -> str:
    from appliance.accounts.statement import By, figures

    # as they come, by name: whoever used most isn't to stand above others
    title = f"{question.since:%Y-%m}, days of {zone}"
    if not rows:
        return f"{title}: nothing was used"
    names = [str(each) for each in question.by]
    columns = ["requests", "prompt_tokens", "completion_tokens", "euros", *(["unsettled"] if total.unsettled else [])]
    lines = [[name.replace("_", " ") for name in (*names, *columns)]]
    lines += [[str(row[name]) or "(none)" for name in names] + _cells(row, columns) for row in rows]
    lines.append(["total", *[""] * (len(names) - 1), *_cells(figures(total), columns)])
    bars = [_bar(shares.get(str(row[names[0]]))) for row in rows]
    notes = ["of the month's budget" if any(bars) else "", *bars, ""]
    if By.KEY in question.by:
        notes = [
            f"{whose.get(str(row['key']), '') if row else 'whose':<24} {note}"
            for row, note in zip([None, *rows, {"key": ""}], notes, strict=True)
        ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(
            cell.ljust(width) if index < len(names) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([title, "", *(f"  {line}  {note}".rstrip() for line, note in zip(shown, notes, strict=True))])


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    """Figures for people: thousands apart, and euros to the cent."""
    return [f"{float(row[name]):,.2f}" if name == "euros" else f"{row[name]:,}" for name in columns]


def _bar(share: float | None) -> str:
    if share is None:
        return ""
    full = min(_BAR, int(share * _BAR))
    return f"{'█' * full}{'░' * (_BAR - full)} {int(share * 100):>3} %"
