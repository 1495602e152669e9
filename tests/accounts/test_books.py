"""The books: all scopes or none, exactly to the budget, and every refusal with what to do about it."""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.accounts.books import Books, Granted
from appliance.accounts.entries import (
    Account,
    Balance,
    Bucket,
    Changes,
    Kind,
    Level,
    Reservation,
    Scope,
    Span,
    Unit,
    UsageKey,
    Used,
    Want,
)
from appliance.accounts.rules import Rules
from appliance.accounts.sums import Mark
from appliance.config import Accounts, Allowance
from appliance.errors import BudgetExceeded, RateLimited, Refused

NOON = datetime(2026, 11, 22, 11, tzinfo=UTC).timestamp()
DAY = 86_400.0
TEAM = Scope(Kind.TEAM, "sales")
PRICED = {"prices": {"models": {"m": {"prompt_euros_per_million": 1.0, "completion_euros_per_million": 1.0}}}}
"""A token costs 1000 nano-euros."""


def rules(keys: dict[str, Allowance] | None = None, **accounts: Any) -> Rules:
    return Rules.of(Accounts.model_validate(accounts), keys or {})


class Desk:
    """Books with a wall clock and an even clock to turn."""

    def __init__(self, held: Rules, balances: dict[Account, Balance] | None = None, **books: Any) -> None:
        self.rules = held
        self.books = Books(held, **books)
        self.wall = NOON
        self.clock = 1000.0
        self.turn(balances)

    def turn(self, balances: dict[Account, Balance] | None = None) -> None:
        self.books.turn(self.rules.calendar.at(self.wall), balances or {}, self.wall, self.clock)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.clock += seconds

    def reserve(self, prompt: int = 10, completion: int = 0, **changes: Any) -> Granted:
        names: dict[str, Any] = {"key_id": "k", "user": "ada", "team": "sales", "use_case": "letters", "model": "m"}
        want = Want(**(names | changes), prompt_tokens=prompt, completion_tokens=completion)
        return self.books.reserve(want, self.wall, self.clock)

    def settle(self, granted: Granted, prompt: int, completion: int = 0) -> None:
        self.books.settle(granted.reservation, prompt, completion, self.wall, self.clock)

    def refusal(self, prompt: int = 10, completion: int = 0, **changes: Any) -> Refused:
        with pytest.raises((RateLimited, BudgetExceeded)) as caught:
            self.reserve(prompt, completion, **changes)
        return caught.value


# ---- whose allowance


@pytest.mark.parametrize(
    ("accounts", "owner"),
    [
        ({"each_key": {"tokens_per_day": 9}}, "this API key's"),
        ({"each_user": {"tokens_per_day": 9}}, "your user's"),
        ({"each_user": {"tokens_per_day": 99}, "users": {"ada": {"tokens_per_day": 9}}}, "your user's"),
        ({"each_team": {"tokens_per_day": 9}}, "your team's"),
        ({"each_team": {"tokens_per_day": 99}, "teams": {"sales": {"tokens_per_day": 9}}}, "your team's"),
        ({"use_cases": {"letters": {"tokens_per_day": 9}}}, "this use case's"),
    ],
)
def test_every_scope_has_its_allowance(accounts: dict[str, Any], owner: str) -> None:
    assert Desk(rules(**accounts)).refusal(10).message.startswith(f"{owner} budget of 9 tokens a day")


@pytest.mark.parametrize(
    ("accounts", "keys"),
    [
        ({"each_key": {"tokens_per_day": 9}}, {"k": Allowance()}),
        ({"each_user": {"tokens_per_day": 9}, "users": {"ada": {}}}, {}),
        ({"each_team": {"tokens_per_day": 9}, "teams": {"sales": {"weight": 2.0}}}, {}),
        ({"use_cases": {"another": {"tokens_per_day": 9}}}, {}),
    ],
)
def test_an_own_allowance_takes_the_place_of_the_one_for_each(
    accounts: dict[str, Any], keys: dict[str, Allowance]
) -> None:
    assert Desk(rules(keys, **accounts)).reserve(10).reservation.tokens == 10


def test_a_request_without_user_team_and_use_case_has_its_keys_accounts_only() -> None:
    desk = Desk(rules(each_user={"tokens_per_day": 1}, each_team={"tokens_per_day": 1}))
    reservation = desk.reserve(10, user=None, team=None, use_case=None).reservation
    key = Scope(Kind.KEY, "k")
    assert reservation.accounts == (Account(key, Span.DAY, "2026-11-22"), Account(key, Span.MONTH, "2026-11-01"))


# ---- budgets


def test_a_reservation_has_to_fit_beside_what_is_used_and_reserved() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100}))
    first = desk.reserve(30, 30)
    assert isinstance(desk.refusal(20, 21), BudgetExceeded)
    desk.reserve(20, 20)
    desk.settle(first, 10, 5)
    desk.reserve(45, 0)
    assert desk.refusal(1).message == (
        "your team's budget of 100 tokens a day is used up until 2026-11-23 00:00 (Europe/Berlin)"
    )


def test_a_refusal_leaves_no_trace_on_any_scope() -> None:
    desk = Desk(rules(each_key={"requests_per_minute": 5, "tokens_per_day": 1000}, use_cases={"letters": {
        "tokens_per_month": 50}}, each_user={"parallel_requests": 9}))  # fmt: skip
    desk.refusal(51)
    assert desk.books.changes() == Changes()
    for _ in range(5):
        desk.reserve(10)
    assert desk.books.changes().balances[Account(Scope(Kind.KEY, "k"), Span.DAY, "2026-11-22")].reserved_tokens == 50


def test_what_is_left_and_the_field_to_lower_are_told() -> None:
    desk = Desk(rules(each_team={"tokens_per_month": 100}))
    desk.settle(desk.reserve(90), 90)
    refusal = desk.refusal(5, 20)
    assert refusal.message == (
        "your team's budget of 100 tokens a month has 10 tokens left until 2026-12-01 00:00 (Europe/Berlin), and this "
        "request may use 25 tokens; lower `max_tokens`"
    )
    assert (refusal.code, refusal.param, refusal.retry_after) == ("budget_exceeded", "max_tokens", 8 * DAY + 12 * 3600)
    assert (b"x-should-retry", b"false") in refusal.headers


def test_a_prompt_that_alone_is_too_much_is_told_so() -> None:
    refusal = Desk(rules(each_team={"tokens_per_month": 100})).refusal(120, 20)
    assert refusal.message.endswith("send a shorter prompt")
    assert refusal.param is None


def test_euros_are_counted_too() -> None:
    desk = Desk(rules(each_user={"euros_per_day": 0.0001}, **PRICED))
    desk.settle(desk.reserve(40, 40), 40, 20)
    assert desk.refusal(20, 21).message.startswith(
        "your user's budget of 0.0001 euros a day has 0.00004 euros left until 2026-11-23 00:00 (Europe/Berlin), and "
        "this request may use 0.000041 euros"
    )
    desk.reserve(20, 20)


def test_what_was_used_beyond_the_reservation_is_booked_in_full() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100}))
    desk.settle(desk.reserve(50), 130)
    balance = desk.books.changes().balances[Account(TEAM, Span.DAY, "2026-11-22")]
    assert balance == Balance(tokens=130)
    assert isinstance(desk.refusal(1), BudgetExceeded)


def test_a_budget_that_steps_down_names_the_model_and_lets_that_one_pass() -> None:
    smaller = {"tokens_per_day": 10, "at_limit": "step_down", "step_down_to": "small"}
    desk = Desk(rules(each_team=smaller, each_user={"tokens_per_day": 50}))
    refusal = desk.refusal(20)
    assert isinstance(refusal, BudgetExceeded)
    assert refusal.step_down_to == "small"
    desk.refusal(20, model="another", stepped_down=True)
    desk.reserve(20, model="small", stepped_down=True)
    last = desk.refusal(40, model="small", stepped_down=True)
    assert isinstance(last, BudgetExceeded)
    assert last.step_down_to is None


def test_a_budget_that_warns_never_refuses() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 10, "at_limit": "warn"}))
    desk.settle(desk.reserve(1000), 1000)
    desk.reserve(1000)
    assert [event.percent for event in desk.books.changes().events] == [70, 90, 100]


# ---- days and months


def test_a_request_over_midnight_counts_on_the_day_on_which_it_began() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100}))
    early = desk.reserve(80)
    desk.passes(DAY)
    desk.turn()
    desk.reserve(80)
    desk.settle(early, 60)
    changes = desk.books.changes()
    assert changes.balances[Account(TEAM, Span.DAY, "2026-11-22")] == Balance(tokens=60)
    assert changes.balances[Account(TEAM, Span.DAY, "2026-11-23")] == Balance(reserved_tokens=80)
    assert changes.balances[Account(TEAM, Span.MONTH, "2026-11-01")] == Balance(tokens=60, reserved_tokens=80)
    assert [key.day for key in changes.used] == ["2026-11-22"]


def test_a_new_day_has_the_whole_budget_and_a_new_month_too() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100, "tokens_per_month": 150}))
    desk.settle(desk.reserve(100), 100)
    desk.passes(DAY)
    desk.turn()
    assert "a month" in desk.refusal(51).message
    desk.settle(desk.reserve(50), 50)
    desk.wall += 10 * DAY
    desk.turn()
    desk.reserve(100)


def test_a_clock_that_jumps_a_year_forth_and_back_finds_the_balances_again() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100}))
    desk.settle(desk.reserve(90), 90)
    stored = desk.books.changes().balances
    desk.wall += 365 * DAY
    desk.turn()
    desk.settle(desk.reserve(100), 100)
    desk.wall -= 365 * DAY
    desk.turn(stored)
    assert isinstance(desk.refusal(11), BudgetExceeded)
    desk.reserve(10)


def test_memory_holds_what_is_current_and_what_is_in_flight_only() -> None:
    desk = Desk(rules(each_user={"requests_per_minute": 1, "tokens_per_day": 10**6}))
    flying = desk.reserve(10, user="slow")
    for day in range(400):
        for user in range(5):
            desk.settle(desk.reserve(user=f"u{day}.{user}"), 10)
        desk.books.changes()
        desk.passes(DAY)
        desk.turn()
        desk.turn()
    kept = desk.books.counts()
    assert kept["accounts"] <= 200  # of a month's users
    assert kept["buckets"] <= 1
    assert kept["marks"] == 0
    desk.settle(flying, 10)
    assert Account(Scope(Kind.USER, "slow"), Span.DAY, "2026-11-22") in desk.books.changes().balances


# ---- minutes and parallel requests


def test_a_request_that_is_answered_elsewhere_counts_once_in_its_minute() -> None:
    desk = Desk(rules(each_team={"requests_per_minute": 1, "tokens_per_minute": 100}))
    desk.settle(desk.reserve(60), 0)
    desk.reserve(60, again=True)
    assert "1 request a minute" in desk.refusal(1).message
    assert "100 tokens a minute" in desk.refusal(60, again=True).message


@pytest.mark.parametrize(
    ("limits", "message", "retry_after"),
    [
        (
            {"requests_per_minute": 2},
            "your team's limit of 2 requests a minute is reached; try again in 30 s",
            30,
        ),
        (
            {"tokens_per_minute": 1000},
            "your team's limit of 1000 tokens a minute is reached; try again in 54 s",
            54,
        ),
        (
            {"euros_per_minute": 0.001},
            "your team's limit of 0.001 euros a minute is reached; try again in 54 s",
            54,
        ),
        (
            {"parallel_requests": 2},
            "your team's limit of 2 parallel requests is reached; wait until one has ended",
            1,
        ),
    ],
)
def test_a_limit_says_whose_it_is_and_when_to_come_back(limits: dict[str, Any], message: str, retry_after: int) -> None:
    desk = Desk(rules(each_team=limits, **PRICED))
    desk.reserve(400, 100)
    desk.reserve(400, 0)
    refusal = desk.refusal(900, 91)
    assert isinstance(refusal, RateLimited)
    assert (refusal.code, refusal.message, refusal.retry_after) == ("rate_limit_exceeded", message, retry_after)


def test_after_the_seconds_that_were_told_a_request_fits() -> None:
    desk = Desk(rules(each_team={"tokens_per_minute": 700, "requests_per_minute": 7}))
    for _ in range(7):
        desk.reserve(100)
    wait = desk.refusal(100).retry_after
    assert wait is not None
    desk.passes(wait)
    desk.reserve(100)


def test_of_several_limits_the_longest_wait_is_told() -> None:
    desk = Desk(rules(each_key={"requests_per_minute": 60}, each_team={"requests_per_minute": 1}))
    desk.reserve()
    assert desk.refusal().retry_after == 60


def test_a_request_that_can_never_fit_says_which_field_to_lower() -> None:
    refusal = Desk(rules(each_team={"tokens_per_minute": 1000})).refusal(200, 4000)
    assert refusal.message == (
        "this request may use 4200 tokens, more than your team's limit of 1000 tokens a minute; lower `max_tokens`"
    )
    assert (refusal.param, refusal.retry_after) == ("max_tokens", None)
    assert (b"x-should-retry", b"false") in refusal.headers


def test_a_minute_gets_back_what_was_not_used() -> None:
    desk = Desk(rules(each_team={"tokens_per_minute": 1000}))
    granted = desk.reserve(500, 500)
    assert isinstance(desk.refusal(1), RateLimited)
    desk.settle(granted, 100, 100)
    desk.reserve(800)
    assert isinstance(desk.refusal(1), RateLimited)


def test_parallel_requests_are_those_in_flight() -> None:
    desk = Desk(rules(each_user={"parallel_requests": 2}))
    first, _ = desk.reserve(), desk.reserve()
    desk.refusal()
    desk.reserve(user="grace")
    desk.settle(first, 0)
    desk.reserve()
    desk.refusal()


def test_headers_tell_what_is_left_also_with_a_refusal() -> None:
    desk = Desk(rules(each_key={"requests_per_minute": 2}, each_team={"tokens_per_minute": 600}))
    assert dict(desk.reserve(60).headers) == {
        b"x-ratelimit-limit-requests": b"2",
        b"x-ratelimit-remaining-requests": b"1",
        b"x-ratelimit-reset-requests": b"30s",
        b"x-ratelimit-limit-tokens": b"600",
        b"x-ratelimit-remaining-tokens": b"540",
        b"x-ratelimit-reset-tokens": b"6s",
    }
    desk.passes(3)
    refusal = desk.refusal(590)
    assert dict(refusal.headers)[b"x-ratelimit-remaining-tokens"] == b"570"


def test_without_limits_per_minute_there_are_no_headers() -> None:
    assert Desk(rules(each_key={"tokens_per_day": 1000})).reserve().headers == ()


# ---- events


def events(changes: Changes) -> list[tuple[str, str, int]]:
    return [(event.account.span.value, event.unit.value, event.percent) for event in changes.events]


def test_each_threshold_is_an_event_once_by_use_and_not_by_reservation() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100}))
    found = []
    for used in (69, 1, 19, 1, 10):
        granted = desk.reserve(10 if used < 10 else used)
        assert not desk.books.changes().events
        desk.settle(granted, used)
        found.append(events(desk.books.changes()))
    assert found == [[], [("day", "tokens", 70)], [], [("day", "tokens", 90)], [("day", "tokens", 100)]]


def test_a_jump_over_several_thresholds_is_an_event_for_each() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100, "euros_per_month": 0.0001}, **PRICED))
    desk.settle(desk.reserve(95), 95)
    assert events(desk.books.changes()) == [
        ("day", "tokens", 70), ("day", "tokens", 90), ("month", "nanoeuros", 70), ("month", "nanoeuros", 90),
    ]  # fmt: skip


def test_a_new_day_has_its_own_events() -> None:
    desk = Desk(rules(each_team={"tokens_per_day": 100}))
    for day in ("2026-11-22", "2026-11-23"):
        desk.settle(desk.reserve(70), 70)
        assert [event.account.start for event in desk.books.changes().events] == [day]
        desk.passes(DAY)
        desk.turn()


def test_what_was_reached_before_a_start_is_an_event_if_the_store_does_not_have_it() -> None:
    """A crash may have come between: the request was booked by the recovery, and nobody was told."""
    account = Account(TEAM, Span.DAY, "2026-11-22")
    desk = Desk(rules(each_team={"tokens_per_day": 100}), {account: Balance(tokens=75)})
    assert [event.percent for event in desk.books.changes().events] == [70]
    known = {Mark(account, Unit.TOKENS, 70)}
    desk = Desk(rules(each_team={"tokens_per_day": 100}), {account: Balance(tokens=75)}, marks=known)
    assert not desk.books.changes().events


# ---- other rules


def test_other_rules_hold_at_once_and_count_what_was_used_before() -> None:
    desk = Desk(rules())
    desk.settle(desk.reserve(80), 80)
    flying = desk.reserve(10)
    desk.rules = rules(each_team={"tokens_per_day": 100, "parallel_requests": 1})
    desk.books.apply(desk.rules, desk.wall)
    assert events(desk.books.changes()) == [("day", "tokens", 70)]
    assert "budget of 100 tokens a day has 10 tokens left" in desk.refusal(11).message
    assert "1 parallel request is" in desk.refusal(10).message
    desk.settle(flying, 10)
    desk.reserve(10)


def test_a_limit_that_is_raised_or_taken_away_lets_requests_pass_at_once() -> None:
    desk = Desk(rules(each_team={"tokens_per_minute": 100}))
    flying = desk.reserve(100)
    desk.books.apply(rules(each_team={"tokens_per_minute": 150}), desk.wall)
    desk.reserve(50)
    desk.refusal(1)
    desk.books.apply(rules(), desk.wall)
    desk.reserve(1000)
    desk.settle(flying, 0)


# ---- the store


def test_what_was_opened_and_closed_since_is_not_handed_over() -> None:
    desk = Desk(rules())
    kept = desk.reserve(10)
    assert [reservation.number for reservation in desk.books.changes().opened] == [kept.reservation.number]
    desk.settle(kept, 5, 3)
    desk.settle(desk.reserve(10), 1)
    changes = desk.books.changes()
    assert (changes.opened, changes.closed) == ([], [kept.reservation.number])
    assert changes.used == {UsageKey("2026-11-22", "k", "ada", "sales", "letters", "m"): Used(2, 6, 3)}
    assert desk.books.changes() == Changes()


def test_a_request_that_used_nothing_is_no_use() -> None:
    desk = Desk(rules())
    desk.settle(desk.reserve(10), 0)
    assert not desk.books.changes().used


def test_a_reservation_of_other_books_is_settled_on_its_own_accounts() -> None:
    shared = rules(each_team={"tokens_per_day": 100, "tokens_per_minute": 100})
    first = Desk(shared, levels={})
    granted = first.reserve(60)
    changes = first.books.changes()
    assert changes.levels == {Bucket(TEAM, Unit.TOKENS): Level(pytest.approx(40), 1000.0)}
    second = Desk(shared, changes.balances, levels=changes.levels, flying={TEAM: 1}, first_number=2)
    second.settle(granted, 20)
    settled = second.books.changes()
    assert settled.balances[Account(TEAM, Span.DAY, "2026-11-22")] == Balance(tokens=20)
    assert settled.levels[Bucket(TEAM, Unit.TOKENS)].level == pytest.approx(80)
    assert settled.closed == [1]


# ---- any order of things


ALLOWANCES = st.fixed_dictionaries(
    {},
    optional={
        "tokens_per_day": st.integers(1, 300),
        "tokens_per_month": st.integers(1, 500),
        "euros_per_day": st.floats(1e-6, 3e-4),
        "requests_per_minute": st.integers(1, 8),
        "tokens_per_minute": st.integers(1, 300),
        "parallel_requests": st.integers(1, 5),
    },
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 2), st.integers(0, 100), st.integers(0, 100)),
        st.tuples(st.just("settle"), st.integers(0, 50), st.floats(0, 1), st.floats(0, 1)),
        st.tuples(st.just("pass"), st.floats(-2 * DAY, 2 * DAY), st.floats(-100, 100), st.none()),
        st.tuples(st.just("hand over"), st.none(), st.none(), st.none()),
    ),
    max_size=60,
)


class Copy:
    """A store made of dictionaries: what `changes` replayed comes to."""

    def __init__(self) -> None:
        self.balances: dict[Account, Balance] = {}
        self.open: dict[int, Reservation] = {}
        self.used: Counter[str] = Counter()
        self.levels: dict[Bucket, Level] = {}

    def take(self, changes: Changes) -> None:
        self.balances |= changes.balances
        self.open |= {reservation.number: reservation for reservation in changes.opened}
        for number in changes.closed:
            del self.open[number]
        for used in changes.used.values():
            self.used["tokens"] += used.prompt_tokens + used.completion_tokens
            self.used["nanoeuros"] += used.nanoeuros
        self.levels |= changes.levels


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ALLOWANCES, ALLOWANCES, ALLOWANCES, STEPS)
def test_whatever_happens_budgets_hold_and_all_that_was_reserved_is_freed(
    key: dict[str, Any], team: dict[str, Any], use_case: dict[str, Any], steps: list[tuple[Any, ...]]
) -> None:
    held = rules(each_key=key, each_team=team, use_cases={"letters": use_case}, **PRICED)
    desk = Desk(held, levels={})
    copy = Copy()
    flying: list[Granted] = []
    used = 0

    def hand_over() -> None:
        copy.take(desk.books.changes())

    for what, *values in steps:
        if what == "reserve":
            with contextlib.suppress(RateLimited, BudgetExceeded):
                flying.append(desk.reserve(values[1], values[2], key_id=f"k{values[0]}", user=None))
        elif what == "settle" and flying:
            granted = flying.pop(values[0] % len(flying))
            want = granted.reservation.want
            spent = round(want.prompt_tokens * values[1]), round(want.completion_tokens * values[2])
            used += sum(spent)
            desk.settle(granted, *spent)
        elif what == "pass":
            desk.wall += values[0]
            desk.clock += values[1]
            hand_over()
            desk.turn(copy.balances)
        elif what == "hand over":
            hand_over()
            assert set(copy.open) == {granted.reservation.number for granted in flying}
    for granted in flying:
        desk.settle(granted, 0)
    hand_over()
    assert not copy.open
    assert copy.used == Counter(tokens=used, nanoeuros=used * 1000) + Counter()
    for bucket, level in copy.levels.items():
        assert 0 <= level.level <= held.terms.limits(bucket.scope).minute[bucket.unit]
    for account, balance in copy.balances.items():
        assert (balance.reserved_tokens, balance.reserved_nanoeuros) == (0, 0)
        limits = held.terms.limits(account.scope).budgets
        assert balance.tokens <= limits.get((account.span, Unit.TOKENS), balance.tokens)
        assert balance.nanoeuros <= limits.get((account.span, Unit.NANOEUROS), balance.nanoeuros)
    assert desk.books.counts()["in flight"] == 0
