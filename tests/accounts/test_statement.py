"""What people read of the books: exact sums, rows by anything, and nothing of other people's use."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accounts import statement
from appliance.accounts.calendar import Calendar
from appliance.accounts.entries import (
    NANO,
    Account,
    Balance,
    Changes,
    Event,
    Kind,
    Scope,
    Span,
    Unit,
    UsageKey,
    Used,
)
from appliance.accounts.persons import Persons
from appliance.accounts.statement import By, Question
from appliance.accounts.store import Store
from appliance.accounts.terms import Terms
from appliance.config import Accounts, Allowance, Team, UseCase
from appliance.core import Caller

BERLIN = Calendar(ZoneInfo("Europe/Berlin"))
NOW = datetime(2026, 11, 22, 23, 59, tzinfo=BERLIN.zone).timestamp()
USED = {
    UsageKey("2026-10-31", "key_a", "anna", "sales", "", "chat"): Used(1, 10, 20, 3, 0),
    UsageKey("2026-11-01", "key_a", "anna", "sales", "", "chat"): Used(2, 100, 200, NANO, 0),
    UsageKey("2026-11-22", "key_a", "anna", "sales", "mail", "chat"): Used(3, 1000, 2000, 2 * NANO + 1, 1),
    UsageKey("2026-11-22", "key_b", "anna", "sales", "", "small"): Used(4, 10_000, 20_000, 0, 0),
    UsageKey("2026-11-22", "key_c", "ben", "sales", "", "chat"): Used(5, 100_000, 200_000, 5, 0),
    UsageKey("2026-11-30", "key_d", "", "", "", "chat"): Used(6, 1_000_000, 2_000_000, 6, 0),
}
ANNA = Caller("key_a", user="anna", team="sales", use_cases=frozenset({"mail"}))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.sqlite(tmp_path)
    store.claim("here")
    store.commit(Changes(used=USED))
    yield store
    store.close()


def rows(store: Store, since: str, until: str, by: str = "", **where: str) -> list[dict[str, Any]]:
    question = Question(
        date.fromisoformat(since),
        date.fromisoformat(until),
        tuple(map(By, by.split(","))) if by else (),
        {By(name): value for name, value in where.items()},
    )
    total = Used()
    found = [row for page in statement.pages(store, question, total, Persons()) for row in page]
    assert all(tuple(row) == question.columns for row in found)
    for name in ("requests", "prompt_tokens", "completion_tokens", "unsettled"):
        assert getattr(total, name) == sum(row[name] for row in found)
    return found


def requests(found: list[dict[str, Any]], *names: str) -> dict[Any, int]:
    return {tuple(row[name] for name in names): row["requests"] for row in found}


# ---- sums


def test_both_days_count_and_none_beside_them(store: Store) -> None:
    assert [row["requests"] for row in rows(store, "2026-11-01", "2026-11-22")] == [14]
    assert [row["requests"] for row in rows(store, "2026-11-02", "2026-11-29")] == [12]
    assert rows(store, "2026-12-01", "2026-12-31") == []


def test_sums_are_kept_apart_by_whatever_is_asked_for(store: Store) -> None:
    whole = ("2026-10-01", "2026-11-30")
    assert requests(rows(store, *whole, "user"), "user") == {("anna",): 10, ("ben",): 5, ("",): 6}
    assert requests(rows(store, *whole, "month"), "month") == {("2026-10",): 1, ("2026-11",): 20}
    assert requests(rows(store, *whole, "model,team"), "model", "team") == {
        ("chat", ""): 6, ("chat", "sales"): 11, ("small", "sales"): 4,
    }  # fmt: skip
    assert requests(rows(store, *whole, "day,month,use_case"), "day", "month", "use_case") == {
        ("2026-10-31", "2026-10", ""): 1, ("2026-11-01", "2026-11", ""): 2, ("2026-11-22", "2026-11", "mail"): 3,
        ("2026-11-22", "2026-11", ""): 9, ("2026-11-30", "2026-11", ""): 6,
    }  # fmt: skip
    assert requests(rows(store, *whole, "key"), "key")[("key_a",)] == 6


def test_filters_pick_and_an_empty_one_picks_what_has_none(store: Store) -> None:
    whole = ("2026-10-01", "2026-11-30")
    assert requests(rows(store, *whole, "user", team="sales", model="chat"), "user") == {("anna",): 6, ("ben",): 5}
    assert requests(rows(store, *whole, "key", team=""), "key") == {("key_d",): 6}
    assert rows(store, *whole, "key", team="nobody") == []


def test_days_and_months_come_in_order_each_on_a_page(store: Store) -> None:
    def pages(by: By) -> list[list[Any]]:
        question = Question(date(2026, 10, 15), date(2027, 1, 15), (by,))
        return [[row[str(by)] for row in page] for page in statement.pages(store, question, Used(), Persons())]

    assert pages(By.MONTH) == [["2026-10"], ["2026-11"], [], []]
    days = pages(By.DAY)
    assert len(days) == 17 + 30 + 31 + 15
    assert [day for page in days for day in page] == ["2026-10-31", "2026-11-01", "2026-11-22", "2026-11-30"]


@given(st.integers(min_value=0, max_value=10**30))
def test_euros_lose_nothing(nanoeuros: int) -> None:
    whole, decimals = statement.euros(nanoeuros).split(".")
    assert len(decimals) == 9
    assert int(whole + decimals) == nanoeuros


# ---- CSV

FORMULA = ("=", "+", "-", "@", "\t", "\r")
_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_cells = st.text(_characters | st.sampled_from(";=+-@,\"'\t"), max_size=12)


@given(st.lists(st.tuples(_cells, st.integers(min_value=0)), min_size=1, max_size=5))
def test_csv_is_read_back_as_it_was_but_no_cell_is_a_formula(lines: list[tuple[str, int]]) -> None:
    text = statement.csv_lines(lines)
    assert text.endswith("\r\n")
    back = list(csv.reader(io.StringIO(text, newline="")))
    for (name, number), (cell, figure) in zip(lines, back, strict=True):
        assert figure == str(number)
        assert cell.replace("'", "") == name.replace("'", "")
        assert cell == name or any(part.startswith(FORMULA) for part in name.split(";"))
        assert not any(part.startswith(FORMULA) for part in cell.split(";")), "a German Excel ends cells there"


def test_csv_quotes_what_has_to_be_quoted() -> None:
    lines = [("team", "n"), ('Ein, "kauf"', 1), ("a\nb", 2), ("=HYPERLINK(1)", 3), ("Müller", 4)]
    assert statement.csv_lines(lines) == (
        'team,n\r\n"Ein, ""kauf""",1\r\n"a\nb",2\r\n\'=HYPERLINK(1),3\r\nMüller,4\r\n'
    )


# ---- a caller's own account


def own(
    store: Store, accounts: Accounts, caller: Caller = ANNA, since: str | None = None, **keys: Allowance
) -> dict[str, Any]:
    answer = statement.own(store, Terms(accounts, keys), BERLIN, caller, NOW, since)
    assert json.loads(json.dumps(answer)) == answer, "it is not JSON as it stands"
    return answer


def balance(kind: Kind, name: str, span: Span, tokens: int, nanoeuros: int = 0, reserved: int = 0) -> Any:
    start = "2026-11-22" if span is Span.DAY else "2026-11-01"
    return Account(Scope(kind, name), span, start), Balance(tokens, nanoeuros, reserved, reserved)


def test_a_caller_sees_what_its_key_and_its_user_used(store: Store) -> None:
    answer = own(store, Accounts())
    assert answer["time_zone"] == "Europe/Berlin"
    assert answer["key"] == {
        "id": "key_a",
        "today": {
            "requests": 3, "prompt_tokens": 1000, "completion_tokens": 2000, "euros": "2.000000001", "unsettled": 1,
        },
        "month": {
            "requests": 5, "prompt_tokens": 1100, "completion_tokens": 2200, "euros": "3.000000001", "unsettled": 1,
        },
    }  # fmt: skip
    assert answer["user"]["name"] == "anna"
    assert (answer["user"]["today"]["requests"], answer["user"]["month"]["requests"]) == (7, 9)
    assert (answer["budgets"], answer["limits"]) == ([], [])


def test_a_key_of_nobody_has_no_user(store: Store) -> None:
    answer = own(store, Accounts(), Caller("key_d"))
    assert answer["user"] is None
    assert answer["key"]["month"]["requests"] == 0, "the 30th is yet to come"


def test_its_own_budgets_are_told_in_full(store: Store) -> None:
    store.commit(Changes(balances=dict([
        balance(Kind.KEY, "key_a", Span.DAY, 3000, reserved=500),
        balance(Kind.USER, "anna", Span.MONTH, 33_300, 3 * NANO + 1),
    ])))  # fmt: skip
    answer = own(
        store,
        Accounts(users={"anna": Allowance(euros_per_month=2.5, at_limit="warn")}),
        key_a=Allowance(tokens_per_day=10_000, at_limit="step_down", step_down_to="small"),
    )
    assert answer["budgets"] == [
        {
            "holder": "key", "name": "key_a", "span": "day", "unit": "tokens", "limit": 10_000, "used": 3000,
            "reserved": 500, "left": 6500, "left_percent": 65, "resets_at": "2026-11-23T00:00:00+01:00",
            "at_limit": "step_down", "step_down_to": "small",
        },
        {
            "holder": "user", "name": "anna", "span": "month", "unit": "euros", "limit": "2.500000000",
            "used": "3.000000001", "reserved": "0.000000000", "left": "0.000000000", "left_percent": 0,
            "resets_at": "2026-12-01T00:00:00+01:00", "at_limit": "warn", "step_down_to": None,
        },
    ]  # fmt: skip


def test_of_a_teams_and_a_use_cases_budget_only_the_percentage_left_is_told(store: Store) -> None:
    store.commit(Changes(balances=dict([
        balance(Kind.TEAM, "sales", Span.MONTH, 77_777, reserved=1),
        balance(Kind.USE_CASE, "mail", Span.DAY, 1),
    ])))  # fmt: skip
    accounts = Accounts(
        teams={"sales": Team(tokens_per_month=100_000)},
        use_cases={"mail": UseCase(tokens_per_day=3), "other": UseCase(tokens_per_day=4)},
    )
    answer = own(store, accounts)
    told = {"holder", "name", "span", "unit", "left_percent", "resets_at", "at_limit", "step_down_to"}
    assert [set(budget) for budget in answer["budgets"]] == [told, told]
    assert [(b["holder"], b["name"], b["left_percent"]) for b in answer["budgets"]] == [
        ("team", "sales", 22), ("use_case", "mail", 66),
    ]  # fmt: skip
    shown = json.dumps(answer)
    for secret in ("77777", "77_777", "22222", "100000", "ben", "key_b", "key_c", "other"):
        assert secret not in shown


def test_whoever_may_have_made_the_key_is_told_of_that_key_alone(store: Store) -> None:
    store.commit(Changes(balances=dict([
        balance(Kind.KEY, "key_a", Span.DAY, 3000), balance(Kind.USER, "anna", Span.MONTH, 33_300),
    ])))  # fmt: skip
    accounts = Accounts(each_user=Allowance(tokens_per_month=100_000))
    answer = own(store, accounts, since="", key_a=Allowance(tokens_per_day=10_000))
    assert answer["user"] == {"name": "anna"}
    assert (answer["key"]["today"]["requests"], answer["key"]["month"]["requests"]) == (3, 5)
    key, user = answer["budgets"]
    assert (key["used"], key["left"]) == (3000, 7000)
    assert (user["holder"], user["left_percent"]) == ("user", 66)
    assert not {"limit", "used", "reserved", "left"} & user.keys()


@pytest.mark.parametrize(
    ("since", "requests", "full"),
    [("2026-10-31", (3, 5), True), ("2026-11-02", (3, 3), True), ("2026-11-23", (0, 0), False)],
)
def test_of_a_key_that_was_rotated_only_what_was_used_since_is_told(
    store: Store, since: str, requests: tuple[int, int], *, full: bool
) -> None:
    answer = own(store, Accounts(), since=since, key_a=Allowance(tokens_per_day=10_000))
    assert (answer["key"]["today"]["requests"], answer["key"]["month"]["requests"]) == requests
    assert ("used" in answer["budgets"][0]) is full


def test_limits_per_minute_are_told_for_all_that_hold(store: Store) -> None:
    accounts = Accounts(
        each_key=Allowance(requests_per_minute=60, parallel_requests=4),
        each_user=Allowance(tokens_per_minute=1000),
        each_team=Team(euros_per_minute=0.5),
    )
    assert own(store, accounts)["limits"] == [
        {"holder": "key", "name": "key_a", "unit": "requests_per_minute", "limit": 60},
        {"holder": "key", "name": "key_a", "unit": "parallel_requests", "limit": 4},
        {"holder": "user", "name": "anna", "unit": "tokens_per_minute", "limit": 1000},
        {"holder": "team", "name": "sales", "unit": "euros_per_minute", "limit": "0.500000000"},
    ]


def test_an_event_is_told_with_its_time_in_the_zone() -> None:
    account = Account(Scope(Kind.TEAM, "sales"), Span.MONTH, "2026-11-01")
    assert statement.shown(Event(account, Unit.NANOEUROS, 90, NOW), BERLIN, Persons()) == {
        "at": "2026-11-22T23:59:00+01:00", "holder": "team", "name": "sales", "span": "month", "start": "2026-11-01",
        "unit": "euros", "percent": 90,
    }  # fmt: skip
